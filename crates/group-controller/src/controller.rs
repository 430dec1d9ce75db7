//! `step`: one input, everything that follows from it.

use std::collections::BTreeMap;

use convene_model::{
    Code, RunId, Timestamp,
    agents::failure,
    claims::Access,
    event::{Event, EventKind, RunFinished, ToolsRequested},
    frame::{DetachReason, GroupFrame, GroupState, RunPhase, RunView},
};

use serde::{Deserialize, Serialize};

use crate::{
    Address, Effect, Input, Phase, Run, budget, commands, compaction, export,
    live::Live,
    outside,
    runs::{self, End},
    state::{ImpossibleEvent, State},
};

/// When a connection that found no room may try again, in milliseconds.
const OVERLOADED_RETRY_MS: u64 = 5_000;

/// What a group says that is frozen.
const ARCHIVED: &str = "the group is being archived";

/// The controller of one group.
#[derive(Debug, Default)]
pub struct Controller {
    state: Option<State>,
    pub(crate) live: Live,
}

/// Everything that follows from one input.
///
/// A host appends `events` durably (with a snapshot of the state where `checkpoint` says so), then broadcasts them and runs `effects` in order, then answers
/// with `answer` where somebody waits for one, and sets its alarm to `wake_at`.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What happened. Deadlines that were due come first, also when the input itself is refused.
    pub events: Vec<Event>,
    /// What to do once the events are durable.
    pub effects: Vec<Effect>,
    /// The next deadline.
    pub wake_at: Option<Timestamp>,
    /// Whether the state is to be stored as a snapshot, since the text so far of a reply is in it that
    /// a crash would lose. Nothing waits for that but what comes after the step.
    pub checkpoint: bool,
    /// Whether the input was accepted. Refusals of frames are answered by an effect as well.
    pub answer: Result<(), Rejected>,
}

/// An input was refused and changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.as_str())]
pub struct Rejected {
    /// Why.
    pub code: Code,
    /// What is particular to it.
    pub detail: String,
}

impl Rejected {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// A snapshot that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It is not a snapshot.
    #[error("the snapshot cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Another version of the program wrote it.
    #[error("the snapshot has format {0}, and this program reads up to {SNAPSHOT_FORMAT}")]
    Format(u32),
    /// An event after it cannot follow.
    #[error(transparent)]
    Impossible(#[from] ImpossibleEvent),
}

/// The form of the snapshots that are written; it grows with each change that the reader of the
/// former form could not read.
const SNAPSHOT_FORMAT: u32 = 2;
/// The oldest form that is read: what the later ones have beside it is absent there.
const OLDEST_FORMAT: u32 = 1;

#[derive(Serialize)]
struct Snapshot<'a> {
    format: u32,
    state: &'a State,
    /// The text so far of each running reply: no event has it, and a crash should not lose it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    replies: &'a BTreeMap<RunId, String>,
}

fn read_snapshot(bytes: &[u8]) -> Result<(State, BTreeMap<RunId, String>), SnapshotError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    #[derive(Deserialize)]
    struct Whole {
        state: State,
        #[serde(default)]
        replies: BTreeMap<RunId, String>,
    }
    let Format { format } = serde_json::from_slice(bytes)?;
    if !(OLDEST_FORMAT..=SNAPSHOT_FORMAT).contains(&format) {
        return Err(SnapshotError::Format(format));
    }
    let Whole { mut state, replies } = serde_json::from_slice(bytes)?;
    state.count_tokens();
    Ok((state, replies))
}

impl Controller {
    /// A controller of a group that does not exist yet; only [`Input::Init`] brings it to life.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Rebuilds a controller from a snapshot and the events after it, or from all events. Feed it
    /// [`Input::Recovered`] next.
    ///
    /// # Errors
    /// [`SnapshotError`] when they are not the history of a group.
    pub fn rebuild(
        snapshot: Option<&[u8]>,
        events: impl IntoIterator<Item = Event>,
    ) -> Result<Self, SnapshotError> {
        let (state, replies) = snapshot.map(read_snapshot).transpose()?.unzip();
        let live = Live::with_replies(replies.unwrap_or_default());
        let mut controller = Self { state, live };
        events.into_iter().try_for_each(|event| controller.replay(&event))?;
        Ok(controller)
    }

    /// Takes in the next event of a history that is read piece by piece; what it led to has happened.
    ///
    /// # Errors
    /// [`SnapshotError::Impossible`] when it cannot follow; nothing is changed then.
    pub fn replay(&mut self, event: &Event) -> Result<(), SnapshotError> {
        match &mut self.state {
            Some(state) => state.apply(event)?,
            None => self.state = Some(State::begin(event)?),
        }
        // The state has what was said before a hand-over.
        if let EventKind::RunFinished(RunFinished { run_id, .. })
        | EventKind::ToolsRequested(ToolsRequested { run_id, .. }) = &event.kind
        {
            self.live.replies.remove(run_id);
        }
        Ok(())
    }

    /// Whether a snapshot of now would hold the text so far of a reply.
    #[must_use]
    pub fn is_replying(&self) -> bool {
        !self.live.replies.is_empty()
    }

    /// The state as bytes for [`Controller::rebuild`]; `None` while the group does not exist.
    ///
    /// # Panics
    /// Never: the state's maps have text keys.
    #[must_use]
    pub fn snapshot(&self) -> Option<Vec<u8>> {
        let state = self.state.as_ref()?;
        let snapshot = Snapshot { format: SNAPSHOT_FORMAT, state, replies: &self.live.replies };
        Some(serde_json::to_vec(&snapshot).expect("the state's maps have text keys"))
    }

    /// The durable state; `None` while the group does not exist.
    #[must_use]
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// How many connections are attached.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.live.connections()
    }

    /// The right of an attached connection.
    #[must_use]
    pub fn access(&self, from: &Address) -> Option<&Access> {
        self.live.access(from)
    }

    /// Whether an agent's own process is waited for, or works: the group stays in memory then.
    #[must_use]
    pub fn awaits_outside(&self) -> bool {
        !self.live.claims.is_empty()
    }

    /// The next deadline that outlives the process: what is stored with the events. What waits for the
    /// organization's own history service is one too, which needs a process and no alarm in it.
    #[must_use]
    pub fn durable_deadline(&self) -> Option<Timestamp> {
        let state = self.state.as_ref()?;
        let deadline = self.run_deadline().into_iter().chain(state.outbox_since()).min();
        // A run for which leave was asked has no deadline, and only a controller can ask again.
        let waits = state.runs.iter().any(|run| run.phase == Phase::Queued);
        deadline.or((waits && !state.config.paused).then_some(Timestamp::from_millis(1)))
    }

    fn run_deadline(&self) -> Option<Timestamp> {
        let state = self.state.as_ref()?;
        let runs = state.runs.iter().filter_map(|run| run.phase.deadline());
        runs.chain(state.approvals.deadline()).min()
    }

    /// Whether the organization's own history service has not acknowledged everything yet.
    #[must_use]
    pub fn is_exporting(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.outbox_since().is_some())
    }

    /// Takes one input in and returns everything that follows from it.
    pub fn step(&mut self, now: Timestamp, input: Input) -> Step {
        let Self { state, live } = self;
        let (events, effects) = (Vec::new(), Vec::new());
        let epoch = state.as_ref().map(|state| state.identity.epoch);
        let mut turn = Turn { now, state, live, events, effects, checkpoint: false };
        turn.run_deadlines();
        // What a deadline set in motion comes before the input too, so that an attach in the same
        // step names the last event of the step and misses none.
        if !turn.events.is_empty() {
            turn.dispatch();
        }
        let answer = turn.take(input);
        outside::let_go(&mut turn);
        turn.dispatch();
        if epoch.is_some_and(|epoch| epoch < turn.state().identity.epoch) {
            turn.effects.push(Effect::EndUpstreams);
        }
        let Turn { events, effects, checkpoint, .. } = turn;
        Step { events, effects, wake_at: self.wake_at(), checkpoint, answer }
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.run_deadline().into_iter().chain(self.live.next_deadline()).min()
    }
}

/// One step under way.
pub(crate) struct Turn<'a> {
    pub(crate) now: Timestamp,
    state: &'a mut Option<State>,
    pub(crate) live: &'a mut Live,
    events: Vec<Event>,
    pub(crate) effects: Vec<Effect>,
    /// Whether the text so far of a reply is to be stored.
    pub(crate) checkpoint: bool,
}

impl Turn<'_> {
    fn take(&mut self, input: Input) -> Result<(), Rejected> {
        if let Input::Init { group_id, org_id, history_mode, epoch, history } = input {
            return commands::init(self, group_id, org_id, history_mode, epoch, history);
        }
        if let Input::Unlimited { until } = input {
            self.live.budget.unlimited_until = until;
            return Ok(());
        }
        if self.state.is_none() {
            return Err(Rejected::new(Code::GroupNotFound, "the group was never activated"));
        }
        if self.state().frozen.is_some()
            && let Some(refused) = self.stand_still(&input)
        {
            return refused;
        }
        match input {
            Input::Init { .. } => Ok(()),
            Input::Freeze { archive_id, epoch } => commands::freeze(self, archive_id, epoch),
            Input::Thaw { archive_id, epoch } => commands::thaw(self, archive_id, epoch),
            Input::Restore { epoch } => commands::restore(self, epoch),
            Input::Configure(config) => commands::configure(self, config),
            Input::Revoke(user_id) => commands::revoke(self, user_id),
            Input::Closed(upstream) => {
                self.live.close(self.now, upstream);
                Ok(())
            }
            Input::Attach { from, r#ref, access, after, history } => {
                let done = commands::attach(self, &from, &r#ref, access, after, history);
                self.answer(from, Some(r#ref), done)
            }
            Input::Detach { from, r#ref } => {
                let done = commands::detach(self, &from, &r#ref);
                self.answer(from, Some(r#ref), done)
            }
            Input::Post(post) => {
                let (from, r#ref) = (post.from.clone(), post.r#ref.clone());
                let done = commands::post(self, post);
                self.answer(from, Some(r#ref), done)
            }
            Input::Cancel { from, r#ref, run_id } => {
                let done = commands::cancel(self, &from, &r#ref, &run_id);
                self.answer(from, Some(r#ref), done)
            }
            Input::Approve { from, r#ref, approval_id, decision } => {
                let done = commands::approve(self, &from, &r#ref, &approval_id, decision);
                self.answer(from, Some(r#ref), done)
            }
            Input::Continue { from, r#ref, message_id, agent_id } => {
                let done = commands::let_continue(self, &from, &r#ref, &message_id, &agent_id);
                self.answer(from, Some(r#ref), done)
            }
            Input::Retry { from, r#ref, run_id } => {
                let done = commands::retry(self, &from, &r#ref, &run_id);
                self.answer(from, Some(r#ref), done)
            }
            Input::Run { from, r#ref, run_id, attempt, act } => {
                let done = commands::run(self, &from, &r#ref, &run_id, attempt, act);
                self.answer(from, Some(r#ref), done)
            }
            Input::Edit { from, r#ref, message_id, text, target } => {
                let done = commands::edit(self, &from, &r#ref, message_id, text, target);
                self.answer(from, Some(r#ref), done)
            }
            Input::Delete { from, r#ref, message_id, target } => {
                let done = commands::delete(self, &from, &r#ref, message_id, target);
                self.answer(from, Some(r#ref), done)
            }
            Input::React(react) => {
                let (from, r#ref) = (react.from.clone(), react.r#ref.clone());
                let done = commands::react(self, react);
                self.answer(from, Some(r#ref), done)
            }
            Input::Pin { from, r#ref, message_id, on, target } => {
                let done = commands::pin(self, &from, &r#ref, message_id, on, target);
                self.answer(from, Some(r#ref), done)
            }
            Input::Typing { from } => {
                commands::typing(self, &from);
                Ok(())
            }
            Input::Refuse { from, r#ref, code, detail, retry_after_ms } => {
                self.send(
                    from,
                    GroupFrame::Error {
                        r#ref,
                        code,
                        detail: Some(detail.clone()),
                        retry_after_ms,
                        start: None,
                    },
                );
                Err(Rejected { code, detail })
            }
            Input::Reserved { run_id, leave } => {
                budget::answered(self, &run_id, leave);
                Ok(())
            }
            Input::Unlimited { .. } => Ok(()),
            Input::RunText { run_id, attempt, offset, text } => {
                runs::text(self, &run_id, attempt, offset, text);
                Ok(())
            }
            Input::ToolStarted(started) => {
                runs::call_started(self, started);
                Ok(())
            }
            Input::ToolFinished(finished) => {
                runs::call_finished(self, finished);
                Ok(())
            }
            Input::RunEnded { run_id, attempt, end } => {
                runs::ended(self, &run_id, attempt, end);
                Ok(())
            }
            Input::Summarized { id, run_id, text, usage } => {
                compaction::summarized(self, id, run_id, text, usage);
                Ok(())
            }
            Input::Recollected { id, messages } => {
                compaction::recollected(self, id, messages);
                Ok(())
            }
            Input::Exported { upto, whole } => {
                export::exported(self, upto, whole);
                Ok(())
            }
            Input::Recovered => {
                runs::recover(self);
                Ok(())
            }
            Input::Tick => Ok(()),
        }
    }

    /// What a group that is frozen answers to what would make something happen in it; `None` to
    /// what would not.
    fn stand_still(&mut self, input: &Input) -> Option<Result<(), Rejected>> {
        let (from, r#ref) = match input {
            Input::Attach { from, r#ref, .. }
            | Input::Cancel { from, r#ref, .. }
            | Input::Approve { from, r#ref, .. }
            | Input::Continue { from, r#ref, .. }
            | Input::Retry { from, r#ref, .. }
            | Input::Run { from, r#ref, .. }
            | Input::Edit { from, r#ref, .. }
            | Input::Delete { from, r#ref, .. }
            | Input::Pin { from, r#ref, .. } => (from, r#ref),
            Input::Post(post) => (&post.from, &post.r#ref),
            Input::React(react) => (&react.from, &react.r#ref),
            Input::Configure(_) | Input::Revoke(_) => {
                return Some(Err(Rejected::new(Code::GroupArchived, ARCHIVED)));
            }
            Input::Init { .. }
            | Input::Freeze { .. }
            | Input::Thaw { .. }
            | Input::Restore { .. }
            | Input::Closed(_)
            | Input::Detach { .. }
            | Input::Typing { .. }
            | Input::Refuse { .. }
            | Input::Reserved { .. }
            | Input::Unlimited { .. }
            | Input::RunText { .. }
            | Input::ToolStarted(_)
            | Input::ToolFinished(_)
            | Input::RunEnded { .. }
            | Input::Summarized { .. }
            | Input::Recollected { .. }
            | Input::Exported { .. }
            | Input::Recovered
            | Input::Tick => return None,
        };
        let refused = Err(Rejected::new(Code::GroupArchived, ARCHIVED));
        Some(self.answer(from.clone(), Some(r#ref.clone()), refused))
    }

    /// Sends the refusal of a frame to whoever sent it.
    fn answer(
        &mut self,
        from: Address,
        r#ref: Option<convene_model::Ref>,
        done: Result<(), Rejected>,
    ) -> Result<(), Rejected> {
        if let Err(Rejected { code, detail }) = &done {
            self.send(
                from,
                GroupFrame::Error {
                    r#ref,
                    code: *code,
                    detail: (!detail.is_empty()).then(|| detail.clone()),
                    retry_after_ms: (*code == Code::Overloaded).then_some(OVERLOADED_RETRY_MS),
                    start: None,
                },
            );
        }
        done
    }

    fn run_deadlines(&mut self) {
        for address in self.live.expire(self.now) {
            self.send(
                address,
                GroupFrame::Detached { reason: DetachReason::TokenExpired, user_id: None },
            );
        }
        outside::expire(self);
        if let Some(frame) = self.live.presence_due(self.now) {
            self.effects.push(Effect::Broadcast(frame));
        }
        let Some(state) = self.state.as_ref() else { return };
        let due = state
            .runs
            .iter()
            .filter(|run| run.phase.deadline().is_some_and(|deadline| deadline <= self.now));
        let due: Vec<_> = due.map(|run| run.run_id.clone()).collect();
        for run_id in due {
            let end = End::failed(failure::TIMEOUT, "The agent took too long.");
            runs::finish(self, &run_id, end, true);
        }
        runs::expire(self);
    }

    pub(crate) fn dispatch(&mut self) {
        if self.state.is_some() {
            // First, so that a run that begins now is shown the window as it will be.
            compaction::run(self);
            export::run(self);
            runs::dispatch(self);
        }
    }

    /// The state of a group that exists.
    ///
    /// # Panics
    /// When it does not: [`Turn::take`] lets nothing but an init through then.
    pub(crate) fn state(&self) -> &State {
        self.state.as_ref().expect("inputs other than init are refused before a group exists")
    }

    /// The number that the next event will have.
    pub(crate) fn next_seq(&self) -> u64 {
        self.state.as_ref().map_or(0, State::seq) + 1
    }

    /// The state, if the group exists.
    pub(crate) fn existing(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// Lets something happen: it is numbered, recorded and taken into the state.
    ///
    /// # Panics
    /// When the event cannot follow, which means a bug in a command.
    pub(crate) fn emit(&mut self, kind: EventKind) -> u64 {
        let seq = self.next_seq();
        let event = Event { seq, at: self.now, kind };
        let applied = match self.state.as_mut() {
            Some(state) => state.apply(&event),
            None => State::begin(&event).map(|state| *self.state = Some(state)),
        };
        applied.expect("commands emit events that can follow");
        if let EventKind::MessageEdited(edited) = &event.kind {
            self.live.compaction.changed(edited.message_seq);
        } else if let EventKind::MessageDeleted(deleted) = &event.kind {
            self.live.compaction.changed(deleted.message_seq);
        }
        self.events.push(event);
        seq
    }

    pub(crate) fn send(&mut self, to: Address, frame: GroupFrame) {
        self.effects.push(Effect::Send { to, frame });
    }

    pub(crate) fn ok(
        &mut self,
        to: &Address,
        r#ref: &convene_model::Ref,
        seq: Option<u64>,
        message_id: Option<convene_model::MessageId>,
    ) {
        self.send(to.clone(), GroupFrame::Ok { r#ref: r#ref.clone(), seq, message_id });
    }

    /// What a client needs beside history.
    pub(crate) fn view(&self) -> GroupState {
        let state = self.state();
        let runs = state.runs.iter().map(|run: &Run| RunView {
            run_id: run.run_id.clone(),
            agent_id: run.agent_id.clone(),
            trigger: run.trigger.clone(),
            attempt: run.work.attempt,
            phase: match run.phase {
                Phase::Queued => RunPhase::Queued,
                Phase::Thinking { .. } => RunPhase::Thinking,
                Phase::Writing { .. } => RunPhase::Writing,
                Phase::Waiting => RunPhase::Waiting,
            },
            tools: run.work.tools.clone(),
        });
        GroupState {
            version: state.config.version,
            agents: state.config.agents.clone(),
            paused: state.config.paused,
            runs: runs.collect(),
            approvals: state.approvals.open.clone(),
            pins: state.pins.clone(),
            present: self.live.presence.listed().cloned().collect(),
            present_count: self.live.presence.count(),
        }
    }
}
