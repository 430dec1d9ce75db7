//! The journal: every group's events in the order of their commits, in append-only files.
//!
//! Owns what makes an acknowledged event durable: the queue before the committer, the committer's
//! transactions, the files and their rotation, and what is read back after a crash. Never answers
//! a read while the store runs: that is what the overlay and `rooms.db` are for.

mod checkpointer;
pub(crate) mod committer;
pub(crate) mod files;
pub(crate) mod queue;
pub(crate) mod recovery;
pub(crate) mod row;
