//! Native storage: the directory databases and the groups' store.
//!
//! Owns every file of a data directory that holds records: `infra.db` and `workspace.db` through
//! [`SqliteDatabase`] (or [`PostgresDatabase`] instead, where an operator has one), the journal files
//! and `rooms.db` through [`GroupStore`]. Never decides
//! anything about a group, a person or a token: it keeps what it is given, in the order in which it
//! is given, and says when it is on disk.

pub mod backup;
pub mod check;
mod checksum;
mod control;
mod directory;
mod disk;
mod journal;
pub mod objects;
mod paced;
mod pending;
mod rooms;
mod search;
mod sqlite;
mod store;

pub use control::Import;
pub use directory::{
    postgres::{PostgresDatabase, PostgresOptions, PostgresUrl},
    sqlite::SqliteDatabase,
};
pub use search::query::QueryError;
pub use store::{
    GroupStore,
    error::{CommitFailed, NoRoom, Overloaded, StoreError},
    options::{self, StoreOptions},
    types::{
        Batch, Explained, ExportPart, FoundMessage, LoadedGroup, PageParts, PostIndex, Snapshot,
        StoreStats, StoredMessage, StoredReaction,
    },
};
