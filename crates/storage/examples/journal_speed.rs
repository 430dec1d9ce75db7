//! How fast posts become durable, against raw SQLite commits of the same rows and indexes.
//!
//! `cargo run --release -p convene-storage --example journal_speed -- GROUPS IN_FLIGHT SECONDS`
//! posts through a store as a host does (one task per group, at most 64 posts in a batch, a post
//! is looked up before it is taken), then commits rows of the same size to two plain tables, with
//! `synchronous=FULL` and at the batch size that the store reached.

use std::{
    error::Error,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use convene_model::{
    GroupId, MessageId, Timestamp, UserId,
    event::{Author, Event, EventKind, Posted},
    record::{CHAIN_START, Record},
};
use convene_storage::{Batch, GroupStore, PostIndex, StoreOptions};
use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A post and who waits for its answer.
struct Post {
    message_id: MessageId,
    text: String,
    answer: oneshot::Sender<u64>,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: usize| -> Outcome<usize> {
        arguments.next().map_or(Ok(default), |text| Ok(text.parse()?))
    };
    let (groups, in_flight, seconds) = (next(1)?, next(64)?, next(5)?);
    let duration = Duration::from_secs(seconds as u64);
    let dir = tempfile::tempdir_in(".")?;
    let store = GroupStore::open(dir.path(), StoreOptions::default(), |reason| panic!("{reason}"))?;

    let mut actors = Vec::new();
    for index in 0..groups {
        let (posts, inbox) = mpsc::channel(1024);
        tokio::spawn(actor(store.clone(), GroupId::new(format!("group-{index}"))?, inbox));
        actors.push(posts);
    }
    let actors = Arc::new(actors);
    let text = "y".repeat(256);
    let answered = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let posters: Vec<_> = (0..in_flight)
        .map(|poster| {
            let (actors, text, answered) =
                (Arc::clone(&actors), text.clone(), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut round = 0;
                while start.elapsed() < duration {
                    round += 1;
                    let message_id = MessageId::new(format!("{poster:016x}{round:016x}"))?;
                    let (answer, answered_at) = oneshot::channel();
                    let sent = Instant::now();
                    let actor = &actors[(poster + round * in_flight) % actors.len()];
                    let post = Post { message_id, text: text.clone(), answer };
                    actor.send(post).await.map_err(|_| "the actor is gone")?;
                    answered_at.await?;
                    latencies.push(sent.elapsed());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Outcome::Ok(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for poster in posters {
        latencies.extend(poster.await??);
    }
    let rate = answered.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    latencies.sort();
    let stats = store.stats();
    let batch = (stats.events / stats.commits.max(1)).max(1) as usize;
    let projected = stats.projected_events as f64 / stats.events.max(1) as f64;
    let files = stats.journal_files;
    store.close();
    drop(store);
    let raw = raw(dir.path(), batch, groups, duration)?;
    println!(
        "groups={groups} in_flight={in_flight}: {rate:.0}/s p50 {:?} p99 {:?} max {:?} batch {batch} \
         projected {projected:.2} files {files} | raw {raw:.0}/s | ratio {:.2}",
        latencies[latencies.len() / 2],
        latencies[latencies.len() * 99 / 100],
        latencies[latencies.len() - 1],
        rate / raw
    );
    Ok(())
}

/// One group's single writer.
async fn actor(
    store: GroupStore,
    group_id: GroupId,
    mut inbox: mpsc::Receiver<Post>,
) -> Outcome<()> {
    let key = group_id.key();
    let author = Author::User(UserId::new("0190-user-id-aaaa-bbbb")?);
    let (mut seq, mut chain) = (0, CHAIN_START);
    let mut posts = Vec::new();
    let (release, mut to_release) = mpsc::channel::<(oneshot::Receiver<()>, Vec<_>)>(1024);
    tokio::spawn(async move {
        while let Some((committed, answers)) = to_release.recv().await {
            if committed.await.is_err() {
                return;
            }
            for (answer, seq) in answers {
                let answer: oneshot::Sender<u64> = answer;
                // The poster may have given up.
                let _ = answer.send(seq);
            }
        }
    });
    while inbox.recv_many(&mut posts, 64).await > 0 {
        let first_seq = seq + 1;
        let mut records = Vec::with_capacity(posts.len());
        let mut index = Vec::with_capacity(posts.len());
        let mut answers = Vec::with_capacity(posts.len());
        for Post { message_id, text, answer } in posts.drain(..) {
            if let Some(found) = store.find_message(key, &message_id)? {
                let _ = answer.send(found.seq);
                continue;
            }
            seq += 1;
            let posted = Posted {
                root: message_id.clone(),
                message_id: message_id.clone(),
                author: author.clone(),
                hop: 0,
                nth: 1,
                reply_to: None,
                run_id: None,
                mentions: Vec::new(),
                text,
            };
            index.push(PostIndex { seq, message_id, digest: posted.digest() });
            let at = Timestamp::from_millis(1_732_100_000_000 + seq);
            let record = Record::encode(&Event { seq, at, kind: EventKind::MessagePosted(posted) });
            chain = record.chain(&chain);
            records.push(record);
            answers.push((answer, seq));
        }
        let (done, committed) = oneshot::channel();
        let mut batch = Some(Batch {
            group_id: group_id.clone(),
            key,
            first_seq,
            records,
            posts: index,
            chain,
            wake_at: None,
            snapshot: None,
        });
        while let Err(no_room) = store.has_room() {
            tokio::time::sleep(Duration::from_millis(no_room.retry_after_ms())).await;
        }
        if let Some(batch) = batch.take() {
            store.submit(batch, move |result| {
                if result.is_ok() {
                    let _ = done.send(());
                }
            })?;
        }
        release.send((committed, answers)).await?;
    }
    Ok(())
}

/// Commits rows of the same size to plain tables, `batch` of them in each transaction.
fn raw(dir: &Path, batch: usize, groups: usize, duration: Duration) -> Outcome<f64> {
    let connection = Connection::open(dir.join("raw.db"))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;
         PRAGMA cache_size = -65536;
         CREATE TABLE events (grp BLOB NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL,
            body BLOB NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (grp, seq)) WITHOUT ROWID;
         CREATE TABLE message_ids (grp BLOB NOT NULL, message_id TEXT NOT NULL,
            seq INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (grp, message_id)) WITHOUT ROWID;",
    )?;
    let body = vec![b'x'; 504];
    let mut seqs = vec![0_i64; groups];
    let (mut rows, mut group) = (0_u64, 0);
    let start = Instant::now();
    while start.elapsed() < duration {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for _ in 0..batch {
            rows += 1;
            group = (group + 1) % groups;
            seqs[group] += 1;
            let mut key = [0; 16];
            key[..8].copy_from_slice(&(group as u64).to_be_bytes());
            connection
                .prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![&key[..], seqs[group], rows as i64, body, &[7_u8; 32][..]])?;
            connection
                .prepare_cached("INSERT INTO message_ids VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![&key[..], format!("{rows:032x}"), seqs[group], &[7_u8; 16][..]])?;
        }
        connection.execute_batch("COMMIT")?;
    }
    Ok(rows as f64 / start.elapsed().as_secs_f64())
}
