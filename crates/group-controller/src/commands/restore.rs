//! Lets a group go on that came back from its snapshot: it stands still, as its last event says,
//! until this says under which epoch it goes on.

use convene_model::{
    Code,
    event::{EventKind, Unfrozen},
};

use crate::controller::{Rejected, Turn};

pub(crate) fn restore(turn: &mut Turn<'_>, epoch: u64) -> Result<(), Rejected> {
    let state = turn.state();
    let held = state.identity.epoch;
    let Some(archive_id) = state.frozen.clone() else {
        return Err(Rejected::new(Code::IllegalTransition, "the group does not stand still"));
    };
    if epoch <= held {
        let detail = format!("the group was frozen under epoch {held}");
        return Err(Rejected::new(Code::StaleEpoch, detail));
    }
    turn.emit(EventKind::GroupRestored(Unfrozen { archive_id, epoch }));
    Ok(())
}
