//! Native storage: the directory databases and the groups' store.
//!
//! Owns every file of a data directory that holds records: `infra.db` and `workspace.db` through
//! [`SqliteDatabase`], and the journal files with `rooms.db`. Never decides anything about a group,
//! a person or a token: it keeps what it is given, in the order in which it is given, and says when
//! it is on disk.

mod directory;
mod sqlite;

pub use directory::sqlite::SqliteDatabase;
