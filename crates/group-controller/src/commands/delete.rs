//! Takes a message back: one's own, or anybody's for those who manage the workspace.

use convene_model::{
    Code, MessageId, Ref,
    event::{Author, Deleted, EventKind},
};

use crate::{
    Address, Target,
    commands::attached,
    controller::{Rejected, Turn},
    runs,
};

pub(crate) fn delete(
    turn: &mut Turn<'_>,
    from: &Address,
    r#ref: &Ref,
    message_id: MessageId,
    target: Option<Target>,
) -> Result<(), Rejected> {
    let claims = &attached(turn, from)?.claims;
    let author = Author::User(claims.user_id.clone());
    let target = target.ok_or_else(|| Rejected::new(Code::MessageNotFound, ""))?;
    if target.author != author && !claims.role.manages() {
        return Err(Rejected::new(
            Code::Forbidden,
            "a message is deleted by its author, an owner or an admin",
        ));
    }
    let seq = (!target.deleted).then(|| {
        let message_id = message_id.clone();
        turn.emit(EventKind::MessageDeleted(Deleted {
            message_id,
            message_seq: target.seq,
            author,
        }))
    });
    if seq.is_some() {
        runs::end_unasked(turn, &message_id);
    }
    turn.ok(from, r#ref, seq, Some(message_id));
    Ok(())
}
