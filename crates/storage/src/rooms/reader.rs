//! Reads of a group: the overlay first, then `rooms.db` on a connection of its own.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use convene_model::{
    GroupId, GroupKey, MessageId, Timestamp,
    record::{Chain, Record},
};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    journal::recovery::Head,
    rooms::{
        chunks::{self, Chunk, ChunkError},
        marks::Marks,
        overlay::Overlay,
        quarantine::Quarantine,
        write::read_snapshot,
    },
    sqlite::open_reader,
    store::{error::StoreError, options::MAX_ROWS_PER_READ, types::LoadedGroup},
};

/// Connections that are kept open when nobody reads.
const IDLE_CONNECTIONS: usize = 8;
/// Chunks that one read transaction fetches: each is up to 64 KiB.
const CHUNKS_PER_READ: usize = 64;

/// What readers share.
pub(crate) struct Reader {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    pub(crate) overlay: Arc<Overlay>,
    pub(crate) quarantine: Arc<Quarantine>,
    pub(crate) marks: Arc<Marks>,
}

struct GroupRow {
    head: Head,
    wake_at: Option<Timestamp>,
}

impl Reader {
    pub(crate) fn new(
        path: PathBuf,
        overlay: Arc<Overlay>,
        quarantine: Arc<Quarantine>,
        marks: Arc<Marks>,
    ) -> Self {
        Self { path, idle: Mutex::default(), overlay, quarantine, marks }
    }

    /// See `GroupStore::load`.
    pub(crate) fn load(&self, key: &GroupKey) -> Result<Option<LoadedGroup>, StoreError> {
        self.quarantine.check(key)?;
        if self.marks.get(key).is_some() { Ok(None) } else { self.load_hidden(key) }
    }

    /// The same for a group that nobody sees.
    pub(crate) fn load_hidden(&self, key: &GroupKey) -> Result<Option<LoadedGroup>, StoreError> {
        self.quarantine.check(key)?;
        let waiting = self.overlay.batches(key);
        let stored = self.with_connection(|connection| read_group(connection, key))?;
        if waiting.is_empty() && stored.is_none() {
            return Ok(None);
        }
        let stored_head = stored.as_ref().map_or(Head::START, |row| row.head);
        let stored_snapshot = self.checked(key, read_snapshot)?;
        let snapshot =
            waiting.iter().rev().find_map(|batch| batch.snapshot.clone()).or(stored_snapshot);
        let known = snapshot.as_ref().map_or(0, |snapshot| snapshot.seq);

        let mut head = Head::START;
        let mut records = Vec::new();
        // The chunk that holds the snapshot's event comes along, so that the chain is checked from
        // there to the head also when nothing follows the snapshot. A snapshot that waits may be
        // ahead of every chunk.
        let from = known.min(stored_head.seq).max(1);
        self.each_chunk(key, from, u64::MAX, |chunk| {
            if head.seq > 0 && (chunk.first_seq != head.seq + 1 || chunk.chain_before != head.chain)
            {
                return Err(format!(
                    "the chunk at event {} does not continue event {}",
                    chunk.first_seq, head.seq
                ));
            }
            let last_seq = chunk.last_seq();
            let chain = fold(chunk.chain_before, &chunk.records);
            if chain != chunk.chain_after {
                return Err(format!("the chain breaks within the chunk at {}", chunk.first_seq));
            }
            head = Head { seq: last_seq, chain };
            records.extend(chunk.records.into_iter().filter(|record| record.seq > known));
            Ok(())
        })?;
        // The row may be older than the chunks, since the projector went on between two reads; but
        // never newer.
        if head.seq < stored_head.seq || (head.seq == stored_head.seq && head != stored_head) {
            let detail = format!(
                "its chunks end at event {}, its head is {}, or their chains differ",
                head.seq, stored_head.seq
            );
            return Err(self.quarantine.add(*key, detail));
        }
        let mut wake_at = stored.and_then(|row| row.wake_at);
        for batch in &waiting {
            wake_at = batch.wake_at;
            let (last_seq, is_empty) = (batch.last_seq(), batch.records.is_empty());
            if last_seq < head.seq || (last_seq == head.seq && !is_empty) {
                continue;
            }
            let chain = fold(head.chain, &batch.records);
            if batch.first_seq != head.seq + 1 || chain != batch.chain {
                let detail = match &batch.fault {
                    Some(fault) => fault.detail.clone(),
                    None => format!("the batch at event {} breaks the chain", batch.first_seq),
                };
                return Err(self.quarantine.add(*key, detail));
            }
            head = Head { seq: batch.last_seq(), chain };
            records.extend(batch.records.iter().filter(|record| record.seq > known).cloned());
        }
        if known > head.seq {
            let detail = format!("its snapshot knows event {known}, its head is {}", head.seq);
            return Err(self.quarantine.add(*key, detail));
        }
        let Head { seq: last_seq, chain } = head;
        Ok(Some(LoadedGroup { snapshot, records, last_seq, chain, wake_at }))
    }

    /// See `GroupStore::events`.
    pub(crate) fn events(
        &self,
        key: &GroupKey,
        from: u64,
        to: u64,
    ) -> Result<Vec<Record>, StoreError> {
        self.quarantine.check(key)?;
        if from == 0 {
            return Err(StoreError::Missing { from, to, missing: 0 });
        }
        let (first_waiting, waiting) = self.overlay.range(key, from, to);
        let mut records: Vec<Record> = Vec::new();
        if first_waiting.is_none_or(|first| from < first) {
            let stored_to = first_waiting.map_or(to, |first| to.min(first - 1));
            self.each_chunk(key, from, stored_to, |chunk| {
                let wanted = chunk.records.into_iter();
                records.extend(wanted.filter(|record| (from..=stored_to).contains(&record.seq)));
                Ok(())
            })?;
        }
        for batch in &waiting {
            let wanted = batch.records.iter().filter(|record| (from..=to).contains(&record.seq));
            records.extend(wanted.cloned());
        }
        for (seq, record) in
            (from..=to).zip(records.iter().map(Some).chain(std::iter::repeat(None)))
        {
            if record.is_none_or(|record| record.seq != seq) {
                return Err(StoreError::Missing { from, to, missing: seq });
            }
        }
        Ok(records)
    }

    /// The number of the event that posted a message.
    pub(crate) fn find(
        &self,
        key: &GroupKey,
        message_id: &MessageId,
    ) -> Result<Option<u64>, StoreError> {
        if let Some(found) = self.overlay.find(key, message_id) {
            return Ok(Some(found.seq));
        }
        self.with_connection(|connection| {
            connection
                .prepare_cached(
                    "SELECT seq FROM message_ids WHERE group_key = ?1 AND message_id = ?2",
                )?
                .query_row(params![&key.0[..], message_id.as_str()], |row| row.get::<_, i64>(0))
                .optional()
                .map(|seq| seq.map(|seq| seq as u64))
        })
    }

    /// See `GroupStore::groups`.
    pub(crate) fn groups(&self) -> Result<Vec<GroupId>, StoreError> {
        let mut groups: BTreeSet<GroupId> = self.overlay.alarms().into_keys().collect();
        let mut after = Vec::new();
        loop {
            let page = self.with_connection(|connection| read_groups(connection, &after))?;
            let Some((last, _)) = page.last() else { break };
            after = last.0.to_vec();
            for (_, group_id) in page {
                groups.insert(parse_group_id(&group_id)?);
            }
        }
        groups.retain(|id| self.marks.get(&id.key()).is_none());
        Ok(groups.into_iter().collect())
    }

    /// See `GroupStore::alarms`.
    pub(crate) fn alarms(&self) -> Result<Vec<(GroupId, Timestamp)>, StoreError> {
        let waiting = self.overlay.alarms();
        let mut alarms: HashMap<GroupId, Timestamp> = HashMap::new();
        let mut after = Vec::new();
        loop {
            let page = self.with_connection(|connection| read_alarms(connection, &after))?;
            let Some((last, _, _)) = page.last() else { break };
            after = last.0.to_vec();
            for (_, group_id, at) in page {
                alarms.insert(parse_group_id(&group_id)?, at);
            }
        }
        for (id, at) in waiting {
            match at {
                Some(at) => alarms.insert(id, at),
                None => alarms.remove(&id),
            };
        }
        alarms.retain(|id, _| {
            let key = id.key();
            self.quarantine.detail(&key).is_none() && self.marks.get(&key).is_none()
        });
        Ok(alarms.into_iter().collect())
    }

    /// Hands out the stored chunks that reach into `from` to `to`, in order. What `each` finds
    /// wrong puts the group in quarantine.
    fn each_chunk(
        &self,
        key: &GroupKey,
        from: u64,
        to: u64,
        mut each: impl FnMut(Chunk) -> Result<(), String>,
    ) -> Result<(), StoreError> {
        let mut next = from;
        loop {
            let chunks = self.checked(key, |connection, key| {
                read_chunks(connection, key, next, to, CHUNKS_PER_READ)
            })?;
            let complete = chunks.len() < CHUNKS_PER_READ;
            for chunk in chunks {
                next = chunk.last_seq() + 1;
                each(chunk).map_err(|detail| self.quarantine.add(*key, detail))?;
            }
            if complete || next > to {
                return Ok(());
            }
        }
    }

    /// Runs a read that checks what it finds; damage puts the group in quarantine.
    pub(crate) fn checked<T>(
        &self,
        key: &GroupKey,
        read: impl FnOnce(&Connection, &GroupKey) -> Result<T, ChunkError>,
    ) -> Result<T, StoreError> {
        match self.with_connection(|connection| Ok(read(connection, key)))? {
            Ok(found) => Ok(found),
            Err(ChunkError::Damaged(detail)) => Err(self.quarantine.add(*key, detail)),
            Err(ChunkError::Sqlite(error)) => Err(error.into()),
        }
    }

    /// Runs `read` in one read transaction.
    fn with_connection<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        let idle = self.idle.lock().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => open_reader(&self.path)?,
        };
        let transaction = connection.transaction()?;
        let found = read(&transaction)?;
        transaction.commit()?;
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(connection);
        }
        Ok(found)
    }
}

fn parse_group_id(group_id: &str) -> Result<GroupId, StoreError> {
    GroupId::new(group_id)
        .map_err(|error| StoreError::Failed(format!("table groups, column group_id: {error}")))
}

/// The chain after `records`.
fn fold(before: Chain, records: &[Record]) -> Chain {
    records.iter().fold(before, |chain, record| record.chain(&chain))
}

fn read_group(
    connection: &Connection,
    key: &GroupKey,
) -> Result<Option<GroupRow>, rusqlite::Error> {
    connection
        .prepare_cached("SELECT head, chain, wake_at FROM groups WHERE group_key = ?1")?
        .query_row(params![&key.0[..]], |row| {
            let head = Head { seq: row.get::<_, i64>(0)? as u64, chain: row.get(1)? };
            let wake_at = row.get::<_, Option<i64>>(2)?;
            Ok(GroupRow { head, wake_at: wake_at.map(|at| Timestamp::from_millis(at as u64)) })
        })
        .optional()
}

fn read_groups(
    connection: &Connection,
    after: &[u8],
) -> Result<Vec<(GroupKey, String)>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT group_key, group_id FROM groups WHERE group_key > ?1 ORDER BY group_key
             LIMIT ?2",
        )?
        .query_map(params![after, MAX_ROWS_PER_READ as i64], |row| {
            Ok((GroupKey(row.get(0)?), row.get(1)?))
        })?
        .collect()
}

fn read_alarms(
    connection: &Connection,
    after: &[u8],
) -> Result<Vec<(GroupKey, String, Timestamp)>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT group_key, group_id, wake_at FROM groups
             WHERE wake_at IS NOT NULL AND group_key > ?1 ORDER BY group_key LIMIT ?2",
        )?
        .query_map(params![after, MAX_ROWS_PER_READ as i64], |row| {
            let at = Timestamp::from_millis(row.get::<_, i64>(2)? as u64);
            Ok((GroupKey(row.get(0)?), row.get(1)?, at))
        })?
        .collect()
}

/// The chunks that reach into `from` to `to`, in order, at most `limit`.
fn read_chunks(
    connection: &Connection,
    key: &GroupKey,
    from: u64,
    to: u64,
    limit: usize,
) -> Result<Vec<Chunk>, ChunkError> {
    let sql = format!(
        "SELECT {} FROM chunks WHERE group_key = ?1 AND first_seq <= ?3 AND first_seq >= coalesce(
            (SELECT max(first_seq) FROM chunks WHERE group_key = ?1 AND first_seq <= ?2), 0)
         ORDER BY first_seq LIMIT ?4",
        chunks::COLUMNS
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let to = i64::try_from(to).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![&key.0[..], from as i64, to, limit as i64])?;
    let mut chunks = Vec::new();
    while let Some(row) = rows.next()? {
        let chunk = Chunk::read(key, row)?;
        if chunk.last_seq() >= from {
            chunks.push(chunk);
        }
    }
    Ok(chunks)
}
