//! Leave to start runs and summaries, from the organization's budget.
//!
//! Owns when they ask, and what an answer means: without leave nothing starts. What is known of the
//! budget lives in memory only; a controller that is rebuilt asks again for the runs that wait, which
//! hold what they held. How much is left, and who says so, is never known here.
//!
//! What a run holds is for its attempts together: each goes on with what those before it left, as they say
//! when they hand calls over. Of an attempt that was cut off nobody knows what it used: all of it counts, and
//! the next attempt starts with a reservation of its own, if there is room for one.

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

/// Between a run's id and the attempt that holds anew; no run's id has it.
const SEPARATOR: char = '_';

/// The name under which a run's next attempt holds what it may use, after one that was cut off.
///
/// # Panics
/// Never: a run's id is two numbers.
fn anew(run: &Run) -> RunId {
    let name = format!("{}{SEPARATOR}{}", run.run_id, run.next_attempt());
    RunId::new(name).expect("a run's id and a number make an id")
}

/// The run that asks under a name for what its next attempt needs.
fn run_of(turn: &Turn<'_>, name: &RunId) -> Option<Run> {
    let run_id = name.as_str().split(SEPARATOR).next().unwrap_or_default();
    turn.state().runs.iter().find(|run| run.run_id.as_str() == run_id).cloned()
}

/// Starts a waiting run, or asks for leave to.
pub(crate) fn begin(turn: &mut Turn<'_>, run: &Run) {
    let budget = &mut turn.live.budget;
    if budget.granted.remove(&run.run_id) || budget.unlimited_until > turn.now {
        return runs::start(turn, run);
    }
    budget.asked.insert(run.run_id.clone());
    turn.effects.push(Effect::Reserve { run_id: run.run_id.clone(), tokens: RUN_TOKENS });
}

/// Starts the next attempt of a run whose attempt was cut off, or asks for leave to: what that one held is
/// used, unless it did not begin.
pub(crate) fn begin_again(turn: &mut Turn<'_>, run: &Run, may_have_begun: bool) {
    if !may_have_begun {
        return runs::start(turn, run);
    }
    let held = run.work.reservation.clone().unwrap_or_else(|| run.run_id.clone());
    turn.effects.push(Effect::Spent { run_id: held, usage: None });
    let name = anew(run);
    if turn.live.budget.unlimited_until > turn.now {
        return runs::start_under(turn, run, Some(name));
    }
    turn.live.budget.asked.insert(name.clone());
    turn.effects.push(Effect::Reserve { run_id: name, tokens: RUN_TOKENS });
}

/// The answer has come. One for a run that waits no longer gives back what is held.
pub(crate) fn answered(turn: &mut Turn<'_>, run_id: &RunId, leave: Leave) {
    if compaction::answered(turn, run_id, leave) {
        return;
    }
    let asked = turn.live.budget.asked.remove(run_id);
    let Some(run) = run_of(turn, run_id) else {
        if leave == Leave::Granted {
            turn.effects.push(Effect::Unused { run_id: run_id.clone() });
        }
        if leave == Leave::Refused {
            turn.live.budget.exhausted_until = turn.now + EXHAUSTED_FOR;
        }
        return;
    };
    let goes_on = run.phase.works() && *run_id == anew(&run);
    let waits = asked && (run.phase == Phase::Queued || goes_on);
    let why = match leave {
        Leave::Granted if waits && goes_on => {
            return runs::start_under(turn, &run, Some(run_id.clone()));
        }
        Leave::Granted if waits => {
            turn.live.budget.granted.insert(run_id.clone());
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
        runs::finish(turn, &run.run_id, why, false);
    }
}

/// A run has ended: one that waited with leave has used nothing of it.
pub(crate) fn ended(turn: &mut Turn<'_>, run_id: &RunId) {
    let of_it = |name: &RunId| name.as_str().split(SEPARATOR).next() == Some(run_id.as_str());
    turn.live.budget.asked.retain(|name| !of_it(name));
    turn.live.budget.granted.remove(run_id);
}
