//! How a run ends, and what ends runs: its reply as far as it came and the one terminal event, in
//! one commit.

use convene_model::{
    MessageId, RunId,
    agents::{Usage, failure},
    event::{ApprovalExpired, Author, EventKind, Posted, RunFinished, RunStatus},
};

use super::{REPLY_PREFIX, tools};
use crate::{Effect, Run, budget, controller::Turn, mention, triggers};

/// How a run ends.
pub(crate) struct End {
    pub(super) status: RunStatus,
    pub(super) code: Option<String>,
    pub(super) detail: Option<String>,
    pub(super) usage: Option<Usage>,
}

impl End {
    pub(crate) fn of(status: RunStatus) -> Self {
        Self { status, code: None, detail: None, usage: None }
    }

    pub(crate) fn because(self, detail: &str) -> Self {
        Self { detail: Some(detail.to_owned()), ..self }
    }

    /// The message that woke the run is there no longer.
    pub(super) fn unasked() -> Self {
        Self::of(RunStatus::Cancelled).because("The message that it answers was deleted.")
    }

    pub(crate) fn failed(code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { code: Some(code.into()), detail: Some(detail.into()), ..Self::of(RunStatus::Failed) }
    }
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

/// Ends the runs that a deleted message woke and that are not under way.
pub(crate) fn end_unasked(turn: &mut Turn<'_>, trigger: &MessageId) {
    let runs = turn.state().runs.iter();
    let waiting = runs.filter(|run| run.trigger == *trigger && !run.phase.works());
    for run_id in waiting.map(|run| run.run_id.clone()).collect::<Vec<_>>() {
        finish(turn, &run_id, End::unasked(), false);
    }
}

/// Ends a run: what it asked for expires, what it had begun to do is recorded as unknown, then its
/// reply as far as it came and the one terminal event.
pub(crate) fn finish(turn: &mut Turn<'_>, run_id: &RunId, end: End, abort: bool) {
    let Some(run) = turn.state().run(run_id).cloned() else { return };
    let approvals = turn.state().approvals.of_run(run_id);
    let approvals: Vec<_> =
        approvals.map(|approval| approval.requested.approval_id.clone()).collect();
    for approval_id in approvals {
        let run_id = run_id.clone();
        turn.emit(EventKind::ApprovalExpired(ApprovalExpired { approval_id, run_id }));
    }
    tools::cut_off(turn, &run);
    // Of an attempt that was cut short nobody knows what it used beside those before it.
    let before = run
        .work
        .usage
        .map(|usage| Usage { tokens_unknown: usage.tokens_unknown || run.phase.works(), ..usage });
    let usage = end.usage.or(before);
    turn.live.claims.remove(run_id);
    let reply = turn.live.take_reply(&run);
    let reply = (!reply.trim().is_empty()).then(|| reply_message(turn, &run, reply));
    let message_id = reply.as_ref().map(|reply| reply.message_id.clone());
    // What was cut short wakes nobody: half a sentence is no request.
    let whole = reply.as_ref().filter(|_| end.status == RunStatus::Completed);
    let decided =
        whole.and_then(|reply| triggers::decide(turn, reply, run.round + 1, None, turn.next_seq()));
    if let Some(reply) = reply {
        turn.emit(EventKind::MessagePosted(reply));
    }
    turn.emit(EventKind::RunFinished(RunFinished {
        run_id: run.run_id,
        attempt: run.work.attempt,
        agent_id: run.agent_id,
        trigger: run.trigger,
        status: end.status,
        message_id,
        code: end.code,
        detail: end.detail,
        usage,
        reservation: run.work.reservation,
    }));
    if let Some(decided) = decided {
        turn.emit(EventKind::TriggerDecided(decided));
    }
    budget::ended(turn, run_id);
    if abort && run.phase.works() {
        let attempt = run.phase.attempt();
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
