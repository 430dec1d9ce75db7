//! Says that somebody is writing: to everybody, now and then, and nowhere else.

use convene_model::frame::GroupFrame;

use crate::{Address, Effect, controller::Turn};

/// Never refused, since the frame has no answer: of somebody who is not attached, or who said it a
/// moment ago, it is passed over.
pub(crate) fn typing(turn: &mut Turn<'_>, from: &Address) {
    let Some(access) = turn.live.access(from) else { return };
    let user_id = access.claims.user_id.clone();
    if turn.live.presence.types(turn.now, &user_id) {
        turn.effects.push(Effect::Broadcast(GroupFrame::Typing { user_id }));
    }
}
