//! Groups at rest: what one costs in memory, awake and asleep, and how long it takes to wake.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use convene_hop::{GroupLink, Signer};
use convene_model::{GroupId, claims::service, keys::SigningKey};
use convene_storage::{GroupStore, StoreOptions};
use hdrhistogram::Histogram;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Figure, memory, posts};
use crate::{cli::CliError, clock, controllers::Controllers};

/// Groups that are there before the first measurement: what the first ones cost once is theirs.
const BEFORE: usize = 4_000;
/// Groups over which memory is measured.
const GROUPS: usize = 10_000;
/// Bytes of the store's page cache where memory is measured.
const SMALL_CACHE: u64 = 1024 * 1024;
/// What an awake group may cost, and a sleeping one, in bytes.
const AIMS: (f64, f64) = (8192.0, 512.0);
/// Groups that are woken.
const WOKEN: usize = 1_000;
/// Messages in each of them.
const MESSAGES: usize = 50;
/// As good as for ever.
const NEVER: Duration = Duration::from_secs(86_400);

struct World {
    controllers: Controllers,
    store: GroupStore,
    orchestrator: Signer,
}

impl World {
    fn open(dir: &Path, idle_after: Duration) -> Result<Self, CliError> {
        Self::open_with(dir, idle_after, StoreOptions::default())
    }

    /// With a page cache that is full before the first measurement: it is bounded, and no group's.
    fn open_for_memory(dir: &Path, idle_after: Duration) -> Result<Self, CliError> {
        let options = StoreOptions { page_cache_bytes: SMALL_CACHE, ..StoreOptions::default() };
        Self::open_with(dir, idle_after, options)
    }

    fn open_with(
        dir: &Path,
        idle_after: Duration,
        options: StoreOptions,
    ) -> Result<Self, CliError> {
        let folder = dir.join("groups-at-rest");
        let _ = std::fs::remove_dir_all(&folder);
        let store = GroupStore::open(&folder, options, |why| {
            eprintln!("convene: {why}");
            std::process::exit(crate::serve::EXIT_OUTCOME_UNKNOWN);
        })?;
        let key = SigningKey::from_seed(service::ORCHESTRATOR, &[1; 32]);
        let controllers = posts::controllers(&store, &key, idle_after)?;
        let orchestrator = Signer::new(key, clock::system());
        Ok(Self { controllers, store, orchestrator })
    }

    /// Brings groups to life; with an attached user each if `attached`.
    async fn populate(
        &self,
        groups: std::ops::Range<usize>,
        attached: bool,
        links: &mut Vec<GroupLink>,
    ) -> Result<(), CliError> {
        for index in groups {
            if attached {
                links.push(posts::attach(&self.controllers, &self.orchestrator, index).await?);
            } else {
                posts::init(&self.controllers, index).await?;
            }
        }
        Ok(())
    }

    async fn asleep(&self) {
        while self.controllers.awake() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Memory once nothing waits for the projector any more.
    async fn memory(&self) -> Result<u64, CliError> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.settle()).await?;
        // The allocator gives memory back a moment after it was freed.
        tokio::time::sleep(Duration::from_millis(500)).await;
        memory::anonymous(std::process::id())
    }

    /// The same once the links' ends have read what came: an app does, and who is present is told a
    /// moment after somebody came.
    async fn memory_at_rest(&self, links: &mut [GroupLink]) -> Result<u64, CliError> {
        self.memory().await?;
        for link in links {
            while link.rx.try_recv().is_ok() {}
        }
        self.memory().await
    }

    async fn close(self) -> Result<(), CliError> {
        self.controllers.shutdown().await;
        let store = self.store;
        Ok(tokio::task::spawn_blocking(move || store.close()).await?)
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    crate::serve::runtime()
}

/// Measures in a process of its own, whose allocator gives back at once what is freed: else what was
/// freed before would be reused, and the groups would seem to cost nothing.
pub(super) fn in_own_process(
    dir: &Path,
    name: &'static str,
    slice: f64,
    extras: &[&'static str],
) -> Result<Option<Figure>, CliError> {
    const ALLOCATOR: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "0");
    if std::env::var(ALLOCATOR.0).as_deref() == Ok(ALLOCATOR.1) {
        return Ok(None);
    }
    std::fs::create_dir_all(dir)?;
    let file = dir.join("figure.json");
    let status = std::process::Command::new(std::env::current_exe()?)
        .env(ALLOCATOR.0, ALLOCATOR.1)
        .args(["bench", "--only", name, "--slice", &slice.to_string(), "--dir"])
        .arg(dir)
        .arg("--json")
        .arg(&file)
        .stdout(std::process::Stdio::null())
        .status()?;
    if !status.success() {
        return Err(format!("{name} could not be measured: {status}").into());
    }
    let found: serde_json::Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let members = found[name].as_object().ok_or("the figure is missing")?;
    let number = |member: &str| members[member].as_f64().ok_or("the figure is incomplete");
    let mut figure = Figure::from_slices("bytes", &[(number("value")?, number("limit")?)]);
    for extra in extras {
        figure.extra.insert(extra, number(extra)?);
    }
    Ok(Some(figure))
}

fn bytes(before: u64, after: u64, aim: f64) -> Figure {
    let each = after.saturating_sub(before) as f64 / GROUPS as f64;
    let mut figure = Figure::from_slices("bytes", &[(each, aim)]);
    figure.extra.insert("groups", GROUPS as f64);
    figure
}

/// Bytes of an awake group that an app has open for one attached user, both ends of the link
/// included, and that has nothing to do.
pub(super) fn idle_bytes(dir: &Path) -> Result<Figure, CliError> {
    runtime()?.block_on(async {
        let world = World::open_for_memory(dir, NEVER)?;
        let mut links = Vec::with_capacity(BEFORE + GROUPS);
        world.populate(0..BEFORE, true, &mut links).await?;
        let before = world.memory_at_rest(&mut links).await?;
        world.populate(BEFORE..BEFORE + GROUPS, true, &mut links).await?;
        let figure = bytes(before, world.memory_at_rest(&mut links).await?, AIMS.0);
        drop(links);
        world.close().await?;
        Ok(figure)
    })
}

/// Bytes that a group leaves in memory when it sleeps.
pub(super) fn hibernated_bytes(dir: &Path) -> Result<Figure, CliError> {
    const AT_A_TIME: usize = 500;
    runtime()?.block_on(async {
        let world = World::open_for_memory(dir, Duration::from_millis(1))?;
        let mut none = Vec::new();
        let mut before = 0;
        for first in (0..BEFORE + GROUPS).step_by(AT_A_TIME) {
            if first == BEFORE {
                before = world.memory().await?;
            }
            world.populate(first..first + AT_A_TIME, false, &mut none).await?;
            world.asleep().await;
        }
        let figure = bytes(before, world.memory().await?, AIMS.1);
        world.close().await?;
        Ok(figure)
    })
}

/// How long a sleeping group takes to answer, in microseconds, beside reading the same rows of the
/// same file by hand: the median, and what one in a hundred exceeds.
pub(super) fn wake(dir: &Path) -> Result<[(&'static str, Figure); 2], CliError> {
    runtime()?.block_on(async {
        let world = World::open(dir, Duration::from_millis(50))?;
        let signer = &world.orchestrator;
        for index in 0..WOKEN {
            let mut link = posts::attach(&world.controllers, signer, index).await?;
            for count in 0..MESSAGES as u64 {
                posts::say(&mut link, index, count).await?;
            }
        }
        world.asleep().await;
        let store = world.store.clone();
        tokio::task::spawn_blocking(move || store.settle()).await?;

        let rooms = Connection::open(dir.join("groups-at-rest").join("rooms.db"))?;
        let (mut woken, mut read) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
        for index in 0..WOKEN {
            let group_id = GroupId::new(format!("group-{index}"))?;
            // In turn, and each first as often as second, so that neither always finds the pages
            // that the other one read.
            for by_hand in [index % 2 == 0, index % 2 == 1] {
                let began = Instant::now();
                if by_hand {
                    read_by_hand(&rooms, &group_id)?;
                    read.record(began.elapsed().as_nanos() as u64)?;
                } else {
                    world.controllers.head(&group_id).await.map_err(|problem| problem.title)?;
                    woken.record(began.elapsed().as_nanos() as u64)?;
                }
            }
        }
        world.close().await?;
        let figure = |quantile: f64| {
            let micros = |of: &Histogram<u64>| of.value_at_quantile(quantile) as f64 / 1000.0;
            let mut figure = Figure::from_slices("µs", &[(micros(&woken), micros(&read))]);
            figure.extra.insert("messages", MESSAGES as f64);
            figure
        };
        Ok([("wake_p50", figure(0.5)), ("wake_p99", figure(0.99))])
    })
}

fn read_by_hand(rooms: &Connection, group_id: &GroupId) -> Result<(), CliError> {
    let key = group_id.key();
    let transaction = rooms.unchecked_transaction()?;
    let mut bytes = 0;
    for sql in [
        "SELECT chain FROM groups WHERE group_key = ?1",
        "SELECT body FROM snapshots WHERE group_key = ?1",
        "SELECT body FROM chunks WHERE group_key = ?1 ORDER BY first_seq DESC LIMIT 1",
    ] {
        let mut statement = transaction.prepare_cached(sql)?;
        let body = statement.query_row(params![&key.0[..]], |row| row.get::<_, Vec<u8>>(0));
        bytes += body.optional()?.map_or(0, |body| body.len());
    }
    transaction.commit()?;
    if bytes == 0 { Err("there was nothing to read".into()) } else { Ok(()) }
}

/// How long a lone post takes from the link to its durable `ok`, in microseconds, beside the raw
/// commit of one row: the medians of slices that take turns.
pub(super) fn lone_post(dir: &Path, slice: Duration, slices: usize) -> Result<Figure, CliError> {
    runtime()?.block_on(async {
        let world = World::open(dir, NEVER)?;
        let mut link = posts::attach(&world.controllers, &world.orchestrator, 0).await?;
        let raw = Arc::new(parking_lot::Mutex::new(super::raw_rows::Raw::open(dir, 1)?));
        let (mut measured, mut count) = (Vec::new(), 0);
        for _ in 0..slices {
            let mut posted = Histogram::<u64>::new(3)?;
            let until = Instant::now() + slice;
            while Instant::now() < until {
                count += 1;
                let began = Instant::now();
                posts::say(&mut link, 0, count).await?;
                posted.record(began.elapsed().as_nanos() as u64)?;
            }
            let raw = Arc::clone(&raw);
            let committed = tokio::task::spawn_blocking(move || -> Result<_, CliError> {
                let mut committed = Histogram::<u64>::new(3)?;
                let until = Instant::now() + slice;
                while Instant::now() < until {
                    let began = Instant::now();
                    raw.lock().commit(1, posts::ROW_BYTES)?;
                    committed.record(began.elapsed().as_nanos() as u64)?;
                }
                Ok(committed)
            });
            let committed = committed.await??;
            let median = |of: &Histogram<u64>| of.value_at_quantile(0.5) as f64 / 1000.0;
            measured.push((median(&posted), median(&committed)));
        }
        world.close().await?;
        Ok(Figure::from_slices("µs", &measured))
    })
}
