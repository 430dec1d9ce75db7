//! The limit that posts are measured against: raw commits of identical rows and indexes.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};

use crate::cli::CliError;

/// Commits rows of `row_bytes` with an index on the message id, in WAL with `synchronous=FULL`,
/// `batch` rows at a time over `groups` groups in turn, and returns rows per second.
pub(super) fn commits_per_second(
    dir: &Path,
    batch: usize,
    groups: usize,
    row_bytes: usize,
    time: Duration,
) -> Result<f64, CliError> {
    let folder = dir.join("raw");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("raw.db");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(folder.join(format!("raw.db{suffix}")));
    }
    let connection = Connection::open(&path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;
         PRAGMA cache_size = -65536;
         CREATE TABLE events (
             grp BLOB NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL, chain BLOB NOT NULL,
             PRIMARY KEY (grp, seq)
         ) WITHOUT ROWID;
         CREATE TABLE message_ids (
             grp BLOB NOT NULL, message_id TEXT NOT NULL, seq INTEGER NOT NULL, digest BLOB NOT NULL,
             PRIMARY KEY (grp, message_id)
         ) WITHOUT ROWID;",
    )?;
    let body = vec![b'x'; row_bytes];
    let mut seqs = vec![0_i64; groups];
    let (mut rows, mut group) = (0_u64, 0);
    let started = Instant::now();
    while started.elapsed() < time {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for _ in 0..batch.max(1) {
            rows += 1;
            group = (group + 1) % groups;
            seqs[group] += 1;
            let mut key = [0_u8; 16];
            key[..8].copy_from_slice(&(group as u64).to_be_bytes());
            connection
                .prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![&key[..], seqs[group], &body[..], &[7_u8; 32][..]])?;
            connection
                .prepare_cached("INSERT INTO message_ids VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![&key[..], format!("{rows:032x}"), seqs[group], &[9_u8; 16][..]])?;
        }
        connection.execute_batch("COMMIT")?;
    }
    Ok(rows as f64 / started.elapsed().as_secs_f64())
}
