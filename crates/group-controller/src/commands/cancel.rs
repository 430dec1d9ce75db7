//! Stops a run, whether it waits or works; what it has written so far stays.

use convene_model::{Code, Ref, RunId, event::RunStatus};

use crate::{
    Address,
    commands::person,
    controller::{Rejected, Turn},
    runs::{self, End},
};

pub(crate) fn cancel(
    turn: &mut Turn<'_>,
    from: &Address,
    r#ref: &Ref,
    run_id: &RunId,
) -> Result<(), Rejected> {
    person(turn, from)?;
    if turn.state().run(run_id).is_none() {
        return Err(Rejected::new(Code::RunNotFound, ""));
    }
    runs::finish(turn, run_id, End::of(RunStatus::Cancelled), true);
    let seq = turn.state().seq();
    turn.ok(from, r#ref, Some(seq), None);
    Ok(())
}
