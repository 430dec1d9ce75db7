//! Tasks: how work that outlives its call stands.

pub(crate) mod read;
