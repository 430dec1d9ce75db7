//! The limit that posts are measured against: raw commits of identical rows and indexes.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};

use crate::cli::CliError;

/// A bare SQLite file with the rows of posts and an index on their message ids, in WAL with
/// `synchronous=FULL`.
pub(super) struct Raw {
    connection: Connection,
    seqs: Vec<i64>,
    rows: u64,
    group: usize,
}

impl Raw {
    /// A new file, for rows of so many groups in turn.
    pub(super) fn open(dir: &Path, groups: usize) -> Result<Self, CliError> {
        let folder = dir.join("raw");
        std::fs::create_dir_all(&folder)?;
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(folder.join(format!("raw.db{suffix}")));
        }
        let connection = Connection::open(folder.join("raw.db"))?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;
             PRAGMA cache_size = -65536;
             CREATE TABLE events (
                 grp BLOB NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL, chain BLOB NOT NULL,
                 PRIMARY KEY (grp, seq)
             ) WITHOUT ROWID;
             CREATE TABLE message_ids (
                 grp BLOB NOT NULL, message_id TEXT NOT NULL, seq INTEGER NOT NULL,
                 digest BLOB NOT NULL, PRIMARY KEY (grp, message_id)
             ) WITHOUT ROWID;",
        )?;
        Ok(Self { connection, seqs: vec![0; groups], rows: 0, group: 0 })
    }

    /// Commits `batch` rows of `row_bytes` in one transaction.
    pub(super) fn commit(&mut self, batch: usize, row_bytes: usize) -> Result<(), CliError> {
        let body = vec![b'x'; row_bytes];
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        for _ in 0..batch.max(1) {
            self.rows += 1;
            self.group = (self.group + 1) % self.seqs.len();
            let (rows, group) = (self.rows, self.group);
            self.seqs[group] += 1;
            let seq = self.seqs[group];
            let mut key = [0_u8; 16];
            key[..8].copy_from_slice(&(group as u64).to_be_bytes());
            self.connection
                .prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![&key[..], seq, &body[..], &[7_u8; 32][..]])?;
            self.connection
                .prepare_cached("INSERT INTO message_ids VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![&key[..], format!("{rows:032x}"), seq, &[9_u8; 16][..]])?;
        }
        self.connection.execute_batch("COMMIT")?;
        Ok(())
    }
}

/// Commits rows `batch` at a time over `groups` groups in turn and returns rows per second.
pub(super) fn commits_per_second(
    dir: &Path,
    batch: usize,
    groups: usize,
    row_bytes: usize,
    time: Duration,
) -> Result<f64, CliError> {
    let mut raw = Raw::open(dir, groups)?;
    let started = Instant::now();
    while started.elapsed() < time {
        raw.commit(batch, row_bytes)?;
    }
    Ok(raw.rows as f64 / started.elapsed().as_secs_f64())
}
