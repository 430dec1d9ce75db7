//! What an organization may use.

pub(crate) mod read;
pub(crate) mod set;
