//! Tasks: how work that outlives its call stands.

pub(crate) mod list;
pub(crate) mod read;
