//! How everything of a group leaves `rooms.db`: a slice at a time, so that nothing else waits.
//!
//! A wipe that is under way stands in the table `wipes`, so it goes on after a crash. Chunks go
//! first, oldest first; what the search index has of their messages is marked as deleted, and the other
//! tables follow. Then the group is gone and may begin anew. Its words leave the index's file when that
//! is merged, which the projector does next (`search::index::purge_slice`); those of a small group are
//! taken out one by one instead. Deleted bytes are overwritten (`secure_delete`), and the WAL is cut off
//! afterwards.

use convene_model::{GroupId, GroupKey};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::{
    control::{Control, Import},
    rooms::{
        chunks::{self, Chunk, ChunkError},
        marks::{Mark, Marks},
    },
    search::{
        index::{Changes, IndexedGroup, indexed_chunk, is_purge_due},
        indexer,
    },
};

/// Chunks that go in one transaction at most.
const SLICE_CHUNKS: usize = 1024;
/// Bytes of chunks from which on the others wait for the next.
const SLICE_BYTES: u64 = 4 * 1024 * 1024;
/// Events of a group whose words are taken out of the index one by one, half a second's work, rather than
/// by merging all of it.
const MAX_EVENTS_IN_PLACE: i64 = 500;
/// Rows of another table that go in one transaction.
const SLICE_ROWS: usize = 4096;

/// The tables of format 3.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE wipes (
        group_key BLOB PRIMARY KEY,
        group_id TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE imports (
        group_key BLOB PRIMARY KEY,
        group_id TEXT NOT NULL,
        control BLOB NOT NULL
    ) WITHOUT ROWID;";

/// The other tables with rows of a group, each with the column beside its key that tells them apart.
const TABLES: [(&str, &str); 5] = [
    ("message_ids", "message_id"),
    ("message_changes", "(message_seq, seq)"),
    ("reactions", "(message_seq, emoji, author)"),
    ("agent_events", "(subject, seq)"),
    ("quarantined_rows", "id"),
];

/// What a slice has come to.
pub(crate) struct Slice {
    /// The group, when nothing of it is left.
    pub(crate) done: Option<GroupKey>,
    /// Bytes that went, about.
    pub(crate) bytes: u64,
}

/// What is under way in a file that was just opened.
pub(crate) fn load_marks(connection: &Connection, marks: &Marks) -> Result<(), rusqlite::Error> {
    let mut wipes = connection.prepare("SELECT group_key FROM wipes")?;
    let mut rows = wipes.query([])?;
    while let Some(row) = rows.next()? {
        marks.set(GroupKey(row.get(0)?), Some(Mark::Wiped));
    }
    let mut imports = connection.prepare("SELECT group_key, control FROM imports")?;
    let mut rows = imports.query([])?;
    while let Some(row) = rows.next()? {
        let body: Vec<u8> = row.get(1)?;
        let control = Control::decode(&body).map_err(|problem| {
            rusqlite::Error::FromSqlConversionFailure(
                1,
                rusqlite::types::Type::Blob,
                problem.into(),
            )
        })?;
        marks.learn(GroupKey(row.get(0)?), Some(&control), false);
    }
    Ok(())
}

/// Whether any wipe is under way.
pub(crate) fn any(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM wipes)")?
        .query_row([], |row| row.get(0))
}

/// Begins a wipe: the group is gone for everybody; its rows follow in slices.
pub(crate) fn begin(
    connection: &Connection,
    key: &GroupKey,
    group_id: &GroupId,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO wipes (group_key, group_id) VALUES (?1, ?2)")?
        .execute(params![&key.0[..], group_id.as_str()])?;
    for table in ["groups", "snapshots", "imports", "trimmed_groups"] {
        delete_all(connection, table, key)?;
    }
    Ok(())
}

/// Notes that a group's events come from a snapshot.
pub(crate) fn begin_import(
    connection: &Connection,
    key: &GroupKey,
    group_id: &GroupId,
    import: &Import,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO imports (group_key, group_id, control) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![
            &key.0[..],
            group_id.as_str(),
            Control::Import(import.clone()).encode()
        ])?;
    Ok(())
}

/// Notes that a group is whole.
pub(crate) fn end_import(connection: &Connection, key: &GroupKey) -> Result<(), rusqlite::Error> {
    delete_all(connection, "imports", key)
}

/// Carries a slice of a wipe out, in a transaction of its own; `None` when none is under way.
pub(crate) fn slice(connection: &mut Connection) -> Result<Option<Slice>, rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = transaction
        .prepare_cached("SELECT group_key FROM wipes LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let Some(key) = found.map(GroupKey) else { return Ok(None) };
    let mut changes = Changes::default();
    let in_place = goes_in_place(&transaction, &key)?;
    let step = step(&transaction, &key, &mut changes)?;
    match in_place {
        true => changes.write(&transaction)?,
        false => changes.mark_deleted(&transaction)?,
    }
    if step.is_last {
        end(&transaction, &key)?;
    }
    transaction.commit()?;
    Ok(Some(Slice { done: step.is_last.then_some(key), bytes: step.bytes }))
}

/// Carries the rest of a group's wipe out at once, where what came after it is there already.
pub(crate) fn finish(
    connection: &Connection,
    key: &GroupKey,
    changes: &mut Changes,
) -> Result<(), rusqlite::Error> {
    let under_way: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM wipes WHERE group_key = ?1)")?
        .query_row([&key.0[..]], |row| row.get(0))?;
    if !under_way {
        return Ok(());
    }
    // What is to be taken out of the index must be in it.
    std::mem::take(changes).write(connection)?;
    loop {
        let step = step(connection, key, changes)?;
        std::mem::take(changes).mark_deleted(connection)?;
        if step.is_last {
            return end(connection, key);
        }
    }
}

/// Whether the words of what is left of a group are better taken out one by one than by merging the
/// whole index, which is not to be merged anyway.
fn goes_in_place(connection: &Connection, key: &GroupKey) -> Result<bool, rusqlite::Error> {
    if is_purge_due(connection)? {
        return Ok(false);
    }
    let events: i64 = connection
        .prepare_cached("SELECT coalesce(sum(n), 0) FROM chunks WHERE group_key = ?1")?
        .query_row([&key.0[..]], |row| row.get(0))?;
    Ok(events <= MAX_EVENTS_IN_PLACE)
}

struct Step {
    is_last: bool,
    bytes: u64,
}

fn step(
    connection: &Connection,
    key: &GroupKey,
    changes: &mut Changes,
) -> Result<Step, rusqlite::Error> {
    let bytes = take_chunks(connection, key, changes)?;
    if bytes > 0 {
        return Ok(Step { is_last: false, bytes });
    }
    for (table, column) in TABLES {
        let gone = connection
            .prepare_cached(&format!(
                "DELETE FROM {table} WHERE group_key = ?1 AND {column} IN
                    (SELECT {} FROM {table} WHERE group_key = ?1 LIMIT ?2)",
                column.trim_matches(['(', ')'])
            ))?
            .execute(params![&key.0[..], SLICE_ROWS as i64])?;
        if gone > 0 {
            return Ok(Step { is_last: false, bytes: gone as u64 * 64 });
        }
    }
    Ok(Step { is_last: true, bytes: 0 })
}

/// Takes the oldest chunks out, with what the index has of them. Returns their bytes, about.
fn take_chunks(
    connection: &Connection,
    key: &GroupKey,
    changes: &mut Changes,
) -> Result<u64, rusqlite::Error> {
    let indexed = indexed_chunk(connection)?;
    let group = IndexedGroup::find(connection, key)?;
    let sql = format!(
        "SELECT {} FROM chunks WHERE group_key = ?1 ORDER BY first_seq LIMIT ?2",
        chunks::COLUMNS
    );
    let (mut ids, mut found, mut bytes) = (Vec::new(), Vec::new(), 0);
    {
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![&key.0[..], SLICE_CHUNKS as i64])?;
        while bytes < SLICE_BYTES
            && let Some(row) = rows.next()?
        {
            ids.push(row.get::<_, i64>(0)?);
            bytes += row.get_ref("body")?.as_blob().map_or(1, |body| body.len() as u64 + 1);
            match Chunk::read(key, row) {
                Ok(chunk) => found.push(chunk),
                Err(ChunkError::Sqlite(error)) => return Err(error),
                // What the index has of it cannot be told any more.
                Err(ChunkError::Damaged(detail)) => {
                    tracing::warn!(detail, "a damaged chunk of a wiped group goes unread");
                }
            }
        }
    }
    for chunk in &found {
        if let Some(group) = group.as_ref().filter(|_| chunk.id <= indexed) {
            indexer::each_text(connection, key, chunk, |seq, author, text| {
                changes.replace(group, seq, author, Some(text), None);
            })?;
        }
    }
    for id in &ids {
        connection.prepare_cached("DELETE FROM chunks WHERE id = ?1")?.execute([id])?;
    }
    // Numbers that are free again must not count as indexed.
    connection
        .prepare_cached(
            "UPDATE position SET indexed = min(indexed, coalesce((SELECT max(id) FROM chunks), 0))",
        )?
        .execute([])?;
    Ok(bytes)
}

fn end(connection: &Connection, key: &GroupKey) -> Result<(), rusqlite::Error> {
    for table in ["search_groups", "groups", "snapshots", "imports", "trimmed_groups", "wipes"] {
        delete_all(connection, table, key)?;
    }
    Ok(())
}

fn delete_all(connection: &Connection, table: &str, key: &GroupKey) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(&format!("DELETE FROM {table} WHERE group_key = ?1"))?
        .execute([&key.0[..]])?;
    Ok(())
}
