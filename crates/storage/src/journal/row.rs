//! One row of the journal: what one turn of the committer wrote for one group.

use std::sync::Arc;

use bytes::Bytes;
use convene_model::{GroupId, GroupKey, Timestamp, record::Chain};
use rusqlite::{Connection, Row, params};

use crate::{
    checksum::{Checksum, RowHash},
    pending::Pending,
    store::types::Snapshot,
};

/// The version of a file's rows, kept as its `user_version`.
pub(crate) const FORMAT: i64 = 1;

/// The version of a file that has a control among its rows, which format 1 does not know. The tables
/// are the same.
pub(crate) const FORMAT_WITH_CONTROLS: i64 = 2;

/// The tables of a journal file. `meta` has one row. A row of `journal` without events (`n` is 0)
/// whose body is not empty is a control.
pub(crate) const SCHEMA: &str = "
    PRAGMA user_version = 1;
    CREATE TABLE meta (
        journal_id BLOB NOT NULL,
        file INTEGER NOT NULL,
        first_pos INTEGER NOT NULL
    );
    CREATE TABLE journal (
        pos INTEGER PRIMARY KEY,
        group_key BLOB NOT NULL,
        group_id TEXT NOT NULL,
        first_seq INTEGER NOT NULL,
        n INTEGER NOT NULL,
        body BLOB NOT NULL,
        chain BLOB NOT NULL,
        wake_at INTEGER,
        snapshot_seq INTEGER,
        snapshot BLOB,
        checksum BLOB NOT NULL
    );";

const INSERT: &str = "INSERT INTO journal (pos, group_key, group_id, first_seq, n, body, chain,
    wake_at, snapshot_seq, snapshot, checksum) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)";

/// The columns that [`JournalRow::read`] wants.
pub(crate) const COLUMNS: &str = "pos, group_key, group_id, first_seq, n, body, chain, wake_at,
    snapshot_seq, snapshot, checksum";

/// Appends batches of one group that follow each other, as one row. `body` is a buffer to reuse.
pub(crate) fn append(
    connection: &Connection,
    pos: u64,
    batches: &[&Arc<Pending>],
    body: &mut Vec<u8>,
) -> Result<(), rusqlite::Error> {
    let (Some(first), Some(last)) = (batches.first(), batches.last()) else { return Ok(()) };
    body.clear();
    let mut n = 0;
    for batch in batches {
        n += batch.records.len() as u64;
        for record in &batch.records {
            record.write_to(body);
        }
    }
    if let Some(control) = &first.control {
        body.extend_from_slice(&control.encode());
    }
    let snapshot = batches.iter().rev().find_map(|batch| batch.snapshot.as_ref());
    let checksum = checksum(&Fields {
        pos,
        key: &first.key,
        group_id: first.group_id.as_str(),
        first_seq: first.first_seq,
        n,
        body,
        chain: &last.chain,
        wake_at: last.wake_at,
        snapshot,
    });
    connection.prepare_cached(INSERT)?.execute(params![
        pos as i64,
        &first.key.0[..],
        first.group_id.as_str(),
        first.first_seq as i64,
        n as i64,
        &body[..],
        &last.chain[..],
        last.wake_at.map(|at| at.millis() as i64),
        snapshot.map(|snapshot| snapshot.seq as i64),
        snapshot.map(|snapshot| &snapshot.bytes[..]),
        &checksum[..],
    ])?;
    Ok(())
}

/// A row as it was found.
#[derive(Debug)]
pub(crate) struct JournalRow {
    pub(crate) pos: u64,
    pub(crate) key: GroupKey,
    pub(crate) group_id: GroupId,
    pub(crate) first_seq: u64,
    pub(crate) n: u64,
    pub(crate) body: Bytes,
    pub(crate) chain: Chain,
    pub(crate) wake_at: Option<Timestamp>,
    pub(crate) snapshot: Option<Snapshot>,
    /// Whether the checksum agrees with the fields.
    pub(crate) intact: bool,
}

impl JournalRow {
    /// Reads a row; `Err` with one sentence when it cannot even be told whose it is.
    pub(crate) fn read(row: &Row<'_>) -> Result<Result<Self, String>, rusqlite::Error> {
        let pos: i64 = row.get(0)?;
        let parse = || -> Result<Self, String> {
            let text = |error: rusqlite::Error| error.to_string();
            let key = GroupKey(row.get::<_, [u8; 16]>(1).map_err(text)?);
            let group_id = GroupId::new(row.get::<_, String>(2).map_err(text)?)
                .map_err(|error| error.to_string())?;
            if group_id.key() != key {
                return Err("its key and its group's id do not belong together".into());
            }
            let snapshot_seq: Option<i64> = row.get(8).map_err(text)?;
            let snapshot_bytes: Option<Vec<u8>> = row.get(9).map_err(text)?;
            let snapshot = snapshot_seq
                .zip(snapshot_bytes)
                .map(|(seq, bytes)| Snapshot { seq: seq as u64, bytes: bytes.into() });
            let mut found = Self {
                pos: pos as u64,
                key,
                group_id,
                first_seq: row.get::<_, i64>(3).map_err(text)? as u64,
                n: row.get::<_, i64>(4).map_err(text)? as u64,
                body: row.get::<_, Vec<u8>>(5).map_err(text)?.into(),
                chain: row.get(6).unwrap_or_default(),
                wake_at: row
                    .get::<_, Option<i64>>(7)
                    .map_err(text)?
                    .map(|at| Timestamp::from_millis(at as u64)),
                snapshot,
                intact: false,
            };
            let stored: Vec<u8> = row.get(10).map_err(text)?;
            found.intact = stored == checksum(&found.fields());
            Ok(found)
        };
        Ok(parse().map_err(|problem| format!("journal row {pos}: {problem}")))
    }

    fn fields(&self) -> Fields<'_> {
        Fields {
            pos: self.pos,
            key: &self.key,
            group_id: self.group_id.as_str(),
            first_seq: self.first_seq,
            n: self.n,
            body: &self.body,
            chain: &self.chain,
            wake_at: self.wake_at,
            snapshot: self.snapshot.as_ref(),
        }
    }
}

struct Fields<'a> {
    pos: u64,
    key: &'a GroupKey,
    group_id: &'a str,
    first_seq: u64,
    n: u64,
    body: &'a [u8],
    chain: &'a Chain,
    wake_at: Option<Timestamp>,
    snapshot: Option<&'a Snapshot>,
}

fn checksum(fields: &Fields<'_>) -> Checksum {
    let mut hash = RowHash::new("journal");
    hash.int(fields.pos)
        .bytes(&fields.key.0)
        .bytes(fields.group_id.as_bytes())
        .int(fields.first_seq)
        .int(fields.n)
        .bytes(fields.body)
        .chain(fields.chain)
        .time(fields.wake_at);
    match fields.snapshot {
        None => hash.int(0),
        Some(snapshot) => hash.int(1).int(snapshot.seq).bytes(&snapshot.bytes),
    };
    hash.finish()
}
