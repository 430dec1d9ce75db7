//! A group on its way into its archive and back, through the Orchestrator's API and the controllers:
//! how fast, with how much memory, and what those notice who talk in other groups.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use convene_archive::{lines, read_manifest};
use convene_hop::GroupLink;
use convene_model::{GroupId, OrgId};
use convene_storage::{
    GroupStore,
    objects::{Leftovers, open_folder},
    options::MAX_LAG_EVENTS,
};
use futures_util::TryStreamExt;
use hdrhistogram::Histogram;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{
    Figure,
    infra::{self, Infra},
    memory::anonymous,
    posts,
    snapshots::{self, MEGABYTE},
};
use crate::{cli::CliError, commands};

/// Messages of the group for each second of a slice.
const MESSAGES_PER_SECOND: f64 = 50_000.0;
/// Messages of the group beside which others talk, for each second of a slice: its archive lasts for three
/// slices or so, and the 99th percentile is not that of a handful of posts.
const BESIDE_PER_SECOND: f64 = 150_000.0;
/// Messages of the group over which memory is measured, for each second of a slice: a million with
/// what a slice has by itself.
const MANY_PER_SECOND: f64 = 500_000.0;
/// The small group beside it has such a part of them: enough for what is bounded to be full.
const SMALL: u64 = 4;
/// Posts of a filling that may wait for the projector, which has the lowest priority and else falls behind
/// on a busy machine until posts are refused.
const FILLING_LAG: u64 = MAX_LAG_EVENTS / 2;
/// After how many posts that is looked at, and how long the filling then waits.
const FILLING_LOOK: (u64, Duration) = (1_000, Duration::from_millis(20));
/// Posts under way while a group is filled.
const FILLING: usize = 256;
/// Groups in which others talk meanwhile.
const NEIGHBOURS: usize = 100;
/// Clients that talk in them, each with groups of its own.
const TALKERS: usize = 10;
/// The pause between two posts of a client: 1,000 posts a second in all.
const TALK_EVERY: Duration = Duration::from_millis(10);
/// Room for what a client measures, so that no measuring takes new memory.
const POSTS_OF_A_CLIENT: usize = 4096;
/// How often the process's memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const ORG: &str = "org";

struct World {
    infra: Infra,
    runtime: tokio::runtime::Runtime,
    data_dir: std::path::PathBuf,
}

/// How long the wipe of a group may take.
const WIPE_PATIENCE: Duration = Duration::from_secs(3600);

/// What an archive came to.
struct Archived {
    seconds: f64,
    plain_bytes: f64,
    manifest: String,
}

impl World {
    fn open(dir: &Path) -> Result<Self, CliError> {
        let runtime = crate::serve::runtime()?;
        let data_dir = dir.join("archives");
        let infra = runtime.block_on(Infra::open(&data_dir, None))?;
        Ok(Self { infra, runtime, data_dir })
    }

    /// A group with so many messages, all of them in their place.
    async fn filled(&self, group: &str, messages: u64) -> Result<(), CliError> {
        let link = self.enter(group).await?;
        fill(&self.infra.store, link, messages).await?;
        self.settle().await
    }

    /// Activates a group and attaches somebody to it.
    async fn enter(&self, group: &str) -> Result<GroupLink, CliError> {
        let body = format!(r#"{{"group_id":"{group}","org_id":"{ORG}"}}"#);
        let record: serde_json::Value = self.infra.app.call("POST", "/infra/groups", body).await?;
        let epoch = record["epoch"].as_u64().ok_or("an activation without an epoch")?;
        let (group_id, org_id) = (GroupId::new(group)?, OrgId::new(ORG)?);
        let (controllers, signer) = (&self.infra.controllers, &self.infra.orchestrator);
        posts::enter(controllers, signer, group_id, org_id, epoch).await
    }

    async fn settle(&self) -> Result<(), CliError> {
        let store = self.infra.store.clone();
        let settled = move || {
            store.settle();
            store.settle_index();
        };
        Ok(tokio::task::spawn_blocking(settled).await?)
    }

    /// Waits until nothing is left of a group that was archived: whoever restores it at once does, too.
    async fn wiped(&self, group: &str) -> Result<(), CliError> {
        let (store, key) = (self.infra.store.clone(), GroupId::new(group)?.key());
        let wiped = move || store.wait_until_wiped(key, WIPE_PATIENCE);
        let wiped = tokio::task::spawn_blocking(wiped).await?;
        if wiped { Ok(()) } else { Err("the group is not wiped after an hour".into()) }
    }

    async fn archive(&self, group: &str) -> Result<Archived, CliError> {
        self.archive_looking(group, infra::LOOK_EVERY).await
    }

    /// The task is looked at so often.
    async fn archive_looking(
        &self,
        group: &str,
        look_every: Duration,
    ) -> Result<Archived, CliError> {
        let began = Instant::now();
        let path = format!("/infra/groups/{group}/archive");
        let body = r#"{"reason":"measured"}"#.to_owned();
        let archived = self.infra.app.done_with("POST", &path, body, look_every).await?;
        let seconds = began.elapsed().as_secs_f64();
        let plain_bytes = archived["plain_bytes"].as_f64().ok_or("an archive without a size")?;
        let content = archived["path"].as_str().ok_or("an archive without a path")?;
        let manifest = content.replace(".ndjson.gz", ".manifest.json");
        Ok(Archived { seconds, plain_bytes, manifest })
    }

    /// In how many seconds.
    async fn restore(&self, group: &str) -> Result<f64, CliError> {
        let began = Instant::now();
        let path = format!("/infra/groups/{group}/restore");
        self.infra.app.done("POST", &path, String::new()).await?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// All lines of a snapshot.
    async fn lines(&self, manifest: &str) -> Result<Vec<Bytes>, CliError> {
        let store = open_folder(&self.data_dir.join("archives"), Leftovers::Keep)?;
        let manifest = read_manifest(store.as_ref(), manifest, None).await?;
        Ok(lines(store, &manifest).try_collect().await?)
    }

    fn close(self) -> Result<(), CliError> {
        self.runtime.block_on(self.infra.close())?;
        let _ = std::fs::remove_dir_all(&self.data_dir);
        Ok(())
    }
}

/// `archive_rate` and `restore_rate`, in uncompressed bytes, each from the call to its answer: a group
/// is frozen, exported, compressed, stored, read back and checked; it is checked again, imported and
/// brought to life.
pub(super) fn rates(
    dir: &Path,
    slice: Duration,
    slices: usize,
) -> Result<[(&'static str, Figure); 2], CliError> {
    let world = World::open(dir)?;
    let messages = (slice.as_secs_f64() * MESSAGES_PER_SECOND) as u64;
    world.runtime.block_on(world.filled("bench", messages))?;
    let (mut archiving, mut restoring, mut plain_bytes) = (Vec::new(), Vec::new(), 0.0);
    let mut wiped_in = 0.0;
    let raw = world.data_dir.join("raw.gz");
    for _ in 0..slices {
        let archived = world.runtime.block_on(world.archive("bench"))?;
        let began = Instant::now();
        world.runtime.block_on(world.wiped("bench"))?;
        wiped_in = began.elapsed().as_secs_f64();
        let bodies = world.runtime.block_on(world.lines(&archived.manifest))?;
        plain_bytes = archived.plain_bytes;
        let rate = |seconds: f64| archived.plain_bytes / MEGABYTE / seconds;

        let began = Instant::now();
        snapshots::write_raw(&raw, &bodies)?;
        let written = began.elapsed().as_secs_f64();
        let began = Instant::now();
        snapshots::read_raw(&raw)?;
        let read = began.elapsed().as_secs_f64();
        drop(bodies);
        archiving.push((rate(archived.seconds), rate(written + read)));

        let restored = world.runtime.block_on(world.restore("bench"))?;
        restoring.push((rate(restored), rate(read)));
        world.runtime.block_on(world.settle())?;
    }
    world.close()?;
    let mut archive = Figure::from_slices("MB/s", &archiving);
    archive.extra.insert("plain_mb", plain_bytes / MEGABYTE);
    archive.extra.insert("messages", messages as f64);
    archive.extra.insert("wiped_messages_per_s", messages as f64 / wiped_in);
    let mut restore = Figure::from_slices("MB/s", &restoring);
    restore
        .extra
        .insert("messages_per_s", restore.value * MEGABYTE / plain_bytes * messages as f64);
    Ok([("archive_rate", archive), ("restore_rate", restore)])
}

/// `archive_neighbours_p99`: how long a post takes in other groups while one is archived, against the
/// same without; in microseconds, the 99th percentile of a steady 1,000 posts a second. Each client keeps to
/// its own hundredths of a second, in both halves of a slice: clients that were held up together would
/// else post together from then on, and wait for one another. The archive's task is looked at as often as the
/// command line does.
pub(super) fn neighbours(dir: &Path, slice: Duration, slices: usize) -> Result<Figure, CliError> {
    let world = World::open(dir)?;
    let messages = (slice.as_secs_f64() * BESIDE_PER_SECOND) as u64;
    let figure = world.runtime.block_on(async {
        world.filled("bench", messages).await?;
        let mut shares: Vec<Vec<(usize, GroupLink)>> = Vec::new();
        shares.resize_with(TALKERS, Vec::new);
        for index in 0..NEIGHBOURS {
            shares[index % TALKERS].push((index, world.enter(&format!("n{index}")).await?));
        }
        let (mut measured, mut medians, mut round) = (Vec::new(), Vec::new(), 0);
        let mut lasted = 0.0;
        for _ in 0..slices {
            let mut talk = |shares, until| {
                round += 1;
                talk(shares, until, round)
            };
            let ends = Arc::new(AtomicBool::new(false));
            let talking = talk(shares, Arc::clone(&ends));
            let archived = world.archive_looking("bench", commands::infra::LOOK_EVERY);
            let archived = async {
                let archived = archived.await;
                ends.store(true, Ordering::Relaxed);
                archived
            };
            let (talked, archived) = tokio::join!(talking, archived);
            let (busy, archived) = (talked?, archived?);
            world.restore("bench").await?;
            world.settle().await?;

            let ends = Arc::new(AtomicBool::new(false));
            let talking = talk(busy.shares, Arc::clone(&ends));
            let over = async {
                tokio::time::sleep(Duration::from_secs_f64(archived.seconds)).await;
                ends.store(true, Ordering::Relaxed);
            };
            let (talked, ()) = tokio::join!(talking, over);
            let quiet = talked?;
            let at = |of: &Histogram<u64>, quantile| of.value_at_quantile(quantile) as f64 / 1000.0;
            measured.push((at(&busy.latency, 0.99), at(&quiet.latency, 0.99)));
            medians.push((at(&busy.latency, 0.5), at(&quiet.latency, 0.5)));
            lasted = archived.seconds;
            shares = quiet.shares;
        }
        drop(shares);
        let medians = Figure::from_slices("µs", &medians);
        let mut figure = Figure::from_slices("µs", &measured);
        figure.extra.insert("p50", medians.value);
        figure.extra.insert("p50_limit", medians.limit);
        figure.extra.insert("archive_s", lasted);
        Ok::<_, CliError>(figure)
    })?;
    world.close()?;
    Ok(figure)
}

/// `archive_memory`: how much the process's memory grows at most while a group is archived, against
/// the same for a group of a quarter of the messages.
pub(super) fn memory(dir: &Path, slice: Duration) -> Result<Figure, CliError> {
    let world = World::open(dir)?;
    let messages = (slice.as_secs_f64() * MANY_PER_SECOND) as u64;
    let (small, large, plain_bytes) = world.runtime.block_on(async {
        world.filled("small", messages / SMALL).await?;
        world.filled("large", messages).await?;
        // What the first archive of a process takes once is no group's.
        world.filled("first", messages / SMALL).await?;
        growth(&world, "first").await?;
        let (small, _) = growth(&world, "small").await?;
        let (large, plain_bytes) = growth(&world, "large").await?;
        Ok::<_, CliError>((small, large, plain_bytes))
    })?;
    world.close()?;
    let mut figure = Figure::from_slices("bytes", &[(large, small)]);
    figure.extra.insert("messages", messages as f64);
    figure.extra.insert("plain_mb", plain_bytes / MEGABYTE);
    Ok(figure)
}

/// The most that memory grew by while a group was archived, and the bytes of its lines.
async fn growth(world: &World, group: &str) -> Result<(f64, f64), CliError> {
    // The allocator gives memory back a moment after it was freed.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let pid = std::process::id();
    let before = anonymous(pid)?;
    let (most, ends) = (Arc::new(AtomicU64::new(before)), Arc::new(AtomicBool::new(false)));
    let looking = {
        let (most, ends) = (Arc::clone(&most), Arc::clone(&ends));
        std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                most.fetch_max(anonymous(pid).unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(LOOK_EVERY);
            }
        })
    };
    let archived = world.archive(group).await;
    ends.store(true, Ordering::Relaxed);
    looking.join().map_err(|_| "the thread that looks at the memory panicked")?;
    let grown = most.load(Ordering::Relaxed).saturating_sub(before);
    Ok((grown as f64, archived?.plain_bytes))
}

/// Posts so many messages, many of them under way at a time.
async fn fill(store: &GroupStore, link: GroupLink, messages: u64) -> Result<(), CliError> {
    let GroupLink { tx, mut rx, .. } = link;
    let free = Arc::new(Semaphore::new(FILLING));
    let (places, store) = (Arc::clone(&free), store.clone());
    let writer = tokio::spawn(async move {
        for count in 0..messages {
            let (every, pause) = FILLING_LOOK;
            while count % every == 0 && store.stats().lag_events > FILLING_LAG {
                tokio::time::sleep(pause).await;
            }
            let Ok(place) = places.acquire().await else { break };
            place.forget();
            if tx.send(posts::post(0, count, &snapshots::text(count))).await.is_err() {
                break;
            }
        }
        tx
    });
    let mut posted = 0;
    while posted < messages {
        let frame = rx.recv().await.ok_or("the upstream ended")?;
        if posts::is_ok(&frame)? {
            posted += 1;
            free.add_permits(1);
        }
    }
    writer.await?;
    Ok(())
}

/// What talking came to.
struct Talked {
    shares: Vec<Vec<(usize, GroupLink)>>,
    latency: Histogram<u64>,
}

/// Each client posts in its groups by turns, at a steady pace, until it is told to end.
async fn talk(
    shares: Vec<Vec<(usize, GroupLink)>>,
    ends: Arc<AtomicBool>,
    round: u64,
) -> Result<Talked, CliError> {
    let mut talking = JoinSet::new();
    for (nth, share) in shares.into_iter().enumerate() {
        talking.spawn(talk_in_turn(share, Arc::clone(&ends), round, nth));
    }
    let (mut shares, mut latency) = (Vec::new(), Histogram::<u64>::new(3)?);
    while let Some(done) = talking.join_next().await {
        let (share, measured) = done??;
        shares.push(share);
        latency.add(&measured)?;
    }
    Ok(Talked { shares, latency })
}

async fn talk_in_turn(
    mut links: Vec<(usize, GroupLink)>,
    ends: Arc<AtomicBool>,
    round: u64,
    nth: usize,
) -> Result<(Vec<(usize, GroupLink)>, Histogram<u64>), CliError> {
    let mut took = Vec::with_capacity(POSTS_OF_A_CLIENT);
    tokio::time::sleep(TALK_EVERY / TALKERS as u32 * nth as u32).await;
    let mut pace = interval(TALK_EVERY);
    // A client that was held up does not make up for it.
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut count = round << 32;
    while !ends.load(Ordering::Relaxed) {
        for (index, link) in &mut links {
            pace.tick().await;
            count += 1;
            let began = Instant::now();
            posts::say(link, *index, count).await?;
            took.push(began.elapsed());
        }
    }
    let mut latency = Histogram::<u64>::new(3)?;
    for post in took {
        latency.record(post.as_nanos() as u64)?;
    }
    Ok((links, latency))
}
