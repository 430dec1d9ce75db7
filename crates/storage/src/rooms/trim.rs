//! Texts that are with an organization's own history service leave the projection, but for those of the
//! last [`MAX_REPLAY_EVENTS`] events, which clients that return are sent.
//!
//! They are erased as texts are that were taken back: who wrote when stays, and so does the chain.

use convene_model::{GroupKey, event::EventKind, limits::MAX_REPLAY_EVENTS, record::Record};
use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    rooms::chunks::{self, ChunkError},
    search::index::{Changes, IndexedGroup, indexed_chunk},
};

/// The table of format 5: up to which event a group's texts have left.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE trimmed_groups (
        group_key BLOB PRIMARY KEY,
        upto INTEGER NOT NULL
    ) WITHOUT ROWID;";

/// Up to which event a group's texts are with a service; 0 for a group that keeps its own.
pub(crate) fn upto(connection: &Connection, key: &GroupKey) -> Result<u64, rusqlite::Error> {
    let found: Option<i64> = connection
        .prepare_cached("SELECT upto FROM trimmed_groups WHERE group_key = ?1")?
        .query_row([&key.0[..]], |row| row.get(0))
        .optional()?;
    Ok(found.map_or(0, |upto| upto as u64))
}

/// Lets the texts go that the service has acknowledged; the event `seq` says so, up to `acknowledged`.
pub(crate) fn trim(
    connection: &Connection,
    key: &GroupKey,
    seq: u64,
    acknowledged: u64,
    changes: &mut Changes,
) -> Result<(), ChunkError> {
    let from = upto(connection, key)?;
    let to = acknowledged.min(seq.saturating_sub(MAX_REPLAY_EVENTS));
    if to <= from {
        return Ok(());
    }
    let group = IndexedGroup::find(connection, key)?;
    let mut next = from + 1;
    while next <= to {
        let Some(mut chunk) = chunks::containing(connection, key, next)? else { break };
        let last = chunk.last_seq();
        let mut changed = false;
        for seq in next..=last.min(to) {
            let Some(record) = chunk.record_mut(seq).filter(|record| has_text(record)) else {
                continue;
            };
            if let Some(group) = &group {
                forget(connection, key, group, record, changes)?;
            }
            *record = record.erase();
            changed = true;
        }
        if changed {
            chunk.update(connection, key)?;
        }
        next = last + 1;
    }
    connection
        .prepare_cached("INSERT OR REPLACE INTO trimmed_groups (group_key, upto) VALUES (?1, ?2)")?
        .execute(params![&key.0[..], to as i64])?;
    Ok(())
}

/// Takes a text out of the search index, if it is the one that its message is found by.
fn forget(
    connection: &Connection,
    key: &GroupKey,
    group: &IndexedGroup,
    record: &Record,
    changes: &mut Changes,
) -> Result<(), ChunkError> {
    let kind = record.decode().map_err(|error| ChunkError::Damaged(error.to_string()))?.kind;
    let (message_seq, author, text) = if let EventKind::MessagePosted(posted) = kind {
        (record.seq, posted.author, posted.text)
    } else if let EventKind::MessageEdited(edited) = kind {
        (edited.message_seq, edited.author, edited.text)
    } else {
        return Ok(());
    };
    let last_edit: Option<i64> = connection
        .prepare_cached(
            "SELECT max(seq) FROM message_changes
             WHERE group_key = ?1 AND message_seq = ?2 AND NOT deleted",
        )?
        .query_row(params![&key.0[..], message_seq as i64], |row| row.get(0))?;
    let chunk: Option<i64> = connection
        .prepare_cached(
            "SELECT id FROM chunks WHERE group_key = ?1 AND first_seq <= ?2
             ORDER BY first_seq DESC LIMIT 1",
        )?
        .query_row(params![&key.0[..], message_seq as i64], |row| row.get(0))
        .optional()?;
    let is_current = last_edit.map_or(message_seq, |last| last as u64) == record.seq;
    if is_current
        && chunk.is_some_and(|chunk| indexed_chunk(connection).is_ok_and(|to| chunk <= to))
    {
        changes.replace(group, message_seq, &author, Some(text.as_str()), None);
    }
    Ok(())
}

/// Whether the record has what somebody wrote.
fn has_text(record: &Record) -> bool {
    record.erased.is_none()
        && matches!(
            crate::pending::kind(&record.body),
            b"message.posted" | b"message.edited" | b"summary.recorded"
        )
}
