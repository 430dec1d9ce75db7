//! A page of history out of a million messages, against a raw range read of the same rows.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use convene_model::{
    GroupId, MessageId, Timestamp, UserId,
    event::{Author, Event, EventKind, Posted},
    history::HistoryQuery,
    record::{CHAIN_START, Record},
};
use convene_storage::{Batch, GroupStore, PostIndex, StoreOptions};
use hdrhistogram::Histogram;
use rusqlite::{Connection, params};

use super::{Figure, TEXT_BYTES};
use crate::cli::CliError;

/// Messages of the group.
const MESSAGES: u64 = 1_000_000;
/// Messages of one batch.
const BATCH: u64 = 64;
/// Messages of a page.
const PAGE: usize = 50;

/// Measures the 99th percentile of reading a page at a random place.
pub(super) fn measure(dir: &Path, slice: Duration, slices: usize) -> Result<Figure, CliError> {
    let folder = dir.join("history");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let store = GroupStore::open(&folder, StoreOptions::default(), |why| {
        eprintln!("convene: {why}");
        std::process::exit(crate::serve::EXIT_OUTCOME_UNKNOWN);
    })?;
    let group_id = GroupId::new("bench")?;
    let raw = raw_table(&folder)?;
    fill(&store, &group_id, &raw)?;
    let began = Instant::now();
    store.settle();
    let settled = began.elapsed();
    store.settle_index();
    let indexed = began.elapsed();

    let mut place = 1;
    let (mut measured, mut latency) = (Vec::new(), Histogram::<u64>::new(3)?);
    for _ in 0..slices {
        let of_store = percentiles(slice, &mut place, |before| {
            let query =
                HistoryQuery { before: Some(before), limit: Some(PAGE), ..HistoryQuery::default() };
            Ok(store.history(group_id.key(), query, MESSAGES)?.messages.len())
        })?;
        let of_raw = percentiles(slice, &mut place, |before| raw_page(&raw, before))?;
        measured.push((p99(&of_store), p99(&of_raw)));
        latency.add(&of_store)?;
    }
    store.close();
    drop(store);
    let _ = std::fs::remove_dir_all(dir);
    let mut figure = Figure::from_slices("us", &measured);
    figure.extra.insert("p50_us", latency.value_at_quantile(0.5) as f64 / 1000.0);
    figure.extra.insert("settle_s", settled.as_secs_f64());
    figure.extra.insert("index_s", indexed.as_secs_f64());
    Ok(figure)
}

/// A million posts, into the store and into the raw table.
fn fill(store: &GroupStore, group_id: &GroupId, raw: &Connection) -> Result<(), CliError> {
    let author = Author::User(UserId::new("user")?);
    let text = "lorem ipsum ".repeat(TEXT_BYTES / 12);
    let mut chain = CHAIN_START;
    raw.execute_batch("BEGIN")?;
    for first_seq in (1..=MESSAGES).step_by(BATCH as usize) {
        let (mut records, mut posts) = (Vec::new(), Vec::new());
        for seq in first_seq..(first_seq + BATCH).min(MESSAGES + 1) {
            let message_id = MessageId::new(format!("{seq:032x}"))?;
            let posted = Posted {
                message_id: message_id.clone(),
                author: author.clone(),
                root: message_id.clone(),
                hop: 0,
                nth: seq,
                reply_to: None,
                run_id: None,
                mentions: Vec::new(),
                text: text.clone(),
            };
            posts.push(PostIndex { seq, message_id, digest: posted.digest() });
            let at = Timestamp::from_secs(1_700_000_000 + seq);
            let record = Record::encode(&Event { seq, at, kind: EventKind::MessagePosted(posted) });
            chain = record.chain(&chain);
            raw.prepare_cached("INSERT INTO messages VALUES (?1, ?2, ?3)")?.execute(params![
                &group_id.key().0[..],
                seq as i64,
                &record.body[..]
            ])?;
            records.push(record);
        }
        while let Err(no_room) = store.has_room() {
            std::thread::sleep(Duration::from_millis(no_room.retry_after_ms()));
        }
        let key = group_id.key();
        let batch = Batch {
            group_id: group_id.clone(),
            key,
            first_seq,
            records,
            posts,
            chain,
            wake_at: None,
            snapshot: None,
        };
        // Whatever fails ends the process.
        store.submit(batch, |_| ())?;
    }
    raw.execute_batch("COMMIT")?;
    store.flush();
    Ok(())
}

/// The limit: one row a message, clustered in the order in which they are read.
fn raw_table(folder: &Path) -> Result<Connection, CliError> {
    let raw = Connection::open(folder.join("raw.db"))?;
    raw.execute_batch(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE messages (
             grp BLOB NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (grp, seq)
         ) WITHOUT ROWID;",
    )?;
    Ok(raw)
}

fn raw_page(raw: &Connection, before: u64) -> Result<usize, CliError> {
    let key = GroupId::new("bench")?.key();
    let bodies: Vec<Vec<u8>> = raw
        .prepare_cached(
            "SELECT body FROM messages WHERE grp = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3",
        )?
        .query_map(params![&key.0[..], before as i64, PAGE as i64], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(bodies.len())
}

/// How long reads at random places take, in nanoseconds.
fn percentiles(
    time: Duration,
    place: &mut u64,
    mut read: impl FnMut(u64) -> Result<usize, CliError>,
) -> Result<Histogram<u64>, CliError> {
    let mut latency = Histogram::<u64>::new(3)?;
    let began = Instant::now();
    while began.elapsed() < time {
        *place =
            place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let before = PAGE as u64 + 1 + (*place >> 33) % (MESSAGES - PAGE as u64);
        let started = Instant::now();
        if read(before)? != PAGE {
            return Err("a page is not full".into());
        }
        latency.record(started.elapsed().as_nanos() as u64)?;
    }
    Ok(latency)
}

/// In microseconds.
fn p99(latency: &Histogram<u64>) -> f64 {
    latency.value_at_quantile(0.99) as f64 / 1000.0
}
