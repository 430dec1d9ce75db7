//! Whether an organization is blocked.

pub(crate) mod read;
pub(crate) mod set;
