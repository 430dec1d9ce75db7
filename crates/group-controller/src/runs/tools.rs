//! Calls of tools: those that an attempt tells of, and those that it hands over.

use convene_model::{
    ApprovalId, CallId,
    agents::{ToolRequest, ToolStatus, Usage, failure},
    event::{ApprovalRequested, EventKind, ToolFinished, ToolStarted, ToolsRequested},
    limits::{
        APPROVAL_TTL, MAX_ARGUMENT_BYTES, MAX_CONTINUATION_BYTES, MAX_SUMMARY_BYTES,
        MAX_TOOL_CALLS, MAX_TOOL_ROUNDS,
    },
};

use super::{End, current, dispatch::start, finish::finish};
use crate::{Phase, Run, controller::Turn, run::cut};

/// Calls that one run may begin: a worker keeps to the rounds and to the calls of each.
const MAX_CALLS_OF_RUN: u32 = MAX_TOOL_ROUNDS * MAX_TOOL_CALLS as u32;

/// An attempt began a call. One that was handed over is recorded already.
pub(crate) fn call_started(turn: &mut Turn<'_>, started: ToolStarted) {
    let ToolStarted { run_id, attempt, call_id, tool, arguments } = started;
    let Some(run) = current(turn, &run_id, attempt) else { return };
    if run.knows(&call_id) {
        return;
    }
    if run.work.begun >= MAX_CALLS_OF_RUN {
        return too_many(turn, &run);
    }
    let arguments = cut(&arguments, MAX_ARGUMENT_BYTES).to_owned();
    turn.emit(EventKind::ToolStarted(ToolStarted { run_id, attempt, call_id, tool, arguments }));
}

/// A call of an attempt ended; one that is not under way is passed over.
pub(crate) fn call_finished(turn: &mut Turn<'_>, finished: ToolFinished) {
    let ToolFinished { run_id, attempt, call_id, status, summary } = finished;
    let run = current(turn, &run_id, attempt);
    if run.is_none_or(|run| !run.work.open.contains(&call_id)) {
        return;
    }
    let summary = cut(&summary, MAX_SUMMARY_BYTES).to_owned();
    turn.emit(EventKind::ToolFinished(ToolFinished { run_id, attempt, call_id, status, summary }));
}

/// Records of the calls that a run has begun and that have not ended that nobody knows what became
/// of them.
pub(super) fn cut_off(turn: &mut Turn<'_>, run: &Run) {
    for call_id in run.work.open.clone() {
        let summary = "It was cut off; nobody knows whether it took effect.";
        finished_by_us(turn, run, call_id, ToolStatus::Unknown, summary);
    }
}

/// Records how a call ended that no attempt tells of.
pub(super) fn finished_by_us(
    turn: &mut Turn<'_>,
    run: &Run,
    call_id: CallId,
    status: ToolStatus,
    summary: &str,
) {
    turn.emit(EventKind::ToolFinished(ToolFinished {
        run_id: run.run_id.clone(),
        attempt: run.work.attempt,
        call_id,
        status,
        summary: summary.to_owned(),
    }));
}

/// An attempt ended with calls that may change something. Where nobody has to permit one, the next
/// attempt makes them at once; otherwise the run waits.
pub(super) fn requested(
    turn: &mut Turn<'_>,
    run: &Run,
    calls: Vec<ToolRequest>,
    continuation: String,
    usage: Option<Usage>,
) {
    let begun = run.work.begun + calls.len().try_into().unwrap_or(u32::MAX);
    if run.work.rounds >= MAX_TOOL_ROUNDS
        || calls.len() > MAX_TOOL_CALLS
        || begun > MAX_CALLS_OF_RUN
        || continuation.len() > MAX_CONTINUATION_BYTES
    {
        return too_many(turn, run);
    }
    if let Err(detail) = check(run, &calls) {
        let end = End { usage, ..End::failed(failure::PROVIDER_ERROR, detail) };
        return finish(turn, &run.run_id, end, false);
    }
    if !turn.state().remembers(&run.trigger) {
        // Nothing is changed for somebody who took back what was asked for.
        let end = End { usage, ..End::unasked() };
        return finish(turn, &run.run_id, end, false);
    }
    // The attempt says nothing more of what it had begun.
    cut_off(turn, run);
    let said = turn.live.reply(run).to_owned();
    turn.emit(EventKind::ToolsRequested(ToolsRequested {
        run_id: run.run_id.clone(),
        attempt: run.phase.attempt(),
        calls: calls.clone(),
        usage,
        continuation,
        said,
    }));
    // The state has it from here on.
    turn.live.replies.remove(&run.run_id);
    for call in calls {
        ask(turn, run, call);
    }
    let handed = turn.state().run(&run.run_id).cloned();
    if let Some(run) = handed.filter(|run| run.phase == Phase::Queued) {
        // It goes on where it was: nobody else has a claim to its place.
        start(turn, &run);
    }
}

fn check(run: &Run, calls: &[ToolRequest]) -> Result<(), &'static str> {
    if calls.is_empty() {
        return Err("The agent asked for tools and named none.");
    }
    for (index, call) in calls.iter().enumerate() {
        if call.arguments.len() > MAX_ARGUMENT_BYTES {
            return Err("What the agent wants to pass to a tool is too long.");
        }
        let others = &calls[..index];
        if run.knows(&call.call_id) || others.iter().any(|other| other.call_id == call.call_id) {
            return Err("The agent named two calls the same.");
        }
    }
    Ok(())
}

/// # Panics
/// Never: a number and two letters make an id.
fn ask(turn: &mut Turn<'_>, run: &Run, call: ToolRequest) {
    let Some(who) = call.approvers else { return };
    let approval_id = ApprovalId::new(format!("ap{}", turn.next_seq()))
        .expect("two letters and a number make an id");
    turn.emit(EventKind::ApprovalRequested(ApprovalRequested {
        approval_id,
        run_id: run.run_id.clone(),
        agent_id: run.agent_id.clone(),
        call_id: call.call_id,
        tool: call.tool,
        arguments: call.arguments,
        hash: call.hash,
        who,
        initiator: run.initiator.clone(),
        expires_at: turn.now + APPROVAL_TTL,
    }));
}

fn too_many(turn: &mut Turn<'_>, run: &Run) {
    let end = End::failed(failure::TOO_MANY_TOOL_CALLS, "The agent asked for tools too often.");
    finish(turn, &run.run_id, end, true);
}
