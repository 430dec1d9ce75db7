//! What a group controller promises, seen from its host: inputs go in, steps come out.

#![expect(clippy::unwrap_used, reason = "in a test a failed unwrap is a failed test")]

mod acts;
mod approvals;
mod attach;
mod budget;
mod checkpoints;
mod compaction;
mod configure;
mod context;
mod discussions;
mod export;
mod freeze;
mod harness;
mod init;
mod leave;
mod messages;
mod out;
mod outside;
mod permissions;
mod post;
mod presence;
mod properties;
mod queue;
mod runs;
mod shelf;
mod snapshot;
mod spending;
mod tools;
mod triggers;
mod typing;
mod watchers;
