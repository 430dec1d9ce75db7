//! Voids a user's routing tokens issued until now and detaches all of the user's connections: every
//! upstream is told before anything that comes later, and the user is present no longer.

use convene_model::{
    UserId,
    event::EventKind,
    frame::{DetachReason, GroupFrame},
};

use crate::{
    Effect,
    controller::{Rejected, Turn},
};

pub(crate) fn revoke(turn: &mut Turn<'_>, user_id: UserId) -> Result<(), Rejected> {
    let left = turn.live.expel(&user_id);
    turn.emit(EventKind::AccessRevoked { user_id: user_id.clone() });
    turn.effects.push(Effect::Broadcast(GroupFrame::Detached {
        reason: DetachReason::Revoked,
        user_id: Some(user_id),
    }));
    turn.effects.extend(left.map(Effect::Broadcast));
    Ok(())
}
