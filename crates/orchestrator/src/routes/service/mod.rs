//! What the service says of itself, to anybody.

pub(crate) mod health;
pub(crate) mod jwks;
