//! Chunks: runs of a group's events as they are stored, checked whenever they are read.

use bytes::Bytes;
use convene_model::{
    GroupKey,
    record::{Chain, Record, read_chunk},
};
use rusqlite::{Connection, Row, params};

use crate::{
    checksum::{Checksum, RowHash},
    pending::is_shown,
};

/// The columns that [`Chunk::read`] wants.
pub(crate) const COLUMNS: &str =
    "id, first_seq, n, shown, chain_before, chain_after, checksum, body";

/// A run of a group's events.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) id: i64,
    checksum: Vec<u8>,
    pub(crate) first_seq: u64,
    pub(crate) records: Vec<Record>,
    pub(crate) chain_before: Chain,
    pub(crate) chain_after: Chain,
}

/// Why a chunk cannot be used.
pub(crate) enum ChunkError {
    /// Its contents contradict each other.
    Damaged(String),
    /// SQLite failed.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for ChunkError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Chunk {
    /// Reads a row with [`COLUMNS`], from among those that were read before if it is still the same.
    pub(crate) fn read_again(
        key: &GroupKey,
        row: &Row<'_>,
        before: &[Self],
    ) -> Result<Self, ChunkError> {
        let id: i64 = row.get(0)?;
        let checksum = row.get_ref(6)?;
        let same = before.iter().find(|chunk| {
            chunk.id == id && checksum.as_blob().is_ok_and(|checksum| checksum == chunk.checksum)
        });
        same.map_or_else(|| Self::read(key, row), |chunk| Ok(chunk.clone()))
    }

    /// Reads a row with [`COLUMNS`] and checks it.
    pub(crate) fn read(key: &GroupKey, row: &Row<'_>) -> Result<Self, ChunkError> {
        let first_seq = row.get::<_, i64>(1)? as u64;
        let n = row.get::<_, i64>(2)? as u64;
        let shown = row.get::<_, i64>(3)? as u64;
        let damaged = |problem: &dyn std::fmt::Display| {
            ChunkError::Damaged(format!("the chunk at event {first_seq}: {problem}"))
        };
        let fixed = |index: usize| row.get::<_, Chain>(index).map_err(|error| damaged(&error));
        let (chain_before, chain_after) = (fixed(4)?, fixed(5)?);
        let stored: Vec<u8> = row.get(6).map_err(|error| damaged(&error))?;
        let body = Bytes::from(row.get::<_, Vec<u8>>(7).map_err(|error| damaged(&error))?);
        if stored != checksum(key, first_seq, n, shown, &chain_before, &chain_after, &body) {
            return Err(damaged(&"the checksum is wrong"));
        }
        let records = read_chunk(&body, first_seq).map_err(|error| damaged(&error))?;
        if records.len() as u64 != n {
            return Err(damaged(&format!("{} events where {n} were expected", records.len())));
        }
        let id = row.get(0)?;
        Ok(Self { id, checksum: stored, first_seq, records, chain_before, chain_after })
    }

    /// The number of its last event.
    pub(crate) fn last_seq(&self) -> u64 {
        self.first_seq + self.records.len() as u64 - 1
    }

    /// The record of this number, if it is here.
    pub(crate) fn record(&self, seq: u64) -> Option<&Record> {
        self.records.get(usize::try_from(seq.checked_sub(self.first_seq)?).ok()?)
    }

    /// The same, to be erased.
    pub(crate) fn record_mut(&mut self, seq: u64) -> Option<&mut Record> {
        self.records.get_mut(usize::try_from(seq.checked_sub(self.first_seq)?).ok()?)
    }

    /// Writes the chunk back after records in it were erased.
    pub(crate) fn update(
        &self,
        connection: &Connection,
        key: &GroupKey,
    ) -> Result<(), rusqlite::Error> {
        let mut builder = ChunkBuilder::new(self.first_seq, self.chain_before);
        for record in &self.records {
            builder.add(record);
        }
        builder.chain = self.chain_after;
        let checksum = builder.checksum(key);
        connection
            .prepare_cached("UPDATE chunks SET checksum = ?1, body = ?2 WHERE id = ?3")?
            .execute(params![&checksum[..], &builder.body[..], self.id])?;
        Ok(())
    }
}

/// The chunk that holds an event, if there is one.
pub(crate) fn containing(
    connection: &Connection,
    key: &GroupKey,
    seq: u64,
) -> Result<Option<Chunk>, ChunkError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM chunks WHERE group_key = ?1 AND first_seq <= ?2
         ORDER BY first_seq DESC LIMIT 1"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![&key.0[..], seq as i64])?;
    rows.next()?.map(|row| Chunk::read(key, row)).transpose()
}

/// A chunk that is being filled.
pub(crate) struct ChunkBuilder {
    first_seq: u64,
    n: u64,
    shown: u64,
    chain_before: Chain,
    /// The chain after the last record; whoever adds records keeps it up to date.
    pub(crate) chain: Chain,
    body: Vec<u8>,
}

impl ChunkBuilder {
    /// Begins a chunk after the chain `before`.
    pub(crate) fn new(first_seq: u64, before: Chain) -> Self {
        let body = Vec::new();
        Self { first_seq, n: 0, shown: 0, chain_before: before, chain: before, body }
    }

    /// Appends a record.
    pub(crate) fn add(&mut self, record: &Record) {
        record.write_to(&mut self.body);
        self.n += 1;
        self.shown += u64::from(is_shown(record));
    }

    /// Its size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.body.len()
    }

    /// Stores it, unless it is empty, and begins the next one.
    pub(crate) fn insert(
        &mut self,
        connection: &Connection,
        key: &GroupKey,
    ) -> Result<(), rusqlite::Error> {
        if self.n > 0 {
            let checksum = self.checksum(key);
            connection
                .prepare_cached(
                    "INSERT INTO chunks (group_key, first_seq, n, shown, chain_before,
                        chain_after, checksum, body) VALUES (?1,?2,?3,?4,?5,?6,?7,?8)",
                )?
                .execute(params![
                    &key.0[..],
                    self.first_seq as i64,
                    self.n as i64,
                    self.shown as i64,
                    &self.chain_before[..],
                    &self.chain[..],
                    &checksum[..],
                    &self.body[..],
                ])?;
        }
        self.first_seq += self.n;
        self.n = 0;
        self.shown = 0;
        self.chain_before = self.chain;
        self.body.clear();
        Ok(())
    }

    fn checksum(&self, key: &GroupKey) -> Checksum {
        checksum(
            key,
            self.first_seq,
            self.n,
            self.shown,
            &self.chain_before,
            &self.chain,
            &self.body,
        )
    }
}

fn checksum(
    key: &GroupKey,
    first_seq: u64,
    n: u64,
    shown: u64,
    chain_before: &Chain,
    chain_after: &Chain,
    body: &[u8],
) -> Checksum {
    RowHash::new("chunks")
        .bytes(&key.0)
        .int(first_seq)
        .int(n)
        .int(shown)
        .chain(chain_before)
        .chain(chain_after)
        .bytes(body)
        .finish()
}
