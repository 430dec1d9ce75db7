//! Replaces the text of one's own message. Nobody rewords another's message, whatever the role.

use convene_model::{
    Code, MessageId, Ref,
    event::{Author, Edited, EventKind},
};

use crate::{
    Address, Target,
    commands::{attached, check_text, standing},
    controller::{Rejected, Turn},
};

pub(crate) fn edit(
    turn: &mut Turn<'_>,
    from: &Address,
    r#ref: &Ref,
    message_id: MessageId,
    text: String,
    target: Option<Target>,
) -> Result<(), Rejected> {
    let author = Author::User(attached(turn, from)?.claims.user_id.clone());
    check_text(&text)?;
    let target = standing(target)?;
    if target.author != author {
        return Err(Rejected::new(Code::Forbidden, "a message is edited by its author only"));
    }
    let seq = (target.text != text).then(|| {
        turn.emit(EventKind::MessageEdited(Edited {
            message_id: message_id.clone(),
            message_seq: target.seq,
            author,
            text,
        }))
    });
    turn.ok(from, r#ref, seq, Some(message_id));
    Ok(())
}
