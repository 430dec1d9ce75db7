//! The databases of the App and the Orchestrator: backends of the port in `convene-db`.
//!
//! Their tables and SQL belong to those crates; nothing here knows them.

pub(crate) mod sqlite;
