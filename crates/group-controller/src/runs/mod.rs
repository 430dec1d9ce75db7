//! The life of a run: dispatched, streaming, handed over, waiting, finished exactly once.

mod approvals;
mod attempt;
mod dispatch;
mod finish;
mod tools;

pub(crate) use approvals::{decide, expire};
pub(crate) use attempt::{ended, lost, recover, text};
pub(crate) use dispatch::{dispatch, start, start_under};
pub(crate) use finish::{End, end_all, end_removed, end_unasked, finish};
pub(crate) use tools::{call_finished, call_started};

use convene_model::RunId;

use crate::{Run, controller::Turn};

/// How the ids of agents' replies begin; nobody else may use it.
pub(crate) const REPLY_PREFIX: &str = "run_";

/// The run whose current attempt `attempt` is; anything else is late and changes nothing.
fn current(turn: &Turn<'_>, run_id: &RunId, attempt: u32) -> Option<Run> {
    turn.state().run(run_id).filter(|run| attempt > 0 && run.phase.attempt() == attempt).cloned()
}
