//! What a group controller promises, seen from its host: inputs go in, steps come out.

#![expect(clippy::unwrap_used, reason = "in a test a failed unwrap is a failed test")]

mod attach;
mod configure;
mod context;
mod harness;
mod init;
mod leave;
mod post;
mod properties;
mod queue;
mod runs;
mod triggers;
