//! Posts per second, measured at the group link: a frame in, its durable `ok` out.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use bytes::Bytes;
use convene_hop::{GroupLink, Hop, Signer};
use convene_model::{
    ConnId, GroupId, OrgId, Role, UserId,
    claims::{RoutingClaims, service},
    frame::{SUBPROTOCOL, UpstreamFrame},
    infra::{HistoryMode, InitRequest},
    keys::{SigningKey, TrustedKeys},
};
use convene_storage::{GroupStore, StoreOptions};
use hdrhistogram::Histogram;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{Figure, TEXT_BYTES, raw_rows};
use crate::{
    cli::CliError,
    clock,
    controllers::{Controllers, ControllersConfig},
};

/// Measures posts over `groups` groups with `in_flight` posts under way, in turn with raw commits
/// at the batch size that was reached.
pub(super) fn measure(
    dir: &Path,
    groups: usize,
    in_flight: usize,
    slice: Duration,
    slices: usize,
) -> Result<Figure, CliError> {
    let runtime = crate::serve::runtime()?;
    let mut measured = Vec::new();
    let mut latency = Histogram::<u64>::new(3)?;
    let (mut batch, mut lag) = (0.0, 0.0);
    for _ in 0..slices {
        let folder = dir.join("posts");
        let _ = std::fs::remove_dir_all(&folder);
        let run = runtime.block_on(posts(&folder, groups, in_flight, slice))?;
        let limit = raw_rows::commits_per_second(
            dir,
            run.batch.round() as usize,
            groups,
            ROW_BYTES,
            slice,
        )?;
        measured.push((run.per_second, limit));
        latency.add(&run.latency)?;
        batch = run.batch;
        lag = run.lag_events;
    }
    let _ = std::fs::remove_dir_all(dir);
    let mut figure = Figure::from_slices("posts/s", &measured);
    figure.extra.insert("p50_ms", latency.value_at_quantile(0.5) as f64 / 1000.0);
    figure.extra.insert("p99_ms", latency.value_at_quantile(0.99) as f64 / 1000.0);
    figure.extra.insert("batch", batch);
    figure.extra.insert("unprojected", lag);
    Ok(figure)
}

struct Run {
    per_second: f64,
    batch: f64,
    lag_events: f64,
    latency: Histogram<u64>,
}

async fn posts(
    folder: &Path,
    groups: usize,
    in_flight: usize,
    time: Duration,
) -> Result<Run, CliError> {
    let key = SigningKey::from_seed(service::ORCHESTRATOR, &[1; 32]);
    let orchestrator = Signer::new(key.clone(), clock::system());
    let store = GroupStore::open(folder, StoreOptions::default(), |why| {
        eprintln!("convene: {why}");
        std::process::exit(crate::serve::EXIT_OUTCOME_UNKNOWN);
    })?;
    let controllers = controllers(&store, &key, Duration::from_secs(86_400))?;
    let mut links = Vec::with_capacity(groups);
    for index in 0..groups {
        links.push(attach(&controllers, &orchestrator, index).await?);
    }

    let before = store.stats();
    let deadline = Instant::now() + time;
    let free = Arc::new(Semaphore::new(in_flight));
    let started = Instant::now();
    let mut posters = JoinSet::new();
    if groups == 1 {
        for link in links {
            posters.spawn(post_until(link, Arc::clone(&free), deadline));
        }
    } else {
        // So many clients, each with groups of its own that it posts in by turns.
        let mut shares: Vec<Vec<(usize, GroupLink)>> = Vec::new();
        shares.resize_with(in_flight, Vec::new);
        for (index, link) in links.into_iter().enumerate() {
            shares[index % in_flight].push((index, link));
        }
        for share in shares {
            posters.spawn(post_in_turn(share, deadline));
        }
    }
    let mut latency = Histogram::<u64>::new(3)?;
    let mut posted = 0;
    while let Some(done) = posters.join_next().await {
        let (count, measured) = done??;
        posted += count;
        latency.add(&measured)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let after = store.stats();
    let commits = (after.commits - before.commits).max(1);
    let events = (after.events - before.events).max(1);
    controllers.shutdown().await;
    tokio::task::spawn_blocking(move || store.close()).await?;
    Ok(Run {
        per_second: posted as f64 / seconds,
        batch: events as f64 / commits as f64,
        lag_events: after.lag_events as f64,
        latency,
    })
}

/// What a stored event has beside its text, with ids of this measurement's length.
const FRAME_OVERHEAD_BYTES: usize = 215;
/// Bytes of a row as the measured posts make it.
pub(super) const ROW_BYTES: usize = TEXT_BYTES + FRAME_OVERHEAD_BYTES;

/// Controllers that trust `orchestrator` and have nobody else.
pub(super) fn controllers(
    store: &GroupStore,
    orchestrator: &SigningKey,
    idle_after: Duration,
) -> Result<Controllers, CliError> {
    let own = SigningKey::from_seed(service::CONTROLLERS, &[2; 32]);
    let config = ControllersConfig {
        signer: Signer::new(own, clock::system()),
        orchestrator_keys: TrustedKeys::of(orchestrator.issuer(), &orchestrator.jwks())?,
        agents: Hop::in_process(Router::new()),
        idle_after,
    };
    Ok(Controllers::new(store.clone(), config))
}

/// Brings the group with this number to life.
pub(super) async fn init(controllers: &Controllers, index: usize) -> Result<GroupId, CliError> {
    let group_id = GroupId::new(format!("group-{index}"))?;
    let org_id = OrgId::new("org")?;
    let limits = convene_model::infra::GroupLimits::default();
    let request = InitRequest { org_id, history_mode: HistoryMode::Internal, epoch: 1, limits };
    controllers.init(&group_id, request).await.map_err(|problem| problem.title)?;
    Ok(group_id)
}

/// Posts and waits for the durable answer.
pub(super) async fn say(link: &mut GroupLink, index: usize, count: u64) -> Result<(), CliError> {
    let text = "y".repeat(TEXT_BYTES);
    link.tx.send(post(index, count, &text)).await?;
    while !is_ok(&link.rx.recv().await.ok_or("the upstream ended")?)? {}
    Ok(())
}

/// Brings a group to life and attaches the connection `c` to it.
pub(super) async fn attach(
    controllers: &Controllers,
    orchestrator: &Signer,
    index: usize,
) -> Result<GroupLink, CliError> {
    let group_id = init(controllers, index).await?;
    enter(controllers, orchestrator, group_id, OrgId::new("org")?, 1).await
}

/// Attaches the connection `c` to a group that lives.
pub(super) async fn enter(
    controllers: &Controllers,
    orchestrator: &Signer,
    group_id: GroupId,
    org_id: OrgId,
    epoch: u64,
) -> Result<GroupLink, CliError> {
    let mut link = controllers.open(&group_id).await.map_err(|problem| problem.title)?;
    let token = orchestrator.mint(
        service::CONTROLLERS,
        RoutingClaims {
            user_id: UserId::new("user")?,
            org_id,
            group_id,
            role: Role::Member,
            epoch,
        },
    );
    let frame = UpstreamFrame::Attach {
        conn: ConnId::new("c")?,
        r#ref: "attach".parse()?,
        token,
        after: None,
        history: None,
        render: None,
    };
    link.tx.send(serde_json::to_vec(&frame)?.into()).await?;
    let answer = link.rx.recv().await.ok_or("the upstream ended")?;
    if !answer.starts_with(b"{\"conn\":\"c\",\"type\":\"attached\"") {
        return Err(format!("{SUBPROTOCOL}: {}", String::from_utf8_lossy(&answer)).into());
    }
    Ok(link)
}

/// Posts on some links in turn until `deadline`, one post at a time.
pub(super) async fn post_in_turn(
    mut links: Vec<(usize, GroupLink)>,
    deadline: Instant,
) -> Result<(u64, Histogram<u64>), CliError> {
    let text = "y".repeat(TEXT_BYTES);
    let mut latency = Histogram::<u64>::new(3)?;
    for round in 0_u64.. {
        for (index, link) in &mut links {
            let sent_at = Instant::now();
            if sent_at >= deadline {
                return Ok((latency.len(), latency));
            }
            link.tx.send(post(*index, round, &text)).await?;
            loop {
                let frame = link.rx.recv().await.ok_or("the upstream ended")?;
                if is_ok(&frame)? {
                    break;
                }
            }
            latency.record(sent_at.elapsed().as_micros() as u64)?;
        }
    }
    Ok((latency.len(), latency))
}

/// The frame of one post.
pub(super) fn post(index: usize, count: u64, text: &str) -> Bytes {
    Bytes::from(format!(
        "{{\"conn\":\"c\",\"type\":\"post\",\"ref\":\"{count}\",\"message_id\":\"{index:016x}{count:016x}\",\"text\":\"{text}\"}}"
    ))
}

/// Whether a frame is the durable answer to a post, rather than its event.
pub(super) fn is_ok(frame: &Bytes) -> Result<bool, CliError> {
    if frame.starts_with(b"{\"conn\":\"c\",\"type\":\"ok\"") {
        return Ok(true);
    }
    if frame.starts_with(b"{\"type\":\"event\"") || frame.starts_with(b"{\"type\":\"presence\"") {
        return Ok(false);
    }
    Err(String::from_utf8_lossy(frame).into_owned().into())
}

/// Posts on one link until `deadline`, each post in one of the `free` places.
async fn post_until(
    link: GroupLink,
    free: Arc<Semaphore>,
    deadline: Instant,
) -> Result<(u64, Histogram<u64>), CliError> {
    let GroupLink { tx, mut rx, .. } = link;
    let (sent_at, mut sent_times) = tokio::sync::mpsc::unbounded_channel::<Instant>();
    // A task of its own, so that posts leave while answers are read.
    let places = Arc::clone(&free);
    let mut writer = tokio::spawn(async move {
        let text = "y".repeat(TEXT_BYTES);
        let mut count = 0_u64;
        while let Ok(place) = places.acquire().await {
            if Instant::now() >= deadline {
                break;
            }
            place.forget();
            count += 1;
            let sent = sent_at.send(Instant::now()).is_ok();
            if !sent || tx.send(post(0, count, &text)).await.is_err() {
                break;
            }
        }
        (count, tx)
    });
    let mut latency = Histogram::<u64>::new(3)?;
    let mut waiting = Vec::with_capacity(64);
    let mut answered = 0_u64;
    let mut sent = None;
    while sent.as_ref().is_none_or(|(count, _)| *count != answered) {
        let received = tokio::select! {
            done = &mut writer, if sent.is_none() => {
                sent = Some(done?);
                continue;
            }
            received = rx.recv_many(&mut waiting, 64) => received,
        };
        if received == 0 {
            return Err("the upstream ended".into());
        }
        for frame in waiting.drain(..) {
            if is_ok(&frame)? {
                answered += 1;
                free.add_permits(1);
                if let Some(at) = sent_times.recv().await {
                    latency.record(at.elapsed().as_micros() as u64)?;
                }
            }
        }
    }
    Ok((answered, latency))
}
