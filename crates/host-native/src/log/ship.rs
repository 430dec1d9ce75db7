//! Ships what waits, in gzipped batches of lines, into the store of `[logs]`; removes what is older
//! than it is to be kept.
//!
//! The name of a batch has the time, the process and a number, so that no two processes ever write the
//! same. A store that is down is tried again for ever while the queue fills; at an orderly end the rest
//! is shipped within [`LAST_TIMEOUT`].

use std::{io::Write, sync::Arc, time::Duration};

use convene_model::Timestamp;
use convene_storage::objects::Store;
use flate2::{Compression, write::GzEncoder};
use futures_util::TryStreamExt;
use jiff::tz::TimeZone;
use object_store::{ObjectStoreExt, PutPayload, path::Path};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Queue;
use crate::clock;

/// The pause after a first failure; it doubles up to the longest.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long the last batches may take when the process stops.
const LAST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked for batches that are too old.
const CLEAN_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Where batches go, and when.
pub(crate) struct Target {
    pub(crate) store: Store,
    /// What all names begin with: empty, or with a slash at its end.
    pub(crate) prefix: &'static str,
    /// How old the first line of a batch becomes.
    pub(crate) every: Duration,
    /// How long batches are kept; for ever when not said.
    pub(crate) keep: Option<Duration>,
}

/// The task that ships.
pub(crate) struct Shipper {
    stopping: CancellationToken,
    task: JoinHandle<()>,
}

impl Shipper {
    /// Begins to ship.
    pub(crate) fn start(queue: Arc<Queue>, target: Target) -> Self {
        let stopping = CancellationToken::new();
        let process = Uuid::new_v4().simple().to_string();
        let batches = Batches { queue, target, process, number: 0 };
        let task = tokio::spawn(batches.ship(stopping.clone()));
        Self { stopping, task }
    }

    /// Ships the rest. What the store does not take in time is dropped.
    pub(crate) async fn stop(self) {
        self.stopping.cancel();
        // A panic there would lose lines and nothing else.
        let _ = self.task.await;
    }
}

struct Batches {
    queue: Arc<Queue>,
    target: Target,
    process: String,
    number: u64,
}

impl Batches {
    async fn ship(mut self, stopping: CancellationToken) {
        let mut clean_at = Instant::now();
        loop {
            if Instant::now() >= clean_at {
                clean_at = Instant::now() + CLEAN_EVERY;
                tokio::select! {
                    () = stopping.cancelled() => {}
                    () = self.clean(clock::now()) => {}
                }
            }
            tokio::select! {
                () = stopping.cancelled() => break,
                () = tokio::time::sleep_until(clean_at) => continue,
                () = self.queue.due(self.target.every) => {}
            }
            self.ship_next(&stopping).await;
        }
        let deadline = Instant::now() + LAST_TIMEOUT;
        while let Some((batch, lines)) = self.queue.take() {
            let left = deadline.saturating_duration_since(Instant::now());
            let arrived = timeout(left, self.put(&batch)).await.is_ok_and(|put| put.is_ok());
            self.queue.settle(lines, arrived);
        }
    }

    /// Ships one batch, however often it has to be tried; when the process stops, once more.
    async fn ship_next(&mut self, stopping: &CancellationToken) {
        let Some((batch, lines)) = self.queue.take() else { return };
        self.number += 1;
        let name = self.name(clock::now(), self.number);
        let (mut pause, mut failed) = (RETRY_FIRST, false);
        loop {
            let put = self.put_as(&name, &batch);
            let put = if stopping.is_cancelled() {
                timeout(LAST_TIMEOUT, put).await.unwrap_or(Err(Failed::TooLate))
            } else {
                tokio::select! {
                    put = put => put,
                    // Begun anew with its own time.
                    () = stopping.cancelled() => continue,
                }
            };
            match put {
                Ok(()) => {
                    if failed {
                        tracing::info!("logs are shipped again");
                    }
                    return self.queue.settle(lines, true);
                }
                Err(_) if stopping.is_cancelled() => return self.queue.settle(lines, false),
                Err(error) => {
                    if !failed {
                        tracing::warn!(%error, "logs cannot be shipped; it is tried again");
                    }
                    failed = true;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopping.cancelled() => {}
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn put(&mut self, batch: &str) -> Result<(), Failed> {
        self.number += 1;
        let name = self.name(clock::now(), self.number);
        self.put_as(&name, batch).await
    }

    async fn put_as(&self, name: &Path, batch: &str) -> Result<(), Failed> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(batch.as_bytes())?;
        let bytes = gzip.finish()?;
        self.target.store.put(name, PutPayload::from(bytes)).await?;
        Ok(())
    }

    /// `2026/11/30/141502123-<process>-000001.ndjson.gz`, in UTC.
    fn name(&self, now: Timestamp, number: u64) -> Path {
        let (prefix, process) = (self.target.prefix, &self.process);
        Path::from(format!("{prefix}{}-{process}-{number:06}.ndjson.gz", written(now, "%H%M%S%3f")))
    }

    /// Removes the batches of days that are over for longer than they are kept.
    async fn clean(&self, now: Timestamp) {
        let Some(keep) = self.target.keep else { return };
        let until = Timestamp::from_millis(
            now.millis().saturating_sub(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX)),
        );
        let until = format!("{}{}", self.target.prefix, written(until, ""));
        let prefix = self.target.prefix.trim_end_matches('/');
        let prefix = (!prefix.is_empty()).then(|| Path::from(prefix));
        let store = &self.target.store;
        let removed = store
            .list(prefix.as_ref())
            .try_filter(|found| {
                let path = found.location.as_ref();
                let is_ours = path.ends_with(".ndjson.gz");
                std::future::ready(is_ours && path < until.as_str())
            })
            .try_for_each(|found| async move { store.delete(&found.location).await });
        match removed.await {
            // Another process was faster.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => tracing::warn!(%error, "former logs stay until the next look"),
        }
    }
}

/// A time as names have it: the day, and behind it what is asked for.
fn written(at: Timestamp, rest: &str) -> String {
    let millis = i64::try_from(at.millis()).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
    at.to_zoned(TimeZone::UTC).strftime(&format!("%Y/%m/%d/{rest}")).to_string()
}

/// Why a batch did not arrive.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Store(#[from] object_store::Error),
    #[error(transparent)]
    Gzip(#[from] std::io::Error),
    #[error("there is no answer in time")]
    TooLate,
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use convene_testing::stores::{FaultyStore, StoreFault};
    use flate2::read::GzDecoder;
    use object_store::{ObjectStore, memory::InMemory};

    use super::*;

    fn target(store: Store) -> Target {
        Target { store, prefix: "logs/", every: Duration::from_secs(30), keep: None }
    }

    async fn names(store: &Store) -> Vec<Path> {
        let found: Vec<_> = store.list(None).try_collect().await.unwrap();
        let mut names: Vec<_> = found.into_iter().map(|found| found.location).collect();
        names.sort();
        names
    }

    async fn text(store: &Store) -> String {
        let mut text = String::new();
        for name in names(store).await {
            let bytes = store.get(&name).await.unwrap().bytes().await.unwrap();
            GzDecoder::new(bytes.as_ref()).read_to_string(&mut text).unwrap();
        }
        text
    }

    #[tokio::test(start_paused = true)]
    async fn lines_arrive_in_order_in_batches_that_no_other_process_could_have_named() {
        let store: Store = Arc::new(InMemory::new());
        let queues = [Arc::new(Queue::default()), Arc::new(Queue::default())];
        let shippers: Vec<_> = queues
            .iter()
            .map(|queue| Shipper::start(Arc::clone(queue), target(Arc::clone(&store))))
            .collect();
        for line in ["one", "two"] {
            queues.iter().for_each(|queue| queue.push(line.to_owned()));
            tokio::time::sleep(Duration::from_secs(31)).await;
        }
        queues[0].push("three".to_owned());
        for shipper in shippers {
            shipper.stop().await;
        }
        let names = names(&store).await;
        assert_eq!(names.len(), 5, "{names:?}");
        for name in &names {
            let parts: Vec<_> = name.as_ref().split('/').collect();
            assert_eq!((parts.len(), parts[0]), (5, "logs"), "{name}");
        }
        let text = text(&store).await;
        assert_eq!(text.matches("one\n").count() + text.matches("two\n").count(), 4, "{text}");
        assert_eq!(text.matches("three\n").count(), 1, "the rest comes at the end");
        assert_eq!(queues[0].figures().shipped, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_down_is_tried_again_and_nothing_is_lost_meanwhile() {
        let faulty = FaultyStore::new(Arc::new(InMemory::new()));
        faulty.set(StoreFault::Down);
        let store: Store = Arc::new(faulty.clone());
        let queue = Arc::new(Queue::default());
        let shipper = Shipper::start(Arc::clone(&queue), target(Arc::clone(&store)));
        queue.push("one".to_owned());
        tokio::time::sleep(Duration::from_secs(300)).await;
        queue.push("two".to_owned());
        assert_eq!(queue.figures().shipped, 0);
        faulty.set(StoreFault::None);
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(text(&store).await, "one\ntwo\n");
        assert_eq!((queue.figures().shipped, queue.figures().dropped), (2, 0));

        faulty.set(StoreFault::Down);
        queue.push("three".to_owned());
        shipper.stop().await;
        assert_eq!(queue.figures().dropped, 1, "the end does not wait for ever");
    }

    #[tokio::test]
    async fn batches_are_removed_after_their_time_and_nothing_else_is() {
        let store: Store = Arc::new(InMemory::new());
        let put = async |name: &str| {
            store.put(&Path::from(name), PutPayload::from_static(b"")).await.unwrap();
        };
        for name in [
            "logs/2027/01/13/000000000-a-000001.ndjson.gz",
            "logs/2027/01/14/235959999-a-000002.ndjson.gz",
            "logs/2027/01/15/000000000-a-000003.ndjson.gz",
            "logs/2027/01/13/somebody-elses.txt",
            "groups/g/archives/2026.ndjson.gz",
        ] {
            put(name).await;
        }
        let keep = Some(Duration::from_secs(24 * 60 * 60));
        let target = Target { keep, ..target(Arc::clone(&store)) };
        let (queue, process) = (Arc::default(), "p".to_owned());
        let batches = Batches { queue, target, process, number: 0 };
        // 2027-01-16 08:00 UTC.
        batches.clean(Timestamp::from_millis(1_800_086_400_000)).await;
        let left: Vec<_> = names(&store).await.iter().map(ToString::to_string).collect();
        assert_eq!(
            left,
            [
                "groups/g/archives/2026.ndjson.gz",
                "logs/2027/01/13/somebody-elses.txt",
                "logs/2027/01/15/000000000-a-000003.ndjson.gz",
            ]
        );
    }
}
