//! Lets a group go on that was to be archived, under the higher epoch that its directory has given
//! it; an equal repeat is success. A group that was never frozen takes over the epoch, so that a
//! freeze which comes late finds itself outdated.

use convene_model::{
    ArchiveId, Code,
    event::{EventKind, Unfrozen},
};

use crate::{
    commands::raise_epoch,
    controller::{Rejected, Turn},
};

pub(crate) fn thaw(turn: &mut Turn<'_>, archive_id: ArchiveId, epoch: u64) -> Result<(), Rejected> {
    let state = turn.state();
    let held = state.identity.epoch;
    if epoch < held {
        return Err(Rejected::new(Code::StaleEpoch, format!("the epoch is {held}")));
    }
    match state.frozen.clone() {
        Some(frozen) if epoch == held || frozen != archive_id => {
            let detail = format!("the group is frozen for {frozen} under epoch {held}");
            Err(Rejected::new(Code::IllegalTransition, detail))
        }
        Some(_) => {
            turn.emit(EventKind::GroupThawed(Unfrozen { archive_id, epoch }));
            Ok(())
        }
        None => {
            if epoch > held {
                raise_epoch(turn, epoch);
            }
            Ok(())
        }
    }
}
