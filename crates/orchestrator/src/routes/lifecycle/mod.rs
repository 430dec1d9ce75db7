//! Lifecycle: what controllers and apps report of a group's coming and going.

pub(crate) mod cleanup;
