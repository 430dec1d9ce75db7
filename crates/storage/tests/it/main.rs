//! The storage crate as its users see it.
#![expect(clippy::unwrap_used, reason = "a failing test may panic")]

mod archive;
mod backup;
mod changes;
mod database;
mod durability;
mod objects;
mod postgres;
mod processes;
mod reads;
mod search;
mod summaries;
mod support;
mod trim;
mod why;

/// What `support` needs, by one name here and in the unit tests.
mod api {
    pub(crate) use convene_storage::{
        Batch, CommitFailed, GroupStore, PageParts, PostIndex, Snapshot, StoreError, StoreOptions,
    };
}
