//! What an attempt says, and how it is over.

use convene_model::{
    RunId,
    agents::{Outcome, Usage, failure},
    event::{EventKind, RunStatus},
    frame::GroupFrame,
    limits::{MAX_ATTEMPTS, MAX_REPLY_BYTES},
};

use super::{End, current, dispatch::start, finish::finish, tools};
use crate::{Effect, Phase, Run, RunEnd, budget, controller::Turn, outside};

/// More text of a reply.
pub(crate) fn text(turn: &mut Turn<'_>, run_id: &RunId, attempt: u32, offset: u64, text: String) {
    let Some(run) = current(turn, run_id, attempt) else { return };
    let so_far = turn.live.reply(&run).len();
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
    turn.checkpoint |= turn.live.say(turn.now, &run, &text);
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
            let end = if turn.live.reply(&run).trim().is_empty() {
                End::failed(failure::EMPTY_REPLY, "The model ended its answer without a word.")
            } else {
                End { usage, ..End::of(RunStatus::Completed) }
            };
            finish(turn, run_id, end, false);
        }
        RunEnd::Said(Outcome::ToolRequested { calls, continuation, usage }) => {
            tools::requested(turn, &run, calls, continuation, usage);
        }
        RunEnd::Said(Outcome::Failed { code, detail, retry_after_ms: _, usage }) => {
            finish(turn, run_id, End { usage, ..End::failed(code, detail) }, false);
        }
        RunEnd::Lost { code, detail, may_have_begun } => {
            lost(turn, &run, End::failed(code, detail), may_have_begun);
        }
    }
}

/// The controller was rebuilt: nobody answers for the attempts that were under way.
pub(crate) fn recover(turn: &mut Turn<'_>) {
    let under_way = turn.state().runs.iter().filter(|run| run.phase.works());
    for run in under_way.cloned().collect::<Vec<_>>() {
        let code = Some(failure::TOO_MANY_ATTEMPTS.to_owned());
        let detail = Some("The agent was interrupted too often.".to_owned());
        lost(turn, &run, End { code, detail, ..End::of(RunStatus::Interrupted) }, true);
    }
}

/// An attempt was cut off. One that showed no text is driven again, unless the message that woke it
/// is there no longer; one that had begun to answer is not, since its text cannot be taken back.
/// What it may use is asked for anew, since nobody knows what the lost attempt has used.
/// What it had begun to do is not done again: of a call that had not ended nobody knows whether it
/// took effect. `exhausted` is how the last attempt ends the run.
pub(crate) fn lost(turn: &mut Turn<'_>, run: &Run, exhausted: End, may_have_begun: bool) {
    // One that did not begin has used nothing beside those before it.
    let before = if run.work.rounds == 0 { Some(Usage::default()) } else { run.work.usage };
    let exhausted = if may_have_begun { exhausted } else { End { usage: before, ..exhausted } };
    match run.phase {
        Phase::Queued | Phase::Waiting => {}
        Phase::Thinking { .. } if !turn.state().remembers(&run.trigger) => {
            finish(turn, &run.run_id, End::unasked(), false);
        }
        Phase::Thinking { .. } if run.work.lost + 1 < MAX_ATTEMPTS => {
            if may_have_begun {
                tools::cut_off(turn, run);
            }
            let run = turn.state().run(&run.run_id).cloned();
            match run {
                // The model of an outside agent is its owner's to pay for.
                Some(run) if outside::is_outside(turn, &run.agent_id) => start(turn, &run),
                Some(run) => budget::begin_again(turn, &run, may_have_begun),
                None => {}
            }
        }
        Phase::Thinking { .. } => finish(turn, &run.run_id, exhausted, false),
        Phase::Writing { .. } => {
            let end = End::of(RunStatus::Interrupted).because("The answer was cut off.");
            finish(turn, &run.run_id, end, false);
        }
    }
}
