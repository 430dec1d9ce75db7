//! Routing tokens: a user's right to one group for a few minutes.

pub(crate) mod issue;
