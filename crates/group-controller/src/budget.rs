//! Leave to start runs and summaries, from the organization's budget.
//!
//! Owns when they ask, and what an answer means: without leave nothing starts. What is known of the
//! budget lives in memory only; a controller that is rebuilt asks again for the runs that wait, which
//! hold what they held. How much is left, and who says so, is never known here.

use convene_model::{
    RunId,
    agents::failure,
    limits::{EXHAUSTED_FOR, RUN_TOKENS},
};

use crate::{
    Effect, Leave, Phase, Run, compaction,
    controller::Turn,
    runs::{self, End},
};

/// Starts a waiting run, or asks for leave to.
pub(crate) fn begin(turn: &mut Turn<'_>, run: &Run) {
    let budget = &mut turn.live.budget;
    if budget.granted.remove(&run.run_id) || budget.unlimited_until > turn.now {
        return runs::start(turn, run);
    }
    budget.asked.insert(run.run_id.clone());
    turn.effects.push(Effect::Reserve { run_id: run.run_id.clone(), tokens: RUN_TOKENS });
}

/// The answer has come. One for a run that waits no longer gives back what is held.
pub(crate) fn answered(turn: &mut Turn<'_>, run_id: &RunId, leave: Leave) {
    if compaction::answered(turn, run_id, leave) {
        return;
    }
    let waits = turn.live.budget.asked.remove(run_id)
        && turn.state().run(run_id).is_some_and(|run| run.phase == Phase::Queued);
    let why = match leave {
        Leave::Granted if waits => {
            turn.live.budget.granted.insert(run_id.clone());
            return;
        }
        Leave::Granted if turn.state().run(run_id).is_none() => {
            turn.effects.push(Effect::Unused { run_id: run_id.clone() });
            return;
        }
        Leave::Granted => return,
        Leave::Refused => {
            turn.live.budget.exhausted_until = turn.now + EXHAUSTED_FOR;
            let detail = "The workspace's budget for this month has no room for the run.";
            End::failed(failure::BUDGET_EXHAUSTED, detail)
        }
        Leave::Unknown => {
            let detail =
                "Whether the workspace's budget has room for the run could not be found out.";
            End::failed(failure::BUDGET_UNAVAILABLE, detail)
        }
    };
    if waits {
        runs::finish(turn, run_id, why, false);
    }
}

/// A run has ended: one that waited with leave has used nothing of it.
pub(crate) fn ended(turn: &mut Turn<'_>, run_id: &RunId) {
    turn.live.budget.asked.remove(run_id);
    turn.live.budget.granted.remove(run_id);
}
