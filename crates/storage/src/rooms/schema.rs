//! The tables of `rooms.db`.

use std::path::Path;

use convene_model::{GroupKey, record::Chain};
use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    journal::{files::JournalId, recovery::Head},
    rooms::{agent_events, quarantine::Quarantine, trim, wipe},
    search::index,
    sqlite::{Durability, open_writer},
    store::error::StoreError,
};

/// The version of the tables, kept as the file's `user_version`.
pub(crate) const FORMAT: i64 = 6;

/// `chunks` holds a group's events in runs, `shown` of which history lists. `message_changes`
/// points from a message to the events that changed it, so that its text is stored in one place.
/// `reactions` has the newest of each author and emoji: put there by `seq`, taken off by `removed`.
/// `quarantined_rows` keeps what could not be projected, as the journal had it.
const SCHEMA: &str = "
    CREATE TABLE position (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        journal_id BLOB NOT NULL,
        pos INTEGER NOT NULL,
        indexed INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE groups (
        group_key BLOB PRIMARY KEY,
        group_id TEXT NOT NULL,
        head INTEGER NOT NULL,
        chain BLOB NOT NULL,
        wake_at INTEGER,
        quarantined TEXT,
        discard INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE INDEX groups_by_wake_at ON groups (group_key) WHERE wake_at IS NOT NULL;
    CREATE TABLE chunks (
        id INTEGER PRIMARY KEY,
        group_key BLOB NOT NULL,
        first_seq INTEGER NOT NULL,
        n INTEGER NOT NULL,
        shown INTEGER NOT NULL,
        chain_before BLOB NOT NULL,
        chain_after BLOB NOT NULL,
        checksum BLOB NOT NULL,
        body BLOB NOT NULL
    );
    CREATE UNIQUE INDEX chunks_by_group ON chunks (group_key, first_seq);
    CREATE TABLE message_ids (
        group_key BLOB NOT NULL,
        message_id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        digest BLOB NOT NULL,
        PRIMARY KEY (group_key, message_id)
    ) WITHOUT ROWID;
    CREATE TABLE message_changes (
        group_key BLOB NOT NULL,
        message_seq INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        deleted INTEGER NOT NULL,
        PRIMARY KEY (group_key, message_seq, seq)
    ) WITHOUT ROWID;
    CREATE TABLE snapshots (
        group_key BLOB PRIMARY KEY,
        seq INTEGER NOT NULL,
        checksum BLOB NOT NULL,
        body BLOB NOT NULL
    );
    CREATE TABLE quarantined_rows (
        id INTEGER PRIMARY KEY,
        pos INTEGER NOT NULL,
        group_key BLOB NOT NULL,
        group_id TEXT NOT NULL,
        first_seq INTEGER NOT NULL,
        n INTEGER NOT NULL,
        chain BLOB NOT NULL,
        body BLOB NOT NULL
    );";

/// What format 2 has beyond format 1.
const SINCE_1: &str = "
    CREATE TABLE reactions (
        group_key BLOB NOT NULL,
        message_seq INTEGER NOT NULL,
        emoji TEXT NOT NULL,
        author TEXT NOT NULL,
        seq INTEGER NOT NULL,
        removed INTEGER,
        PRIMARY KEY (group_key, message_seq, emoji, author)
    ) WITHOUT ROWID;";

/// Columns that tables of format 1 do not have; in format 2 they are there from the beginning.
const COLUMNS_SINCE_1: &str = "
    ALTER TABLE groups ADD COLUMN discard INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE position ADD COLUMN indexed INTEGER NOT NULL DEFAULT 0;";

/// Settings that must precede the first write.
const SETTINGS: &str = "
    PRAGMA auto_vacuum = INCREMENTAL;
    PRAGMA secure_delete = ON;";

/// Opens the file for the projector, or makes it when there is none and `may_create`.
///
/// `journal_id` says which journal it must belong to.
pub(crate) fn open(
    path: &Path,
    journal_id: JournalId,
    may_create: bool,
) -> Result<Connection, StoreError> {
    if !may_create && !path.exists() {
        return Err(StoreError::Refused(format!(
            "{} is missing, and the journal no longer holds everything that was in it",
            path.display()
        )));
    }
    let mut connection = open_writer(path, Durability::Normal, SETTINGS)
        .map_err(|error| StoreError::Failed(format!("{}: {error}", path.display())))?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    let format: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match format {
        FORMAT => {}
        0..=5 => {
            let transaction = connection.transaction()?;
            if format == 0 {
                transaction.execute_batch(SCHEMA)?;
                transaction.execute(
                    "INSERT INTO position (id, journal_id, pos) VALUES (1, ?1, 0)",
                    [&journal_id[..]],
                )?;
            } else {
                tracing::info!("{} is brought from format {format} to {FORMAT}", path.display());
            }
            if format == 1 {
                transaction.execute_batch(COLUMNS_SINCE_1)?;
            }
            if format <= 1 {
                transaction.execute_batch(SINCE_1)?;
                transaction.execute_batch(index::SCHEMA)?;
            }
            if format <= 2 {
                transaction.execute_batch(wipe::SCHEMA)?;
            }
            if format <= 3 {
                transaction.execute_batch(agent_events::SCHEMA)?;
                agent_events::fill(&transaction)?;
            }
            if format <= 4 {
                transaction.execute_batch(trim::SCHEMA)?;
            }
            transaction.execute_batch(index::PURGE_SCHEMA)?;
            transaction.pragma_update(None, "user_version", FORMAT)?;
            transaction.commit()?;
        }
        _ => {
            return Err(StoreError::Refused(format!(
                "{} has format {format}, this version knows {FORMAT}",
                path.display()
            )));
        }
    }
    let found: JournalId =
        connection.query_row("SELECT journal_id FROM position", [], |row| row.get(0))?;
    if found != journal_id {
        return Err(StoreError::Refused(format!(
            "{} belongs to another journal than the one beside it",
            path.display()
        )));
    }
    Ok(connection)
}

/// Up to which row of the journal the file has come.
pub(crate) fn position(connection: &Connection) -> Result<u64, rusqlite::Error> {
    let pos: i64 = connection.query_row("SELECT pos FROM position", [], |row| row.get(0))?;
    Ok(pos as u64)
}

/// Where a group stands in the file.
pub(crate) fn head(connection: &Connection, key: &GroupKey) -> Result<Head, rusqlite::Error> {
    let found = connection
        .prepare_cached("SELECT head, chain FROM groups WHERE group_key = ?1")?
        .query_row(params![&key.0[..]], |row| {
            Ok(Head { seq: row.get::<_, i64>(0)? as u64, chain: row.get::<_, Chain>(1)? })
        })
        .optional()?;
    Ok(found.unwrap_or(Head::START))
}

/// Whether a group discards texts that an edit replaced.
pub(crate) fn discards(connection: &Connection, key: &GroupKey) -> Result<bool, rusqlite::Error> {
    let found = connection
        .prepare_cached("SELECT discard FROM groups WHERE group_key = ?1")?
        .query_row(params![&key.0[..]], |row| row.get(0))
        .optional()?;
    Ok(found.unwrap_or(false))
}

/// The groups that are in quarantine.
pub(crate) fn load_quarantine(
    connection: &Connection,
    quarantine: &Quarantine,
) -> Result<(), rusqlite::Error> {
    let mut statement = connection
        .prepare("SELECT group_key, quarantined FROM groups WHERE quarantined IS NOT NULL")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        quarantine.restore(GroupKey(row.get(0)?), row.get(1)?);
    }
    Ok(())
}
