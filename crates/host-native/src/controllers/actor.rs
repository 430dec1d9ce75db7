//! One awake group: a bounded mailbox, the controller, and the gate that its outputs wait at.

pub(super) mod archive;
mod commit;
mod frames;
pub(super) mod import;
mod look_up;
mod rest;
mod usage;

use std::{
    collections::{BTreeMap, VecDeque},
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use convene_group_controller::{Address, Controller, Effect, Input, SnapshotError};
use convene_hop::{Close, GroupLink};
use convene_model::{
    Code, GroupId, GroupKey, HistoryId, MessageId, Problem, RunId, Timestamp, UpstreamId,
    claims::Access,
    event::{EventKind, GroupAgent},
    frame::{CLOSE_EPOCH_RAISED, with_conn},
    infra::{GroupLimits, HistoryMode, InitRequest},
    limits::MAX_UPSTREAMS_PER_GROUP,
    record::{CHAIN_START, Chain, Record},
    trace::TraceParent,
};
use convene_storage::{CommitFailed, Import, LoadedGroup, PostIndex};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::Instant,
};
use uuid::Uuid;

use import::Importing;
use rest::Rest;

use super::{
    Head, MAX_BATCH, MAX_UNCOMMITTED_BATCHES, Shared,
    figures::OpenLink,
    invoke,
    output::{self, Gate, Output},
    store_problem, summarize,
    upstreams::{Arrival, Upstreams},
    usage::{EndedRun, Meter},
};

/// Posts of a group whose trace is remembered at most.
const MAX_FOLLOWED: usize = 32;

/// What comes into a group's mailbox.
pub(super) enum Mail {
    Init {
        request: InitRequest,
        reply: oneshot::Sender<Result<Head, Problem>>,
    },
    Call {
        input: Input,
        reply: oneshot::Sender<Result<(), Problem>>,
    },
    Head {
        access: Option<Access>,
        reply: oneshot::Sender<Result<Head, Problem>>,
    },
    /// Like `Head`, with the agents of the group.
    Agents {
        reply: oneshot::Sender<Result<(Head, Vec<GroupAgent>), Problem>>,
    },
    Open {
        upstream: UpstreamId,
        link: GroupLink,
        figures: OpenLink,
        reply: oneshot::Sender<Result<(), Problem>>,
    },
    Run {
        input: Input,
    },
    Archive(archive::Mail),
}

/// What a group's task goes on with.
enum Happening {
    /// A commit is done, or has failed.
    Opened(Result<Vec<Output>, CommitFailed>),
    /// Something came in.
    Inputs,
    /// A deadline has come.
    Due,
    /// Nobody can send anything to the mailbox any more.
    Unreachable,
}

/// The task of one awake group.
pub(super) struct Actor {
    shared: Arc<Shared>,
    group_id: GroupId,
    key: GroupKey,
    controller: Controller,
    inbox: mpsc::Receiver<Box<Mail>>,
    mailbox: mpsc::WeakSender<Box<Mail>>,
    gate: Gate,
    upstreams: Upstreams,
    runs: BTreeMap<(RunId, u32), AbortHandle>,
    chain: Chain,
    last_snapshot: u64,
    /// Whether that snapshot holds text of a reply: what such a message says is erased from it too.
    stored_replies: bool,
    stored_wake_at: Option<Timestamp>,
    wake_at: Option<Timestamp>,
    /// When something came in last.
    used_at: Instant,
    /// What the group has used and not handed over yet.
    meter: Meter,
    /// What the organization's limits leave to it.
    limits: GroupLimits,
    /// Runs and summaries for which leave was asked, and summaries that a model writes.
    asking: usize,
    /// Whether the Orchestrator is told that the group is awake.
    reported: bool,
    /// The last posts that are followed in a trace: the runs that they lead to belong to it.
    followed: VecDeque<(MessageId, TraceParent)>,
    /// What comes from a snapshot; while it does, the group does not exist.
    import: Option<Box<Importing>>,
    batch: Pending,
}

// A node keeps thousands of awake groups: beyond this the allocator takes a fifth more for each.
const _: () = assert!(size_of::<Actor>() <= 1_280);

/// What the inputs of one turn have led to, on its way to one journal row.
#[derive(Default)]
struct Pending {
    records: Vec<Record>,
    posts: Vec<PostIndex>,
    /// Messages that its other events change.
    changed: Vec<MessageId>,
    /// Whether its events erase a text that the group's last snapshot may hold.
    erases: bool,
    /// Whether the text so far of a reply is to be stored.
    checkpoint: bool,
    outputs: Vec<Output>,
}

/// What the store has of a group that wakes.
#[derive(Default)]
pub(super) struct Loaded {
    /// The group, if it exists.
    pub(super) group: Option<LoadedGroup>,
    /// What there is of it, if it is being restored.
    pub(super) import: Option<(Import, Option<LoadedGroup>)>,
}

impl Actor {
    /// Rebuilds the controller of a group from its snapshot and the events after it.
    pub(super) fn wake(
        shared: Arc<Shared>,
        group_id: GroupId,
        Loaded { group: loaded, import }: Loaded,
        inbox: mpsc::Receiver<Box<Mail>>,
        mailbox: mpsc::WeakSender<Box<Mail>>,
    ) -> Result<Self, WakeError> {
        let key = group_id.key();
        let mut actor = Self {
            shared,
            group_id,
            key,
            controller: Controller::new(),
            inbox,
            mailbox,
            gate: Gate::default(),
            upstreams: Upstreams::default(),
            runs: BTreeMap::new(),
            chain: CHAIN_START,
            last_snapshot: 0,
            stored_replies: false,
            stored_wake_at: None,
            wake_at: None,
            used_at: Instant::now(),
            meter: Meter::new(Instant::now()),
            limits: GroupLimits::default(),
            asking: 0,
            reported: false,
            followed: VecDeque::new(),
            import: None,
            batch: Pending::default(),
        };
        if let Some((import, loaded)) = import {
            actor.import = Some(Importing::resume(import, loaded)?);
        }
        let Some(loaded) = loaded else { return Ok(actor) };
        let events = loaded.records.iter().map(Record::decode).collect::<Result<Vec<_>, _>>()?;
        let snapshot = loaded.snapshot.as_ref();
        actor.controller =
            Controller::rebuild(snapshot.map(|snapshot| snapshot.bytes.as_ref()), events)?;
        actor.last_snapshot = snapshot.map_or(0, |snapshot| snapshot.seq);
        // What it held may have become a message by now.
        actor.stored_replies = snapshot.is_some();
        actor.chain = loaded.chain;
        actor.stored_wake_at = actor.controller.durable_deadline();
        actor.limit(None);
        // Recovery is never refused: the group exists.
        let _ = actor.step(Input::Recovered);
        actor.commit();
        Ok(actor)
    }

    /// Serves the group until nobody can reach it any more or a commit fails.
    ///
    /// Boxed, since the future of an `async fn` keeps room for its arguments twice.
    pub(super) async fn run(mut self: Box<Self>) {
        // One timer for all turns: a turn takes microseconds, and what is shared by all groups
        // would be a lock between them.
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        let mut timer_at = None;
        let (mut known_wake_at, mut wake_at) = (None, None);
        let mut look_at = Instant::now();
        let (mut mails, mut arrivals) = (Vec::new(), Vec::new());
        self.report();
        loop {
            if known_wake_at != self.wake_at {
                known_wake_at = self.wake_at;
                let after = known_wake_at.map(|at| at.since((self.shared.clock)()));
                wake_at = after.map(|after| Instant::now() + after);
            }
            let due_at = wake_at.map_or(look_at, |at| look_at.min(at));
            if timer_at != Some(due_at) {
                timer_at = Some(due_at);
                timer.as_mut().reset(due_at);
            }
            let happening = poll_fn(|cx| {
                if let Poll::Ready(opened) = self.gate.poll_opened(cx) {
                    return Poll::Ready(Happening::Opened(opened));
                }
                if self.gate.len() >= MAX_UNCOMMITTED_BATCHES {
                    return Poll::Pending;
                }
                if let Poll::Ready(0) = self.inbox.poll_recv_many(cx, &mut mails, MAX_BATCH) {
                    return Poll::Ready(Happening::Unreachable);
                }
                self.upstreams.poll(&self.shared, cx, &mut arrivals);
                if !mails.is_empty() || !arrivals.is_empty() {
                    return Poll::Ready(Happening::Inputs);
                }
                if timer.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Happening::Due);
                }
                Poll::Pending
            });
            match happening.await {
                Happening::Opened(Ok(outputs)) => self.release(outputs),
                Happening::Opened(Err(error)) => {
                    self.lost(&error);
                    self.shared.forget(&self.group_id, 0);
                    break;
                }
                Happening::Inputs => {
                    for mail in mails.drain(..) {
                        self.used_at = Instant::now();
                        self.take(*mail);
                        self.commit_if_idle();
                    }
                    for (upstream, arrival) in arrivals.drain(..) {
                        self.arrived(upstream, arrival);
                        self.commit_if_idle();
                    }
                    self.report();
                    if self.meter.is_due(self.used_at) {
                        self.hand_over(self.used_at);
                    }
                }
                Happening::Due => {
                    timer_at = None;
                    let now = Instant::now();
                    if wake_at.is_some_and(|at| at <= now) {
                        known_wake_at = None;
                        wake_at = None;
                        let _ = self.step(Input::Tick);
                    }
                    if look_at <= now {
                        match self.rest() {
                            Rest::LookAgain(at) => look_at = at,
                            Rest::Asleep => {
                                self.fall_asleep();
                                break;
                            }
                        }
                    }
                }
                Happening::Unreachable => {
                    self.drain().await;
                    break;
                }
            }
            self.commit();
        }
        for run in std::mem::take(&mut self.runs).into_values() {
            run.abort();
        }
        self.hand_over(Instant::now());
        self.shared.store.release(self.key);
    }

    /// Lets the Orchestrator know once that the group is awake.
    fn report(&mut self) {
        if !self.reported
            && let Some(state) = self.controller.state()
            && state.frozen().is_none()
        {
            self.reported = true;
            self.shared.lifecycle.awake(&self.group_id, state.identity().epoch, state.seq());
        }
    }

    /// With nothing under way the journal would only wait for the rest of the turn.
    fn commit_if_idle(&mut self) {
        if self.gate.len() == 0 {
            self.commit();
        }
    }

    /// Releases what was accepted before the node began to stop.
    async fn drain(&mut self) {
        while self.gate.len() > 0 {
            match self.gate.opened().await {
                Ok(outputs) => self.release(outputs),
                Err(error) => return self.lost(&error),
            }
        }
    }

    /// What was behind a failed commit leaves nowhere: the controller goes with it, and the group
    /// is rebuilt from what is stored when it is next used.
    fn lost(&self, error: &CommitFailed) {
        tracing::error!(group = %self.group_id, %error, "a group's controller is dropped");
    }

    fn take(&mut self, mail: Mail) {
        match mail {
            Mail::Init { request, reply } => {
                let limits = request.limits;
                let input = Input::Init {
                    group_id: self.group_id.clone(),
                    org_id: request.org_id,
                    history_mode: request.history_mode,
                    epoch: request.epoch,
                    history: new_history_id(),
                };
                let answer = self.may_begin().and_then(|()| self.step(input));
                let result = answer.and_then(|()| self.head());
                if result.is_ok() {
                    self.limit(Some(limits));
                }
                self.batch.outputs.push(Output::Head { result, reply });
            }
            Mail::Call { input, reply } => {
                let result = self.step(input);
                self.batch.outputs.push(Output::Answer { result, reply });
            }
            Mail::Head { access, reply } => {
                let result = self.admit(access.as_ref()).and_then(|()| self.head());
                self.batch.outputs.push(Output::Head { result, reply });
            }
            Mail::Agents { reply } => {
                let agents = self.existing().map(|state| state.config().agents.clone());
                let result = self.head().and_then(|head| Ok((head, agents?)));
                // Whoever asked may have given up.
                let answer = move || drop(reply.send(result));
                self.batch.outputs.push(Output::Reply(Box::new(answer)));
            }
            Mail::Open { upstream, link, figures, reply } => {
                let refused = match self.existing() {
                    Err(problem) => Some(problem),
                    Ok(state) if state.frozen().is_some() => Some(Code::GroupArchived.into()),
                    // Each app has one, so these are links that nobody has noticed to be dead.
                    Ok(_) if self.upstreams.len() >= MAX_UPSTREAMS_PER_GROUP => {
                        Some(Code::Overloaded.into())
                    }
                    Ok(_) => self.check_egress().err(),
                };
                self.batch.outputs.push(match refused {
                    None => Output::Opened { upstream, link, figures, reply },
                    Some(problem) => Output::Answer { result: Err(problem), reply },
                });
            }
            Mail::Archive(mail) => self.take_archive(mail),
            Mail::Run { input } => {
                if let Input::RunEnded { run_id, attempt, .. } = &input {
                    self.runs.remove(&(run_id.clone(), *attempt));
                }
                let answers = matches!(input, Input::Reserved { .. } | Input::Summarized { .. });
                self.asking -= usize::from(answers);
                // Results of an attempt that is not the current one change nothing.
                let _ = self.step(input);
            }
        }
    }

    fn arrived(&mut self, upstream: UpstreamId, arrival: Arrival) {
        match arrival {
            Arrival::Frames(frames) => {
                self.used_at = Instant::now();
                for frame in frames {
                    self.frame(upstream, frame);
                }
            }
            Arrival::Ended => {
                let _ = self.step(Input::Closed(upstream));
                self.batch.outputs.push(Output::Closed { upstream });
            }
        }
    }

    /// Whether the group admits who asks, and may send something to them.
    fn admit(&self, access: Option<&Access>) -> Result<(), Problem> {
        let state = self.existing()?;
        let Some(access) = access else { return Ok(()) };
        state.admits(access)?;
        self.check_egress()
    }

    fn head(&self) -> Result<Head, Problem> {
        let state = self.existing()?;
        let identity = state.identity();
        let external = identity.history_mode == HistoryMode::External;
        Ok(Head {
            seq: state.seq(),
            epoch: identity.epoch,
            history: identity.history.clone(),
            kept_by: external.then(|| identity.org_id.clone()),
        })
    }

    /// Takes one input in and keeps everything that follows from it, in order.
    fn step(&mut self, input: Input) -> Result<(), Problem> {
        let step = self.controller.step((self.shared.clock)(), input);
        self.wake_at = step.wake_at;
        self.batch.checkpoint |= step.checkpoint;
        for event in &step.events {
            let record = Record::encode(event);
            if let EventKind::MessagePosted(posted) = &event.kind {
                self.batch.posts.push(PostIndex {
                    seq: event.seq,
                    message_id: posted.message_id.clone(),
                    digest: posted.digest(),
                });
            } else if let Some(message_id) = event.kind.message_id() {
                self.batch.changed.push(message_id.clone());
            }
            self.batch.erases |= self.erases(&event.kind);
            self.chain = record.chain(&self.chain);
            self.batch.outputs.push(Output::Broadcast(record.for_clients()));
            self.batch.outputs.extend(EndedRun::of(event).map(Output::RunEnded));
            self.batch.records.push(record);
        }
        for effect in step.effects {
            let outputs = &mut self.batch.outputs;
            match effect {
                Effect::Send { to, frame } => outputs.push(Output::Send {
                    upstream: to.upstream,
                    frame: frame.encode_for(&to.conn),
                }),
                Effect::Replay { to, after, upto } => {
                    outputs.push(Output::Replay { to, after, upto });
                }
                Effect::Broadcast(frame) => output::broadcast(outputs, frame),
                Effect::EndUpstreams => outputs.push(Output::EndUpstreams),
                Effect::Reserve { run_id, tokens } => {
                    outputs.push(Output::Reserve { run_id, tokens });
                }
                Effect::Unused { run_id } => outputs.push(Output::Unused(run_id)),
                Effect::Spent { run_id, usage } => outputs.push(Output::Spent(run_id, usage)),
                Effect::Invoke(invocation) => outputs.push(Output::Invoke(invocation)),
                Effect::Summarize(asked) => outputs.push(Output::Summarize(asked)),
                Effect::Recollect { id, from_seq, to_seq } => {
                    outputs.push(Output::Recollect { id, from_seq, to_seq });
                }
                Effect::Export { after, upto } => outputs.push(Output::Export { after, upto }),
                Effect::Abort { run_id, attempt } => {
                    outputs.push(Output::Abort { run_id, attempt });
                }
            }
        }
        step.answer.map_err(|rejected| {
            let problem = Problem::new(rejected.code);
            if rejected.detail.is_empty() { problem } else { problem.detail(rejected.detail) }
        })
    }

    fn release(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Broadcast(frame) => {
                    self.meter.leaves(frame.len(), self.upstreams.len());
                    for upstream in self.upstreams.broadcast(&frame) {
                        self.drop_upstream(upstream);
                    }
                }
                Output::Delta(delta) => {
                    let frame = delta.encode();
                    for upstream in self.upstreams.broadcast(&frame) {
                        self.drop_upstream(upstream);
                    }
                }
                Output::Send { upstream, frame } => self.pass(upstream, frame),
                Output::Replay { to, after, upto } => self.replay(&to, after, upto),
                Output::Invoke(invocation) => self.invoke(invocation),
                Output::Summarize(asked) => {
                    self.asking += 1;
                    let shared = Arc::clone(&self.shared);
                    let task = summarize::write(shared, asked, self.mailbox.clone());
                    self.shared.tasks.spawn(task);
                }
                Output::Export { after, upto } => self.export(after, upto),
                Output::Recollect { id, from_seq, to_seq } => {
                    let shared = Arc::clone(&self.shared);
                    let kept_by = self.head().ok().and_then(|head| head.kept_by);
                    let (group_id, mailbox) = (self.group_id.clone(), self.mailbox.clone());
                    let wanted = (id, from_seq..=to_seq);
                    let task = summarize::recollect(shared, group_id, kept_by, wanted, mailbox);
                    self.shared.tasks.spawn(task);
                }
                Output::Abort { run_id, attempt } => {
                    if let Some(run) = self.runs.remove(&(run_id, attempt)) {
                        run.abort();
                    }
                }
                Output::Opened { upstream, link, figures, reply } => {
                    self.upstreams.add(upstream, link, figures);
                    let _ = reply.send(Ok(()));
                }
                Output::RunEnded(run) => self.run_ended(run),
                Output::Reserve { run_id, tokens } => self.reserve(run_id, tokens),
                Output::Unused(run_id) => self.unused(run_id),
                Output::Spent(run_id, used) => self.spent(run_id, used),
                Output::Traced(span) => drop(span),
                Output::Closed { upstream } => {
                    self.upstreams.remove(upstream);
                }
                Output::EndUpstreams => {
                    let why = Close::new(CLOSE_EPOCH_RAISED, "the group has a new epoch");
                    self.upstreams.close_all(&why);
                }
                Output::Reply(reply) => reply(),
                // Whoever asked may have given up.
                Output::Answer { result, reply } => drop(reply.send(result)),
                Output::Head { result, reply } => drop(reply.send(result)),
            }
        }
    }

    fn pass(&mut self, upstream: UpstreamId, frame: Bytes) {
        self.meter.leaves(frame.len(), 1);
        if !self.upstreams.send(upstream, frame) {
            self.drop_upstream(upstream);
        }
    }

    /// Drops an upstream that ended or cannot keep up: its app reconnects and resumes, and no
    /// other upstream waits for it.
    fn drop_upstream(&mut self, upstream: UpstreamId) {
        self.upstreams.remove(upstream);
        tracing::debug!(group = %self.group_id, upstream = upstream.0, "an upstream was dropped");
        let _ = self.step(Input::Closed(upstream));
    }

    fn replay(&mut self, to: &Address, after: u64, upto: u64) {
        match self.shared.store.events(self.key, after + 1, upto) {
            Ok(records) => {
                for record in records {
                    self.pass(to.upstream, with_conn(&to.conn, &record.for_clients()));
                }
            }
            Err(error) => {
                // The client must not believe that it has everything: its upstream ends.
                let problem = store_problem(&self.group_id, &error);
                tracing::error!(group = %self.group_id, code = problem.code.as_str(), "a replay failed");
                self.drop_upstream(to.upstream);
            }
        }
    }

    fn invoke(&mut self, invocation: Box<convene_group_controller::Invocation>) {
        let key = (invocation.request.run_id.clone(), invocation.request.attempt);
        let trigger = &invocation.request.trigger;
        let trace = self.followed.iter().find(|(message_id, _)| message_id == trigger);
        let trace = trace.map(|(_, trace)| *trace);
        let task = invoke::run(Arc::clone(&self.shared), invocation, self.mailbox.clone(), trace);
        self.runs.insert(key, self.shared.tasks.spawn(task).abort_handle());
    }
}

/// A group whose stored history cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WakeError {
    #[error(transparent)]
    Record(#[from] convene_model::record::RecordError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// # Panics
/// Never: a UUID's digits make an id.
fn new_history_id() -> HistoryId {
    HistoryId::new(Uuid::new_v4().simple().to_string()).expect("a UUID's digits make an id")
}
