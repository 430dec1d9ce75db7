//! Brings a group to life; an equal repeat is success, a higher epoch is taken over.

use convene_model::{
    Code, GroupId, HistoryId, OrgId,
    event::{Activated, EventKind},
    frame::{DetachReason, GroupFrame},
    infra::HistoryMode,
};

use crate::controller::{Rejected, Turn};

pub(crate) fn init(
    turn: &mut Turn<'_>,
    group_id: GroupId,
    org_id: OrgId,
    history_mode: HistoryMode,
    epoch: u64,
    history: HistoryId,
) -> Result<(), Rejected> {
    if history_mode == HistoryMode::External {
        return Err(Rejected::new(Code::HistoryModeUnsupported, ""));
    }
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
    if epoch > identity.epoch {
        turn.emit(EventKind::EpochRaised { epoch });
        for address in turn.live.expel_all() {
            turn.send(
                address,
                GroupFrame::Detached { reason: DetachReason::EpochRaised, user_id: None },
            );
        }
    }
    Ok(())
}
