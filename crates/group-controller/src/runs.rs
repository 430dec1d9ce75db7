//! The life of a run: dispatched, streaming, finished exactly once.

use convene_model::{
    MessageId, RunId, Timestamp,
    agents::{InvokeRequest, Outcome, Usage, failure},
    event::{Author, EventKind, Posted, RunFinished, RunStarted, RunStatus},
    frame::GroupFrame,
    limits::{MAX_ATTEMPTS, MAX_REPLY_BYTES, MAX_RUNS_AT_ONCE, RUN_TIMEOUT},
};

use crate::{
    Effect, Invocation, RunEnd,
    controller::Turn,
    mention,
    state::{Phase, Run},
    triggers,
};

/// How a run ends.
pub(crate) struct End {
    status: RunStatus,
    code: Option<String>,
    detail: Option<String>,
    usage: Option<Usage>,
}

impl End {
    pub(crate) fn of(status: RunStatus) -> Self {
        Self { status, code: None, detail: None, usage: None }
    }

    pub(crate) fn because(self, detail: &str) -> Self {
        Self { detail: Some(detail.to_owned()), ..self }
    }

    /// The message that woke the run is there no longer.
    fn unasked() -> Self {
        let detail = Some("The message that it answers was deleted.".to_owned());
        Self { detail, ..Self::of(RunStatus::Cancelled) }
    }

    pub(crate) fn failed(code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { code: Some(code.into()), detail: Some(detail.into()), ..Self::of(RunStatus::Failed) }
    }
}

/// Hands waiting runs to the Agents Worker: first come first served, one per agent and
/// [`MAX_RUNS_AT_ONCE`] per group at a time. While all agents are paused, they wait.
pub(crate) fn dispatch(turn: &mut Turn<'_>) {
    if turn.state().config.paused {
        return;
    }
    loop {
        let runs = &turn.state().runs;
        let waits = |run: &&Run| run.phase == Phase::Queued;
        let working: Vec<_> =
            runs.iter().filter(|run| !waits(run)).map(|run| &run.agent_id).collect();
        if working.len() >= MAX_RUNS_AT_ONCE {
            return;
        }
        let next = runs.iter().find(|run| waits(run) && !working.contains(&&run.agent_id));
        let Some(run) = next.cloned() else { return };
        start(turn, &run, 1, turn.now + RUN_TIMEOUT);
    }
}

fn start(turn: &mut Turn<'_>, run: &Run, attempt: u32, deadline: Timestamp) {
    turn.emit(EventKind::RunStarted(RunStarted {
        run_id: run.run_id.clone(),
        attempt,
        agent_id: run.agent_id.clone(),
        trigger: run.trigger.clone(),
        deadline,
    }));
    let state = turn.state();
    let invocation = Invocation {
        org_id: state.identity.org_id.clone(),
        deadline,
        request: InvokeRequest {
            group_id: state.identity.group_id.clone(),
            agent_id: run.agent_id.clone(),
            run_id: run.run_id.clone(),
            attempt,
            trigger: run.trigger.clone(),
            agents: state
                .config
                .agents
                .iter()
                .map(|agent| (agent.agent_id.clone(), agent.name.clone()))
                .collect(),
            summary: state.context_summary(),
            messages: state.context(&run.trigger),
            resume: None,
        },
    };
    turn.effects.push(Effect::Invoke(Box::new(invocation)));
}

/// Ends the runs of agents that are no longer in the group, whether they wait or work.
pub(crate) fn end_removed(turn: &mut Turn<'_>) {
    let state = turn.state();
    let removed = state.runs.iter().filter(|run| state.agent(&run.agent_id).is_none());
    let removed: Vec<_> = removed.map(|run| run.run_id.clone()).collect();
    for run_id in removed {
        let end = End::failed(failure::AGENT_REMOVED, "The agent was taken out of the group.");
        finish(turn, &run_id, end, true);
    }
}

/// Ends every run, whether it waits or works.
pub(crate) fn end_all(turn: &mut Turn<'_>, end: impl Fn() -> End) {
    let runs = turn.state().runs.iter().map(|run| run.run_id.clone()).collect::<Vec<_>>();
    for run_id in runs {
        finish(turn, &run_id, end(), true);
    }
}

/// Ends the runs that a deleted message woke and that have not begun.
pub(crate) fn end_unasked(turn: &mut Turn<'_>, trigger: &MessageId) {
    let runs = turn.state().runs.iter();
    let waiting = runs.filter(|run| run.trigger == *trigger && run.phase == Phase::Queued);
    for run_id in waiting.map(|run| run.run_id.clone()).collect::<Vec<_>>() {
        finish(turn, &run_id, End::unasked(), false);
    }
}

/// The run's current attempt, if `attempt` is it; anything else is late and changes nothing.
fn current(turn: &Turn<'_>, run_id: &RunId, attempt: u32) -> Option<Run> {
    turn.state().run(run_id).filter(|run| attempt > 0 && run.phase.attempt() == attempt).cloned()
}

/// More text of a reply.
pub(crate) fn text(turn: &mut Turn<'_>, run_id: &RunId, attempt: u32, offset: u64, text: String) {
    let Some(run) = current(turn, run_id, attempt) else { return };
    let so_far = turn.live.replies.get(run_id).map_or(0, String::len);
    if offset != so_far as u64 {
        let end = End::failed(failure::WORKER_CUT, "Part of the agent's answer was lost.");
        finish(turn, run_id, end, true);
        return;
    }
    if so_far + text.len() > MAX_REPLY_BYTES {
        let end = End::failed(failure::REPLY_TOO_LONG, "The agent's answer was too long.");
        finish(turn, run_id, end, true);
        return;
    }
    if text.is_empty() {
        return;
    }
    if matches!(run.phase, Phase::Thinking { .. }) {
        turn.emit(EventKind::RunStreaming { run_id: run_id.clone(), attempt });
    }
    let reply = turn.live.replies.entry(run_id.clone()).or_default();
    reply.push_str(&text);
    let bytes = reply.len();
    turn.checkpoint |= turn.live.checkpoints.grown(turn.now, run_id, bytes);
    turn.effects.push(Effect::Broadcast(GroupFrame::Delta {
        run_id: run_id.clone(),
        attempt,
        offset,
        text,
    }));
}

/// An attempt is over.
pub(crate) fn ended(turn: &mut Turn<'_>, run_id: &RunId, attempt: u32, end: RunEnd) {
    let Some(run) = current(turn, run_id, attempt) else { return };
    match end {
        RunEnd::Said(Outcome::Completed { usage }) => {
            let empty = turn.live.replies.get(run_id).is_none_or(|text| text.trim().is_empty());
            let end = if empty {
                End::failed(failure::EMPTY_REPLY, "The model ended its answer without a word.")
            } else {
                End { usage, ..End::of(RunStatus::Completed) }
            };
            finish(turn, run_id, end, false);
        }
        RunEnd::Said(Outcome::ToolRequested { .. }) => {
            let detail = "The agent asked for a tool that it does not have.";
            finish(turn, run_id, End::failed(failure::PROVIDER_ERROR, detail), false);
        }
        RunEnd::Said(Outcome::Failed { code, detail, retry_after_ms: _, usage }) => {
            finish(turn, run_id, End { usage, ..End::failed(code, detail) }, false);
        }
        RunEnd::Lost { code, detail } => lost(turn, &run, End::failed(code, detail)),
    }
}

/// The controller was rebuilt: nobody answers for the attempts that were under way.
pub(crate) fn recover(turn: &mut Turn<'_>) {
    let under_way = |run: &&Run| run.phase != Phase::Queued;
    let runs: Vec<_> = turn.state().runs.iter().filter(under_way).cloned().collect();
    for run in runs {
        let code = Some(failure::TOO_MANY_ATTEMPTS.to_owned());
        let detail = Some("The agent was interrupted too often.".to_owned());
        lost(turn, &run, End { code, detail, ..End::of(RunStatus::Interrupted) });
    }
}

/// An attempt was cut off. One that showed nothing is driven again, unless the message that woke it
/// is there no longer; one that had begun to answer is not, since its text cannot be taken back.
/// `exhausted` is how the last attempt ends the run.
fn lost(turn: &mut Turn<'_>, run: &Run, exhausted: End) {
    match run.phase {
        Phase::Queued => {}
        Phase::Thinking { .. } if !turn.state().remembers(&run.trigger) => {
            finish(turn, &run.run_id, End::unasked(), false);
        }
        Phase::Thinking { attempt, deadline } if attempt < MAX_ATTEMPTS => {
            start(turn, run, attempt + 1, deadline);
        }
        Phase::Thinking { .. } => finish(turn, &run.run_id, exhausted, false),
        Phase::Writing { .. } => {
            let mut end = End::of(RunStatus::Interrupted);
            end.detail = Some("The answer was cut off.".to_owned());
            finish(turn, &run.run_id, end, false);
        }
    }
}

/// Ends a run: its reply as far as it came and the one terminal event, in one commit.
pub(crate) fn finish(turn: &mut Turn<'_>, run_id: &RunId, end: End, abort: bool) {
    let Some(run) = turn.state().run(run_id).cloned() else { return };
    let attempt = run.phase.attempt();
    turn.live.checkpoints.end(run_id);
    let reply = turn.live.replies.remove(run_id).filter(|text| !text.trim().is_empty());
    let reply = reply.map(|text| reply_message(turn, &run, text));
    let message_id = reply.as_ref().map(|reply| reply.message_id.clone());
    // What was cut short wakes nobody: half a sentence is no request.
    let whole = reply.as_ref().filter(|_| end.status == RunStatus::Completed);
    let decided = whole.and_then(|reply| triggers::decide(turn, reply, None, turn.next_seq()));
    if let Some(reply) = reply {
        turn.emit(EventKind::MessagePosted(reply));
    }
    turn.emit(EventKind::RunFinished(RunFinished {
        run_id: run.run_id,
        attempt,
        agent_id: run.agent_id,
        trigger: run.trigger,
        status: end.status,
        message_id,
        code: end.code,
        detail: end.detail,
        usage: end.usage,
    }));
    if let Some(decided) = decided {
        turn.emit(EventKind::TriggerDecided(decided));
    }
    if abort && attempt > 0 {
        turn.effects.push(Effect::Abort { run_id: run_id.clone(), attempt });
    }
}

/// # Panics
/// Never: a run's id is short enough for the prefix.
fn reply_message(turn: &Turn<'_>, run: &Run, text: String) -> Posted {
    Posted {
        message_id: MessageId::new(format!("{REPLY_PREFIX}{}", run.run_id))
            .expect("a run's id and the prefix make an id"),
        author: Author::Agent(run.agent_id.clone()),
        root: run.root.clone(),
        hop: run.hop + 1,
        nth: turn.state().messages + 1,
        reply_to: None,
        run_id: Some(run.run_id.clone()),
        mentions: mention::participants(&text, &turn.state().config.agents),
        text,
    }
}

/// How the ids of agents' replies begin; nobody else may use it.
pub(crate) const REPLY_PREFIX: &str = "run_";
