//! Pins a message to the group or takes it off.

use convene_model::{
    Code, MessageId, Ref,
    event::{Author, EventKind, Pinned},
    limits::MAX_PINS,
};

use crate::{
    Address, Target,
    commands::{person, standing},
    controller::{Rejected, Turn},
};

pub(crate) fn pin(
    turn: &mut Turn<'_>,
    from: &Address,
    r#ref: &Ref,
    message_id: MessageId,
    on: bool,
    target: Option<Target>,
) -> Result<(), Rejected> {
    let author = Author::User(person(turn, from)?.user_id.clone());
    let target = standing(target)?;
    let pins = &turn.state().pins;
    let stands = pins.iter().any(|pin| pin.message_id == message_id);
    if on && !stands && pins.len() >= MAX_PINS {
        let detail = format!("a group has at most {MAX_PINS} pinned messages");
        return Err(Rejected::new(Code::ValidationFailed, detail));
    }
    let seq = (stands != on).then(|| {
        let pinned = Pinned { message_id: message_id.clone(), message_seq: target.seq, author };
        turn.emit(match on {
            true => EventKind::MessagePinned(pinned),
            false => EventKind::MessageUnpinned(pinned),
        })
    });
    turn.ok(from, r#ref, seq, Some(message_id));
    Ok(())
}
