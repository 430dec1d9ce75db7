//! Makes a group stand still, so that it can be archived: its runs end as interrupted, everybody is
//! detached, and from the event on nothing happens in it until it is thawed, restored or wiped.
//!
//! Equal repeats are success. A higher epoch than the one under which the group stands still says
//! that the attempt before was given up: the group is thawed, then frozen anew.

use convene_model::{
    ArchiveId, Code,
    event::{EventKind, RunStatus, Unfrozen},
    frame::{DetachReason, GroupFrame},
};

use crate::{
    controller::{Rejected, Turn},
    runs::{self, End},
};

pub(crate) fn freeze(
    turn: &mut Turn<'_>,
    archive_id: ArchiveId,
    epoch: u64,
) -> Result<(), Rejected> {
    let state = turn.state();
    let held = state.identity.epoch;
    if epoch < held {
        return Err(Rejected::new(Code::StaleEpoch, format!("the epoch is {held}")));
    }
    match state.frozen.clone() {
        Some(frozen) if epoch == held => {
            if frozen == archive_id {
                return Ok(());
            }
            let detail = format!("the group is frozen for {frozen} under epoch {held}");
            return Err(Rejected::new(Code::IllegalTransition, detail));
        }
        Some(archive_id) => {
            turn.emit(EventKind::GroupThawed(Unfrozen { archive_id, epoch }));
        }
        None if epoch > held => {
            turn.emit(EventKind::EpochRaised { epoch });
        }
        None => {}
    }
    runs::end_all(turn, || {
        End::of(RunStatus::Interrupted).because("The group was archived before the agent was done.")
    });
    turn.emit(EventKind::GroupFrozen { archive_id });
    for address in turn.live.expel_all() {
        turn.send(
            address,
            GroupFrame::Detached { reason: DetachReason::GroupArchived, user_id: None },
        );
    }
    Ok(())
}
