//! One transaction of the projector.

use std::{cmp::Ordering, collections::HashSet};

use convene_model::{
    GroupKey,
    event::{Author, EventKind, RevisionPolicy},
    record::{Record, RecordError},
};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::{
    checksum::{Checksum, RowHash},
    control::Control,
    journal::recovery::Head,
    pending::{Change, Committed, Pending, is_message},
    rooms::{
        agent_events,
        chunks::{self, Chunk, ChunkBuilder, ChunkError},
        quarantine::Quarantine,
        reactions, schema, trim, wipe,
    },
    search::{
        index::{Changes, IndexedGroup, indexed_chunk},
        indexer::text_of,
    },
    store::{options::CHUNK_BYTES, types::Snapshot},
};

/// Carries committed batches over, with the position in the same transaction.
///
/// A group whose rows contradict what is there is put in quarantine and its rows are put aside;
/// the others are carried over all the same.
pub(crate) fn project(
    connection: &mut Connection,
    batch: &[Committed],
    quarantine: &Quarantine,
) -> Result<(), rusqlite::Error> {
    loop {
        match attempt(connection, batch, quarantine) {
            Ok(saved) => {
                quarantine.saved(saved);
                return Ok(());
            }
            // What the attempt wrote is rolled back; the next one passes over this group.
            Err(Failure::Contradiction { key, detail }) => {
                quarantine.add(key, detail);
            }
            Err(Failure::Sqlite(error)) => return Err(error),
        }
    }
}

enum Failure {
    Contradiction { key: GroupKey, detail: String },
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn attempt(
    connection: &mut Connection,
    batch: &[Committed],
    quarantine: &Quarantine,
) -> Result<HashSet<GroupKey>, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut order: Vec<&Committed> = batch.iter().collect();
    // A stable sort: the batches of a group stay in order, the groups follow the tables' keys.
    order.sort_by_key(|committed| committed.pending.key);
    let mut index = IndexUpdate {
        chunk: indexed_chunk(&transaction)?,
        changes: Changes::default(),
        wipes: wipe::any(&transaction)?,
    };
    for group in order.chunk_by(|a, b| a.pending.key == b.pending.key) {
        let key = group[0].pending.key;
        let purge = group.iter().rposition(|c| c.pending.control == Some(Control::Purge));
        let group = match purge {
            Some(at) => {
                // Whatever came before goes with the group.
                wipe::begin(&transaction, &key, &group[at].pending.group_id)?;
                index.wipes = true;
                quarantine.forget(&key);
                &group[at + 1..]
            }
            None => group,
        };
        if group.is_empty() {
            continue;
        }
        match quarantine.detail(&key) {
            None => {
                for part in group
                    .chunk_by(|a, b| a.pending.control.is_none() && b.pending.control.is_none())
                {
                    carry_over(&transaction, key, part, &mut index)?;
                }
            }
            Some(detail) => put_aside(&transaction, key, group, &detail)?,
        }
    }
    index.changes.write(&transaction)?;
    let mut saved = HashSet::new();
    for (key, detail) in quarantine.unsaved() {
        let marked = transaction
            .prepare_cached("UPDATE groups SET quarantined = ?2 WHERE group_key = ?1")?
            .execute(params![&key.0[..], detail])?;
        if marked > 0 {
            saved.insert(key);
        }
    }
    if let Some(last) = batch.last() {
        transaction.prepare_cached("UPDATE position SET pos = ?1")?.execute([last.pos as i64])?;
    }
    transaction.commit()?;
    Ok(saved)
}

/// What changes in the index along with the tables.
struct IndexUpdate {
    /// The chunk up to which messages are in the index.
    chunk: i64,
    changes: Changes,
    /// Whether any wipe is under way.
    wipes: bool,
}

fn carry_over(
    connection: &Connection,
    key: GroupKey,
    group: &[&Committed],
    index: &mut IndexUpdate,
) -> Result<(), Failure> {
    let contradiction = |detail: String| Failure::Contradiction { key, detail };
    let mut head = schema::head(connection, &key)?;
    if index.wipes {
        wipe::finish(connection, &key, &mut index.changes)?;
        index.chunk = indexed_chunk(connection)?;
    }
    if let Some(control) = group.first().and_then(|first| first.pending.control.as_ref()) {
        let pending = &group[0].pending;
        if pending.first_seq != head.seq + 1 || pending.chain != head.chain {
            return Err(contradiction(format!("a control follows event {}", head.seq)));
        }
        return match control {
            Control::Wipe | Control::Purge => {
                index.wipes = true;
                Ok(wipe::begin(connection, &key, &pending.group_id)?)
            }
            Control::Import(import) => {
                Ok(wipe::begin_import(connection, &key, &pending.group_id, import)?)
            }
        };
    }
    if group.iter().any(|committed| committed.pending.completes) {
        wipe::end_import(connection, &key)?;
    }
    let mut chunk = ChunkBuilder::new(head.seq + 1, head.chain);
    for pending in group.iter().map(|committed| &*committed.pending) {
        if let Some(fault) = &pending.fault {
            return Err(contradiction(fault.detail.clone()));
        }
        if pending.first_seq != head.seq + 1 {
            let (first, last) = (pending.first_seq, head.seq);
            return Err(contradiction(format!("event {first} follows event {last}")));
        }
        if pending.records.is_empty() && pending.chain != head.chain {
            return Err(contradiction("a batch without events changes the chain".into()));
        }
        fill(connection, &key, &mut chunk, pending)?;
        head = Head { seq: pending.last_seq(), chain: pending.chain };
    }
    chunk.insert(connection, &key)?;
    insert_ids(connection, key, group)?;
    for told in group.iter().flat_map(|committed| &committed.pending.told) {
        agent_events::insert(connection, &key, told)?;
    }
    for told in group.iter().flat_map(|committed| &committed.pending.told) {
        // A summary takes the place of the one before it.
        if told.subject == agent_events::SUMMARIES
            && let Some(former) = agent_events::last_summary(connection, &key, told.seq)?
        {
            erase(connection, key, former)?;
        }
    }
    let policy = apply_changes(connection, key, group, index)?;
    for change in group.iter().flat_map(|committed| &committed.pending.reactions) {
        reactions::apply(connection, &key, change)?;
    }
    if let Some((seq, upto)) = group.iter().rev().find_map(|committed| committed.pending.exported) {
        let trimmed = trim::trim(connection, &key, seq, upto, &mut index.changes);
        trimmed.map_err(|error| match error {
            ChunkError::Damaged(detail) => Failure::Contradiction { key, detail },
            ChunkError::Sqlite(error) => Failure::Sqlite(error),
        })?;
    }
    let last = &group[group.len() - 1].pending;
    let snapshot = group.iter().rev().find_map(|committed| committed.pending.snapshot.as_ref());
    if let Some(snapshot) = snapshot {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO snapshots (group_key, seq, checksum, body)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                &key.0[..],
                snapshot.seq as i64,
                &snapshot_checksum(&key, snapshot)[..],
                &snapshot.bytes[..],
            ])?;
    }
    save_group(connection, last, head, None)?;
    if let Some(policy) = policy {
        connection
            .prepare_cached("UPDATE groups SET discard = ?2 WHERE group_key = ?1")?
            .execute(params![&key.0[..], policy == RevisionPolicy::Discard])?;
    }
    Ok(())
}

/// Appends a batch's records, closing chunks as they fill up.
fn fill(
    connection: &Connection,
    key: &GroupKey,
    chunk: &mut ChunkBuilder,
    pending: &Pending,
) -> Result<(), rusqlite::Error> {
    // The chain is known after each batch; within one it is only computed where a chunk must end.
    let fits = chunk.len() as u64 + pending.bytes <= CHUNK_BYTES as u64;
    for record in &pending.records {
        if !fits {
            if chunk.len() + record.body.len() > CHUNK_BYTES {
                chunk.insert(connection, key)?;
            }
            chunk.chain = record.chain(&chunk.chain);
        }
        chunk.add(record);
    }
    chunk.chain = pending.chain;
    Ok(())
}

fn insert_ids(connection: &Connection, key: GroupKey, group: &[&Committed]) -> Result<(), Failure> {
    let mut posts: Vec<_> = group.iter().flat_map(|committed| &committed.pending.posts).collect();
    // In the order of the table, so that neighbours share a page.
    posts.sort_by(|a, b| match a.message_id.cmp(&b.message_id) {
        Ordering::Equal => a.seq.cmp(&b.seq),
        unequal => unequal,
    });
    let mut insert = connection.prepare_cached(
        "INSERT INTO message_ids (group_key, message_id, seq, digest) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO NOTHING",
    )?;
    for post in posts {
        let inserted = insert.execute(params![
            &key.0[..],
            post.message_id.as_str(),
            post.seq as i64,
            &post.digest[..],
        ])?;
        if inserted == 0 {
            let detail = format!("event {} posts {} again", post.seq, post.message_id);
            return Err(Failure::Contradiction { key, detail });
        }
    }
    Ok(())
}

/// Applies edits and deletions, each under the policy that was in force at its place. Returns the
/// policy that is in force afterwards, if it was set.
fn apply_changes(
    connection: &Connection,
    key: GroupKey,
    group: &[&Committed],
    index: &mut IndexUpdate,
) -> Result<Option<RevisionPolicy>, Failure> {
    let pending = || group.iter().map(|committed| &committed.pending);
    let mut policies = pending().flat_map(|pending| pending.policies.iter().copied()).peekable();
    let mut changes = pending().flat_map(|pending| pending.changes.iter().copied()).peekable();
    if policies.peek().is_none() && changes.peek().is_none() {
        return Ok(None);
    }
    let mut discard = schema::discards(connection, &key)?;
    let mut set = None;
    loop {
        let next_change = changes.peek().map_or(u64::MAX, |change| change.seq);
        if let Some((_, policy)) = policies.next_if(|(seq, _)| *seq < next_change) {
            let before = std::mem::replace(&mut discard, policy == RevisionPolicy::Discard);
            if discard && !before {
                erase_superseded(connection, key)?;
            }
            set = Some(policy);
        } else if let Some(change) = changes.next() {
            apply(connection, key, change, discard, index)?;
        } else {
            return Ok(set);
        }
    }
}

/// Notes that a message was changed. When it was taken back, its text goes out of the event that
/// posted it and out of each that edited it; where former texts are discarded, an edit erases the
/// text before it. The chain stays as it is.
fn apply(
    connection: &Connection,
    key: GroupKey,
    change: Change,
    discard: bool,
    index: &mut IndexUpdate,
) -> Result<(), Failure> {
    let texts = texts_of(connection, &key, change.message_seq)?;
    let superseded = match (change.deleted, discard) {
        (true, _) => &texts[..],
        (false, true) => &texts[texts.len() - 1..],
        (false, false) => &[],
    };
    let chunk = chunk_with(connection, key, change.message_seq)?;
    let message = chunk.as_ref().and_then(|chunk| chunk.record(change.message_seq));
    let Some(message) = message.filter(|message| is_message(message)) else {
        let (by, of) = (change.seq, change.message_seq);
        let detail = format!("event {by} changes event {of}, no message");
        return Err(Failure::Contradiction { key, detail });
    };
    if chunk.as_ref().is_some_and(|chunk| chunk.id <= index.chunk) {
        let former = match texts.last() {
            Some(edit) if *edit != change.message_seq => text_at(connection, key, *edit)?,
            _ => text_of(message),
        };
        // A text that is gone went out of the index with its message.
        if let Some(former) = former {
            let new = match change.deleted {
                true => None,
                false => text_at(connection, key, change.seq)?,
            };
            let author = author_of(message)
                .map_err(|error| Failure::Contradiction { key, detail: error.to_string() })?;
            if let Some(author) = author {
                let group = IndexedGroup::make(connection, &key)?;
                let (old, new) = (Some(former.as_str()), new.as_deref());
                index.changes.replace(&group, change.message_seq, &author, old, new);
            }
        }
    }
    for seq in superseded {
        erase(connection, key, *seq)?;
    }
    erase_summary_of(connection, key, change)?;
    if change.deleted {
        reactions::remove_all(connection, &key, change.message_seq)?;
    }
    connection
        .prepare_cached(
            "INSERT INTO message_changes (group_key, message_seq, seq, deleted)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            &key.0[..],
            change.message_seq as i64,
            change.seq as i64,
            change.deleted
        ])?;
    Ok(())
}

/// Takes the text out of the summary that a changed message was in.
fn erase_summary_of(connection: &Connection, key: GroupKey, change: Change) -> Result<(), Failure> {
    let Some(seq) = agent_events::last_summary(connection, &key, change.seq)? else {
        return Ok(());
    };
    let chunk = chunk_with(connection, key, seq)?;
    let Some(record) = chunk.as_ref().and_then(|chunk| chunk.record(seq)) else { return Ok(()) };
    let event = record.decode();
    let event = event.map_err(|error| Failure::Contradiction { key, detail: error.to_string() })?;
    if let EventKind::SummaryRecorded(summary) = event.kind
        && (summary.from_seq..=summary.to_seq).contains(&change.message_seq)
    {
        erase(connection, key, seq)?;
    }
    Ok(())
}

/// The events that gave a message its texts, in order; never empty.
fn texts_of(
    connection: &Connection,
    key: &GroupKey,
    message_seq: u64,
) -> Result<Vec<u64>, rusqlite::Error> {
    let mut texts = vec![message_seq];
    let mut edits = connection.prepare_cached(
        "SELECT seq FROM message_changes
         WHERE group_key = ?1 AND message_seq = ?2 AND NOT deleted ORDER BY seq",
    )?;
    let mut rows = edits.query(params![&key.0[..], message_seq as i64])?;
    while let Some(row) = rows.next()? {
        texts.push(row.get::<_, i64>(0)? as u64);
    }
    Ok(texts)
}

/// Erases each text of a group that an edit replaced.
fn erase_superseded(connection: &Connection, key: GroupKey) -> Result<(), Failure> {
    let edited: Vec<u64> = connection
        .prepare_cached(
            "SELECT DISTINCT message_seq FROM message_changes
             WHERE group_key = ?1 AND NOT deleted",
        )?
        .query_map(params![&key.0[..]], |row| Ok(row.get::<_, i64>(0)? as u64))?
        .collect::<Result<_, _>>()?;
    for message_seq in edited {
        let texts = texts_of(connection, &key, message_seq)?;
        for seq in &texts[..texts.len() - 1] {
            erase(connection, key, *seq)?;
        }
    }
    Ok(())
}

/// Takes the text out of an event.
fn erase(connection: &Connection, key: GroupKey, seq: u64) -> Result<(), Failure> {
    let Some(mut chunk) = chunk_with(connection, key, seq)? else { return Ok(()) };
    let Some(record) = chunk.record_mut(seq) else { return Ok(()) };
    if record.erased.is_none() {
        *record = record.erase();
        chunk.update(connection, &key)?;
    }
    Ok(())
}

/// The text that an event set, unless it was erased.
fn text_at(connection: &Connection, key: GroupKey, seq: u64) -> Result<Option<String>, Failure> {
    let chunk = chunk_with(connection, key, seq)?;
    Ok(chunk.as_ref().and_then(|chunk| chunk.record(seq)).and_then(text_of))
}

/// Who wrote a message.
fn author_of(message: &Record) -> Result<Option<Author>, RecordError> {
    let kind = message.decode()?.kind;
    Ok(if let EventKind::MessagePosted(posted) = kind { Some(posted.author) } else { None })
}

fn chunk_with(connection: &Connection, key: GroupKey, seq: u64) -> Result<Option<Chunk>, Failure> {
    chunks::containing(connection, &key, seq).map_err(|error| match error {
        ChunkError::Damaged(detail) => Failure::Contradiction { key, detail },
        ChunkError::Sqlite(error) => Failure::Sqlite(error),
    })
}

/// Keeps a group's rows as they are, for an operator to look at.
fn put_aside(
    connection: &Connection,
    key: GroupKey,
    group: &[&Committed],
    detail: &str,
) -> Result<(), rusqlite::Error> {
    for committed in group {
        let pending = &committed.pending;
        let raw = pending.fault.as_ref().and_then(|fault| fault.raw.as_deref());
        let body = raw.map_or_else(
            || {
                let mut body = Vec::new();
                pending.records.iter().for_each(|record| record.write_to(&mut body));
                body
            },
            <[u8]>::to_vec,
        );
        connection
            .prepare_cached(
                "INSERT INTO quarantined_rows (pos, group_key, group_id, first_seq, n, chain, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                committed.pos as i64,
                &key.0[..],
                pending.group_id.as_str(),
                pending.first_seq as i64,
                pending.records.len() as i64,
                &pending.chain[..],
                body,
            ])?;
    }
    let head = schema::head(connection, &key)?;
    save_group(connection, &group[group.len() - 1].pending, head, Some(detail))
}

fn save_group(
    connection: &Connection,
    last: &Pending,
    head: Head,
    quarantined: Option<&str>,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(
            "INSERT INTO groups (group_key, group_id, head, chain, wake_at, quarantined)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (group_key) DO UPDATE SET head = excluded.head, chain = excluded.chain,
                wake_at = excluded.wake_at, quarantined = excluded.quarantined",
        )?
        .execute(params![
            &last.key.0[..],
            last.group_id.as_str(),
            head.seq as i64,
            &head.chain[..],
            last.wake_at.map(|at| at.millis() as i64),
            quarantined,
        ])?;
    Ok(())
}

/// Reads a group's latest snapshot; the inner error says in which way it is damaged.
pub(crate) fn read_snapshot(
    connection: &Connection,
    key: &GroupKey,
) -> Result<Option<Snapshot>, ChunkError> {
    let found = connection
        .prepare_cached("SELECT seq, checksum, body FROM snapshots WHERE group_key = ?1")?
        .query_row(params![&key.0[..]], |row| {
            let stored: Vec<u8> = row.get(1)?;
            let body: Vec<u8> = row.get(2)?;
            Ok((Snapshot { seq: row.get::<_, i64>(0)? as u64, bytes: body.into() }, stored))
        })
        .optional()?;
    match found {
        None => Ok(None),
        Some((snapshot, stored)) if stored == snapshot_checksum(key, &snapshot) => {
            Ok(Some(snapshot))
        }
        Some((snapshot, _)) => Err(ChunkError::Damaged(format!(
            "the snapshot at event {}: the checksum is wrong",
            snapshot.seq
        ))),
    }
}

fn snapshot_checksum(key: &GroupKey, snapshot: &Snapshot) -> Checksum {
    RowHash::new("snapshots").bytes(&key.0).int(snapshot.seq).bytes(&snapshot.bytes).finish()
}
