//! Takes a connection off the group's stream.

use convene_model::{
    Code, Ref,
    frame::{DetachReason, GroupFrame},
};

use crate::{
    Address,
    controller::{Rejected, Turn},
};

pub(crate) fn detach(turn: &mut Turn<'_>, from: &Address, r#ref: &Ref) -> Result<(), Rejected> {
    if !turn.live.leave(turn.now, from) {
        return Err(Rejected::new(Code::NotAttached, ""));
    }
    turn.ok(from, r#ref, None, None);
    turn.send(
        from.clone(),
        GroupFrame::Detached { reason: DetachReason::Requested, user_id: None },
    );
    Ok(())
}
