//! Decisions about calls: given by people, or by the clock.

use convene_model::{
    UserId,
    agents::{ToolStatus, failure},
    event::{ApprovalDecision, ApprovalResolved, ApprovalVoted, EventKind},
    frame::ApprovalView,
};

use super::{End, finish::finish, tools};
use crate::controller::Turn;

/// What a user who may decide has decided about an open approval; the number of its event, if it led
/// to one.
pub(crate) fn decide(
    turn: &mut Turn<'_>,
    approval: &ApprovalView,
    user_id: UserId,
    decision: ApprovalDecision,
) -> Option<u64> {
    let ApprovalView { requested, votes } = approval;
    let (approval_id, run_id) = (requested.approval_id.clone(), requested.run_id.clone());
    match decision {
        ApprovalDecision::Approve => {
            if votes.contains(&user_id) {
                return None;
            }
            let missing = requested.who.needed().saturating_sub(votes.len() + 1);
            if missing > 0 {
                let missing = missing.try_into().unwrap_or(u32::MAX);
                let voted = ApprovalVoted { approval_id, run_id, user_id, missing };
                return Some(turn.emit(EventKind::ApprovalVoted(voted)));
            }
            let resolved = ApprovalResolved { approval_id, run_id, decision, user_id };
            Some(turn.emit(EventKind::ApprovalResolved(resolved)))
        }
        ApprovalDecision::Deny => {
            let resolved = ApprovalResolved { approval_id, run_id, decision, user_id };
            let seq = turn.emit(EventKind::ApprovalResolved(resolved));
            if let Some(run) = turn.state().run(&requested.run_id).cloned() {
                let call_id = requested.call_id.clone();
                let summary = "It was not permitted.";
                tools::finished_by_us(turn, &run, call_id, ToolStatus::Denied, summary);
            }
            Some(seq)
        }
    }
}

/// Ends the runs that waited too long for an approval.
pub(crate) fn expire(turn: &mut Turn<'_>) {
    let now = turn.now;
    let open = turn.state().approvals.open.iter();
    let due = open.filter(|approval| approval.requested.expires_at <= now);
    for run_id in due.map(|approval| approval.requested.run_id.clone()).collect::<Vec<_>>() {
        let detail = "Nobody decided in time about what the agent wanted to do.";
        finish(turn, &run_id, End::failed(failure::APPROVAL_EXPIRED, detail), false);
    }
}
