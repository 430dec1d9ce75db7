//! What groups use, on its way to the Orchestrator.
//!
//! A group counts for itself and hands its figures over now and then; only the end of a run is handed
//! over at once. A reporter writes them into an outbox, then sends them from there until they are
//! acknowledged. A report's key is part of its row, so that a repeat counts once. The end of a run is
//! named by the number of its event: after a crash the events beyond the mark of a group are read
//! again, and what they lead to has the same keys as before. Nothing here holds a group up.

mod outbox;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use convene_db::{Db, DbError};
use convene_hop::Hop;
use convene_model::{
    Code, GroupId, Problem, RunId, UserId, agents,
    claims::{ControllerClaims, service},
    event::{Event, EventKind, RunFinished, SummaryRecorded},
    limits::MAX_BODY_BYTES,
    record::Record,
    token::body_hash,
    usage::{MAX_REFUSALS, MAX_REPORTED, Refusals, RefusedKind, Tokens, UsageReport},
};
use convene_storage::{LoadedGroup, StoreError};
use futures_util::{StreamExt, stream};
use http::{Method, Request, header};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

pub(super) use outbox::{MARKS_AND_OUTBOX, begin_mark};
use outbox::{Outbox, Row};

use super::{Shared, lifecycle};

/// A group that is in use hands over what it has counted after this time.
pub(super) const HANDED_OVER_EVERY: Duration = Duration::from_secs(30);
/// Figures that are no ends of runs are sent at most so often.
const SENT_EVERY: Duration = Duration::from_secs(5);
/// Reports that are sent at the same time.
const AT_ONCE: usize = 8;
/// Reports in the outbox at most; beyond it figures add up in memory.
const MAX_WAITING: u64 = 10_000;
/// How long the Orchestrator may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after reports that did not arrive: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Events that are read at a time when a group is looked through.
const EVENTS_AT_ONCE: u64 = 1_000;

/// What groups have used and the Orchestrator was not told yet.
#[derive(Default)]
pub(super) struct Usage {
    /// Whether anybody listens; without that nothing is kept.
    listens: AtomicBool,
    gathered: Mutex<HashMap<GroupId, Gathered>>,
    outbox: std::sync::OnceLock<Outbox>,
    noting: tokio::sync::Mutex<()>,
    left: Notify,
    totals: Totals,
}

/// What all groups of the process have used.
#[derive(Debug, Default)]
struct Totals {
    runs: AtomicU64,
    input_tokens: AtomicU64,
    output_tokens: AtomicU64,
    cost_micro_usd: AtomicU64,
    cost_unknown: AtomicU64,
    egress_bytes: AtomicU64,
    unsent: AtomicU64,
}

/// What all groups of the process have used, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageTotals {
    /// Runs that ended.
    pub runs: u64,
    /// Tokens that models have read.
    pub input_tokens: u64,
    /// Tokens that models have written.
    pub output_tokens: u64,
    /// What models cost, in millionths of a US dollar, as far as it is known.
    pub cost_micro_usd: u64,
    /// Runs and summaries whose cost is not known.
    pub cost_unknown: u64,
    /// Bytes that left for clients or passed between tools and services.
    pub egress_bytes: u64,
    /// Reports that the Orchestrator has not acknowledged yet.
    pub unsent: u64,
}

/// What one group has used since it was noted last.
#[derive(Debug, Default)]
struct Gathered {
    epoch: u64,
    /// All ends of runs up to this event are here or were before.
    seq: u64,
    egress_bytes: u64,
    active_secs: u64,
    runs: BTreeMap<u64, EndedRun>,
    /// Runs that do not start and hold something, and summaries that no event tells of, with what they
    /// used; `None` when nobody knows.
    settled: BTreeMap<RunId, Option<agents::Usage>>,
    refused: BTreeMap<(RefusedKind, UserId), u64>,
}

/// A run that has ended, or a summary that a model was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndedRun {
    seq: u64,
    /// Under which name it held what it may use.
    run_id: RunId,
    /// Whether it had begun.
    began: bool,
    /// What it used; `None` when nobody knows.
    usage: Option<agents::Usage>,
}

/// What one group counts for itself.
#[derive(Debug)]
pub(super) struct Meter {
    egress_bytes: u64,
    /// Until when the time that it was awake is handed over.
    since: Instant,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self { egress_bytes: 0, since: now }
    }

    /// Bytes leave for clients.
    pub(super) fn leaves(&mut self, bytes: usize, times: usize) {
        self.egress_bytes += bytes as u64 * times as u64;
    }

    /// Whether it is time to hand over.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= HANDED_OVER_EVERY
    }
}

impl EndedRun {
    /// What an event says about the end of a run, or of a model's work at a summary, which is no run. One
    /// that never began has used nothing.
    pub(super) fn of(event: &Event) -> Option<Self> {
        let seq = event.seq;
        if let EventKind::SummaryRecorded(SummaryRecorded { run_id, usage, .. }) = &event.kind {
            let run_id = run_id.clone()?;
            return Some(Self { seq, run_id, began: false, usage: *usage });
        }
        let EventKind::RunFinished(RunFinished { run_id, attempt, usage, reservation, .. }) =
            &event.kind
        else {
            return None;
        };
        let run_id = reservation.as_ref().unwrap_or(run_id);
        let began = *attempt > 0;
        let usage = if began { *usage } else { Some(agents::Usage::default()) };
        Some(Self { seq, run_id: run_id.clone(), began, usage })
    }

    fn key(&self) -> String {
        format!("run-{}", self.seq)
    }

    fn report(&self) -> UsageReport {
        UsageReport {
            runs: u64::from(self.began),
            egress_bytes: self.usage.map_or(0, |usage| usage.egress_bytes),
            ..used(&self.run_id, self.usage)
        }
    }
}

/// A report of the tokens of a run or a summary, and of their cost.
fn used(run_id: &RunId, usage: Option<agents::Usage>) -> UsageReport {
    let cost = usage.and_then(agents::Usage::cost);
    UsageReport {
        run_id: Some(run_id.clone()),
        tokens: tokens(usage),
        cost_micro_usd: cost.map_or(0, |cost| cost.min(MAX_REPORTED)),
        cost_unknown: u64::from(cost.is_none()),
        ..UsageReport::default()
    }
}

/// The tokens of what was used, where they are known.
fn tokens(used: Option<agents::Usage>) -> Option<Tokens> {
    used.filter(|usage| !usage.tokens_unknown).map(|usage| Tokens {
        input_tokens: usage.input_tokens,
        output_tokens: usage.output_tokens,
    })
}

impl Totals {
    fn add_cost(&self, usage: Option<agents::Usage>) {
        match usage.and_then(agents::Usage::cost) {
            Some(cost) => self.cost_micro_usd.fetch_add(cost, Ordering::Relaxed),
            None => self.cost_unknown.fetch_add(1, Ordering::Relaxed),
        };
    }
}

impl Usage {
    /// A run has ended, and the event that says so is durable.
    pub(super) fn run_ended(&self, group_id: &GroupId, epoch: u64, run: EndedRun) {
        let usage = run.usage.unwrap_or_default();
        self.totals.runs.fetch_add(u64::from(run.began), Ordering::Relaxed);
        self.totals.input_tokens.fetch_add(usage.input_tokens, Ordering::Relaxed);
        self.totals.output_tokens.fetch_add(usage.output_tokens, Ordering::Relaxed);
        self.totals.add_cost(run.usage);
        self.totals.egress_bytes.fetch_add(usage.egress_bytes, Ordering::Relaxed);
        self.to_report(group_id, epoch, run);
        self.left.notify_one();
    }

    /// What a run or a summary used that no event tells of, so that what it holds is settled.
    pub(super) fn settle(
        &self,
        group_id: &GroupId,
        epoch: u64,
        run_id: RunId,
        used: Option<agents::Usage>,
    ) {
        let usage = used.unwrap_or_default();
        self.totals.input_tokens.fetch_add(usage.input_tokens, Ordering::Relaxed);
        self.totals.output_tokens.fetch_add(usage.output_tokens, Ordering::Relaxed);
        self.totals.add_cost(used);
        self.gather(group_id, epoch, |gathered| {
            gathered.settled.insert(run_id, used);
        });
        self.left.notify_one();
    }

    fn to_report(&self, group_id: &GroupId, epoch: u64, run: EndedRun) {
        self.gather(group_id, epoch, |gathered| {
            gathered.seq = gathered.seq.max(run.seq);
            gathered.runs.insert(run.seq, run);
        });
    }

    /// Takes over what a group has counted.
    pub(super) fn hand_over(
        &self,
        group_id: &GroupId,
        epoch: u64,
        meter: &mut Meter,
        now: Instant,
    ) {
        let egress_bytes = std::mem::take(&mut meter.egress_bytes);
        self.totals.egress_bytes.fetch_add(egress_bytes, Ordering::Relaxed);
        // Parts of a second are handed over the next time.
        let active_secs = now.duration_since(meter.since).as_secs();
        meter.since += Duration::from_secs(active_secs);
        if egress_bytes > 0 || active_secs > 0 {
            self.gather(group_id, epoch, |gathered| {
                gathered.egress_bytes += egress_bytes;
                gathered.active_secs += active_secs;
            });
        }
    }

    /// Somebody has read so many bytes of a group's history.
    pub(super) fn read_out(&self, group_id: &GroupId, epoch: u64, bytes: u64) {
        self.totals.egress_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.gather(group_id, epoch, |gathered| gathered.egress_bytes += bytes);
    }

    /// Somebody went beyond a rate.
    pub(super) fn refused(&self, group_id: &GroupId, epoch: u64, kind: RefusedKind, user: &UserId) {
        self.gather(group_id, epoch, |gathered| {
            let known = gathered.refused.len() < MAX_REFUSALS;
            let key = (kind, user.clone());
            if known || gathered.refused.contains_key(&key) {
                *gathered.refused.entry(key).or_default() += 1;
            }
        });
    }

    pub(super) fn totals(&self) -> UsageTotals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let waiting = self.gathered.lock().len() as u64;
        UsageTotals {
            runs: read(&self.totals.runs),
            input_tokens: read(&self.totals.input_tokens),
            output_tokens: read(&self.totals.output_tokens),
            cost_micro_usd: read(&self.totals.cost_micro_usd),
            cost_unknown: read(&self.totals.cost_unknown),
            egress_bytes: read(&self.totals.egress_bytes),
            unsent: read(&self.totals.unsent) + waiting,
        }
    }

    /// Writes what was gathered into the outbox. What cannot be written stays.
    ///
    /// # Errors
    /// [`DbError`] of the outbox.
    pub(super) async fn note(&self) -> Result<(), DbError> {
        let Some(outbox) = self.outbox.get() else { return Ok(()) };
        // One at a time: whoever comes second finds everything written that was taken before.
        let _noting = self.noting.lock().await;
        let taken = std::mem::take(&mut *self.gathered.lock());
        if taken.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::new();
        for (group_id, gathered) in &taken {
            rows.extend(gathered.rows(group_id)?);
        }
        let marks = taken.iter().filter(|(_, gathered)| gathered.seq > 0);
        let marks = marks.map(|(group_id, gathered)| (group_id.clone(), gathered.seq)).collect();
        let count = rows.len() as u64;
        match outbox.write(rows, marks).await {
            Ok(()) => {
                self.totals.unsent.fetch_add(count, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                let mut gathered = self.gathered.lock();
                for (group_id, of_group) in taken {
                    gathered.entry(group_id).or_default().absorb(of_group);
                }
                Err(error)
            }
        }
    }

    fn gather(&self, group_id: &GroupId, epoch: u64, change: impl FnOnce(&mut Gathered)) {
        if self.listens.load(Ordering::Acquire) {
            let mut gathered = self.gathered.lock();
            let of_group = gathered.entry(group_id.clone()).or_default();
            of_group.epoch = of_group.epoch.max(epoch);
            change(of_group);
        }
    }
}

impl Gathered {
    /// What is to be said of the group: each end of a run by itself, the rest together.
    fn rows(&self, group_id: &GroupId) -> Result<Vec<Row>, DbError> {
        let row = |key: String, report: &UsageReport| {
            let body = serde_json::to_string(report)
                .map_err(|error| DbError::Other(format!("a report cannot be encoded: {error}")))?;
            Ok::<_, DbError>(Row { group_id: group_id.clone(), key, epoch: self.epoch, body })
        };
        let mut rows = Vec::new();
        for run in self.runs.values() {
            rows.push(row(run.key(), &run.report())?);
        }
        for (run_id, usage) in &self.settled {
            let key = match usage {
                Some(usage) if *usage == agents::Usage::default() => format!("unused-{run_id}"),
                Some(_) | None => format!("spent-{run_id}"),
            };
            let report = used(run_id, *usage);
            rows.push(row(key, &report)?);
        }
        let refused = self.refused.iter().map(|((kind, user_id), count)| Refusals {
            kind: *kind,
            user_id: user_id.clone(),
            count: *count,
        });
        let rest = UsageReport {
            egress_bytes: self.egress_bytes,
            active_secs: self.active_secs,
            refused: refused.collect(),
            ..UsageReport::default()
        };
        if rest != UsageReport::default() {
            rows.push(row(format!("sum-{}", Uuid::new_v4().simple()), &rest)?);
        }
        Ok(rows)
    }

    fn absorb(&mut self, other: Self) {
        let Self { epoch, seq, egress_bytes, active_secs, runs, settled, refused } = other;
        self.epoch = self.epoch.max(epoch);
        self.seq = self.seq.max(seq);
        self.egress_bytes += egress_bytes;
        self.active_secs += active_secs;
        self.runs.extend(runs);
        self.settled.extend(settled);
        for (key, count) in refused {
            *self.refused.entry(key).or_default() += count;
        }
    }
}

/// Begins to report, first what the last process left: what is in its outbox, and the ends of runs
/// beyond the marks of the groups that were awake when it ended.
///
/// # Errors
/// [`DbError`] when the outbox cannot be read.
pub(super) async fn begin(
    shared: &Arc<Shared>,
    orchestrator: Hop,
    db: Db,
    awake: Vec<(GroupId, u64)>,
) -> Result<(), DbError> {
    let outbox = Outbox::new(db);
    let usage = &shared.usage;
    usage.totals.unsent.store(outbox.len().await?, Ordering::Relaxed);
    let marks = outbox.marks(&awake).await?;
    let _ = usage.outbox.set(outbox);
    usage.listens.store(true, Ordering::Release);
    for (group_id, epoch, mark) in marks {
        let looked = {
            let (shared, group_id) = (Arc::clone(shared), group_id.clone());
            tokio::task::spawn_blocking(move || look_through(&shared, &group_id, mark)).await
        };
        match looked {
            Ok(Ok(runs)) => {
                for run in runs {
                    usage.to_report(&group_id, epoch, run);
                }
            }
            Ok(Err(error)) => {
                tracing::error!(group = %group_id, %error, "ends of runs cannot be read again");
            }
            Err(error) => tracing::error!(group = %group_id, %error, "a look through broke off"),
        }
    }
    usage.left.notify_one();
    let reporter = Reporter { shared: Arc::clone(shared), orchestrator };
    shared.tasks.spawn(reporter.run());
    Ok(())
}

/// The ends of runs of a group after the event `mark`. Blocks.
fn look_through(
    shared: &Shared,
    group_id: &GroupId,
    mark: u64,
) -> Result<Vec<EndedRun>, StoreError> {
    let key = group_id.key();
    let Some(LoadedGroup { last_seq: head, .. }) = shared.store.load(key)? else {
        return Ok(Vec::new());
    };
    if !shared.is_awake(group_id) {
        shared.store.release(key);
    }
    let mut ended = Vec::new();
    let mut from = mark + 1;
    while from <= head {
        let to = head.min(from + EVENTS_AT_ONCE - 1);
        for record in shared.store.events(key, from, to)? {
            let event = Record::decode(&record);
            let event = event.map_err(|error| StoreError::Failed(error.to_string()))?;
            ended.extend(EndedRun::of(&event));
        }
        from = to + 1;
    }
    Ok(ended)
}

struct Reporter {
    shared: Arc<Shared>,
    orchestrator: Hop,
}

impl Reporter {
    async fn run(self) {
        let stopping = self.shared.stopping.clone();
        let mut pause = PAUSE.0;
        loop {
            let usage = &self.shared.usage;
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = usage.left.notified() => {}
                () = tokio::time::sleep(SENT_EVERY) => {}
            }
            if usage.totals.unsent.load(Ordering::Relaxed) < MAX_WAITING
                && let Err(error) = usage.note().await
            {
                tracing::warn!(%error, "what groups have used cannot be noted");
            }
            let sent = tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                sent = self.send_all() => sent,
            };
            match sent {
                Ok(true) => {
                    pause = PAUSE.0;
                    continue;
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the outbox of usage cannot be read"),
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSE.1);
            self.shared.usage.left.notify_one();
        }
    }

    /// Sends what is in the outbox; whether all of it arrived.
    async fn send_all(&self) -> Result<bool, DbError> {
        let usage = &self.shared.usage;
        let Some(outbox) = usage.outbox.get() else { return Ok(true) };
        loop {
            let rows = outbox.first().await?;
            if rows.is_empty() {
                return Ok(true);
            }
            let sent: Vec<_> = stream::iter(rows)
                .map(|row| async move {
                    let sent = self.send(&row).await;
                    (row, sent)
                })
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            let (mut done, mut failed) = (Vec::new(), 0_usize);
            for (row, sent) in sent {
                match sent {
                    Ok(()) => done.push(row),
                    Err(problem) if lifecycle::passes(&problem) => {
                        tracing::debug!(
                            group = %row.group_id, code = problem.code.as_str(),
                            "a report of usage did not arrive"
                        );
                        failed += 1;
                    }
                    Err(problem) => {
                        tracing::error!(
                            group = %row.group_id, key = row.key, code = problem.code.as_str(),
                            detail = problem.detail, body = row.body,
                            "the Orchestrator refuses a report of usage"
                        );
                        done.push(row);
                    }
                }
            }
            let delivered = done.len() as u64;
            outbox.remove(done).await?;
            usage.totals.unsent.fetch_sub(delivered, Ordering::Relaxed);
            if failed > 0 {
                return Ok(false);
            }
        }
    }

    async fn send(&self, row: &Row) -> Result<(), Problem> {
        let path = format!("/infra/groups/{}/usage", row.group_id);
        let internal = |error: &dyn std::fmt::Display| super::internal("reporting usage", error);
        let token = self.shared.config.signer.mint(
            service::ORCHESTRATOR,
            ControllerClaims {
                group_id: row.group_id.clone(),
                epoch: row.epoch,
                htm: Method::POST.as_str().to_owned(),
                htu: path.clone(),
                bh: body_hash(row.body.as_bytes()),
            },
        );
        let request = Request::post(&path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", &row.key)
            .body(Bytes::from(row.body.clone()))
            .map_err(|error| internal(&error))?;
        let called = self.orchestrator.call(request, MAX_BODY_BYTES);
        match tokio::time::timeout(ANSWER_TIMEOUT, called).await {
            Ok(answer) => answer.map(|_| ()),
            Err(_) => Err(Problem::new(Code::Unavailable)),
        }
    }
}
