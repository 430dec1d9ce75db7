//! Snapshots in a store in memory.
#![expect(clippy::unwrap_used, reason = "in a test a failed unwrap is a failed test")]

mod damage;
mod pages;
mod sample;
mod why;
mod writing;
