//! Brings a group to life; an equal repeat is success, a higher epoch is taken over.
//!
//! A group keeps the history mode that it came to life with. Whether there is a service for an external
//! one is the host's to know.

use convene_model::{
    Code, GroupId, HistoryId, OrgId,
    event::{Activated, EventKind, Unfrozen},
    infra::HistoryMode,
};

use crate::{
    commands::raise_epoch,
    controller::{Rejected, Turn},
};

pub(crate) fn init(
    turn: &mut Turn<'_>,
    group_id: GroupId,
    org_id: OrgId,
    history_mode: HistoryMode,
    epoch: u64,
    history: HistoryId,
) -> Result<(), Rejected> {
    let Some(state) = turn.existing() else {
        let activated = Activated { group_id, org_id, history_mode, epoch, history };
        turn.emit(EventKind::GroupActivated(activated));
        return Ok(());
    };
    let identity = &state.identity;
    if identity.group_id != group_id || identity.org_id != org_id {
        return Err(Rejected::new(Code::OrgMismatch, ""));
    }
    if epoch < identity.epoch {
        return Err(Rejected::new(Code::StaleEpoch, format!("the epoch is {}", identity.epoch)));
    }
    match state.frozen.clone() {
        // Whoever has a higher epoch has taken the group back from whoever archived it.
        Some(archive_id) if epoch > identity.epoch => {
            turn.emit(EventKind::GroupThawed(Unfrozen { archive_id, epoch }));
        }
        Some(_) => return Err(Rejected::new(Code::GroupArchived, "the group is being archived")),
        None if epoch > identity.epoch => raise_epoch(turn, epoch),
        None => {}
    }
    Ok(())
}
