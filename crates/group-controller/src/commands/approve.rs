//! Decides about a call that an agent wants to make: who may is bound to the approval, and so is what
//! is decided about.

use convene_model::{ApprovalId, Code, Ref, event::ApprovalDecision};

use crate::{
    Address,
    commands::person,
    controller::{Rejected, Turn},
    runs,
};

pub(crate) fn approve(
    turn: &mut Turn<'_>,
    from: &Address,
    r#ref: &Ref,
    approval_id: &ApprovalId,
    decision: ApprovalDecision,
) -> Result<(), Rejected> {
    let claims = person(turn, from)?;
    let (user_id, role) = (claims.user_id.clone(), claims.role);
    let approvals = &turn.state().approvals;
    let Some(approval) = approvals.find(approval_id).cloned() else {
        let closed = approvals.closed(approval_id);
        let closed = closed.ok_or_else(|| Rejected::new(Code::ApprovalNotFound, ""))?;
        return match &closed.decided {
            // Sent again after a lost answer.
            Some(decided) if *decided == (user_id, decision) => {
                turn.ok(from, r#ref, None, None);
                Ok(())
            }
            Some(_) => Err(Rejected::new(Code::ApprovalDecided, "")),
            None => Err(Rejected::new(Code::ApprovalExpired, "")),
        };
    };
    let requested = &approval.requested;
    if !requested.who.admits(&user_id, role, requested.initiator.as_ref()) {
        return Err(Rejected::new(Code::NotPermitted, ""));
    }
    let seq = runs::decide(turn, &approval, user_id, decision);
    turn.ok(from, r#ref, seq, None);
    Ok(())
}
