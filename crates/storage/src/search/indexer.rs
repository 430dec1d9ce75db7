//! Carries messages from the chunks into the index, a slice at a time, when the projector has
//! nothing better to do.

use std::collections::HashMap;

use convene_model::{
    GroupKey,
    event::{Author, EventKind},
    record::Record,
};
use rusqlite::{Connection, TransactionBehavior, params};

use crate::{
    pending::is_message,
    rooms::{
        chunks::{self, Chunk, ChunkError},
        quarantine::Quarantine,
    },
    search::index::{self, Changes, IndexedGroup},
};

/// Messages that one slice carries over, about.
pub(crate) const SLICE_MESSAGES: u64 = 8192;
/// Chunks of one slice at most.
const SLICE_CHUNKS: usize = 4096;

/// What a slice came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Slice {
    /// Events in the chunks that it went over.
    pub(crate) events: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// The last chunk that it went over.
    pub(crate) chunk: i64,
    /// Chunks that wait beyond it.
    pub(crate) left: u64,
}

/// How many chunks wait for the index.
pub(crate) fn waiting(connection: &Connection) -> Result<u64, rusqlite::Error> {
    let (indexed, last): (i64, Option<i64>) = connection
        .prepare_cached("SELECT indexed, (SELECT max(id) FROM chunks) FROM position")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(last.map_or(0, |last| (last - indexed).max(0) as u64))
}

/// Brings the next chunks' messages into the index, in a transaction of its own.
///
/// A chunk that is damaged puts its group in quarantine and is passed over.
pub(crate) fn index_slice(
    connection: &mut Connection,
    quarantine: &Quarantine,
) -> Result<Slice, rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut slice = Slice::default();
    let mut last = index::indexed_chunk(&transaction)?;
    let mut changes = Changes::default();
    let mut groups: HashMap<GroupKey, IndexedGroup> = HashMap::new();
    {
        let sql = format!(
            "SELECT {}, group_key FROM chunks WHERE id > ?1 ORDER BY id LIMIT ?2",
            chunks::COLUMNS
        );
        let mut statement = transaction.prepare_cached(&sql)?;
        let mut rows = statement.query(params![last, SLICE_CHUNKS as i64])?;
        while slice.events < SLICE_MESSAGES {
            let Some(row) = rows.next()? else { break };
            last = row.get(0)?;
            let key = GroupKey(row.get(8)?);
            let chunk = match Chunk::read(&key, row) {
                Ok(chunk) => chunk,
                Err(ChunkError::Sqlite(error)) => return Err(error),
                Err(ChunkError::Damaged(detail)) => {
                    quarantine.add(key, detail);
                    continue;
                }
            };
            slice.events += chunk.records.len() as u64;
            slice.bytes += chunk.records.iter().map(|record| record.body.len() as u64).sum::<u64>();
            if !chunk.records.iter().any(is_message) {
                continue;
            }
            let group = match groups.get(&key) {
                Some(group) => group,
                None => groups.entry(key).or_insert(IndexedGroup::make(&transaction, &key)?),
            };
            add(&transaction, &key, group, &chunk, &mut changes)?;
        }
    }
    changes.write(&transaction)?;
    transaction.prepare_cached("UPDATE position SET indexed = ?1")?.execute([last])?;
    slice.chunk = last;
    slice.left = waiting(&transaction)?;
    transaction.commit()?;
    Ok(slice)
}

/// Adds the messages of a chunk as they are now.
fn add(
    connection: &Connection,
    key: &GroupKey,
    group: &IndexedGroup,
    chunk: &Chunk,
    changes: &mut Changes,
) -> Result<(), rusqlite::Error> {
    each_text(connection, key, chunk, |seq, author, text| {
        changes.replace(group, seq, author, None, Some(text));
    })
}

/// Hands out the messages of a chunk that have a text now: what the index has of them, once it has
/// come so far.
pub(crate) fn each_text(
    connection: &Connection,
    key: &GroupKey,
    chunk: &Chunk,
    mut each: impl FnMut(u64, &Author, &str),
) -> Result<(), rusqlite::Error> {
    let edited = last_edits(connection, key, chunk.first_seq, chunk.last_seq())?;
    for record in chunk.records.iter().filter(|record| is_message(record)) {
        // What cannot be read back here cannot be read anywhere, so it is not found either.
        let Ok(EventKind::MessagePosted(posted)) = record.decode().map(|event| event.kind) else {
            continue;
        };
        let text = match edited.get(&record.seq) {
            None if record.erased.is_some() => continue,
            None => posted.text,
            Some(edit) => match read_text(connection, key, *edit)? {
                Some(text) => text,
                None => continue,
            },
        };
        each(record.seq, &posted.author, &text);
    }
    Ok(())
}

/// The last edit of each edited message of a range that was not deleted; a deleted one has lost its
/// texts.
fn last_edits(
    connection: &Connection,
    key: &GroupKey,
    first: u64,
    last: u64,
) -> Result<HashMap<u64, u64>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT message_seq, max(seq) FROM message_changes
             WHERE group_key = ?1 AND message_seq BETWEEN ?2 AND ?3 AND NOT deleted
             GROUP BY message_seq",
        )?
        .query_map(params![&key.0[..], first as i64, last as i64], |row| {
            Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
        })?
        .collect()
}

/// The text that an event set, unless it was erased.
fn read_text(
    connection: &Connection,
    key: &GroupKey,
    seq: u64,
) -> Result<Option<String>, rusqlite::Error> {
    match chunks::containing(connection, key, seq) {
        Ok(chunk) => Ok(chunk.as_ref().and_then(|chunk| chunk.record(seq)).and_then(text_of)),
        Err(ChunkError::Sqlite(error)) => Err(error),
        // It is found by whoever reads the message.
        Err(ChunkError::Damaged(_)) => Ok(None),
    }
}

/// The text that a record sets; `None` when it was erased or when it sets none.
pub(crate) fn text_of(record: &Record) -> Option<String> {
    if record.erased.is_some() {
        return None;
    }
    let kind = record.decode().ok()?.kind;
    if let EventKind::MessagePosted(posted) = kind {
        Some(posted.text)
    } else if let EventKind::MessageEdited(edited) = kind {
        Some(edited.text)
    } else {
        None
    }
}
