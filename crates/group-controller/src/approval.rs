//! The approvals of a group: those that are open, and what became of the last ones.

use std::collections::VecDeque;

use convene_model::{
    ApprovalId, RunId, Timestamp, UserId,
    event::{
        ApprovalDecision, ApprovalExpired, ApprovalRequested, ApprovalResolved, ApprovalVoted,
    },
    frame::ApprovalView,
    limits::MAX_CLOSED_APPROVALS,
};
use serde::{Deserialize, Serialize};

/// The approvals of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Approvals {
    /// Those that nobody has decided, in the order in which they were asked for.
    pub(crate) open: Vec<ApprovalView>,
    /// What became of the last others, at most [`MAX_CLOSED_APPROVALS`], oldest first.
    closed: VecDeque<Closed>,
}

/// An approval that is open no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Closed {
    approval_id: ApprovalId,
    /// Whose decision was the last, and which; `None` when it expired.
    pub(crate) decided: Option<(UserId, ApprovalDecision)>,
}

impl Approvals {
    pub(crate) fn of_run(&self, run_id: &RunId) -> impl Iterator<Item = &ApprovalView> {
        self.open.iter().filter(move |approval| approval.requested.run_id == *run_id)
    }

    pub(crate) fn find(&self, approval_id: &ApprovalId) -> Option<&ApprovalView> {
        self.open.iter().find(|approval| approval.requested.approval_id == *approval_id)
    }

    pub(crate) fn closed(&self, approval_id: &ApprovalId) -> Option<&Closed> {
        self.closed.iter().find(|closed| closed.approval_id == *approval_id)
    }

    /// When the first of them expires.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.open.iter().map(|approval| approval.requested.expires_at).min()
    }

    pub(crate) fn ask(&mut self, requested: &ApprovalRequested) {
        self.open.push(ApprovalView { requested: requested.clone(), votes: Vec::new() });
    }

    pub(crate) fn vote(&mut self, voted: &ApprovalVoted) {
        let approval =
            self.open.iter_mut().find(|open| open.requested.approval_id == voted.approval_id);
        if let Some(approval) = approval {
            approval.votes.push(voted.user_id.clone());
        }
    }

    /// Takes an approval out that was decided; what was asked.
    pub(crate) fn resolve(&mut self, resolved: &ApprovalResolved) -> Option<ApprovalRequested> {
        let decided = Some((resolved.user_id.clone(), resolved.decision));
        self.close(&resolved.approval_id, decided)
    }

    /// Takes an approval out that nobody decided.
    pub(crate) fn expire(&mut self, expired: &ApprovalExpired) {
        self.close(&expired.approval_id, None);
    }

    fn close(
        &mut self,
        approval_id: &ApprovalId,
        decided: Option<(UserId, ApprovalDecision)>,
    ) -> Option<ApprovalRequested> {
        let place = self.open.iter().position(|open| open.requested.approval_id == *approval_id)?;
        if self.closed.len() >= MAX_CLOSED_APPROVALS {
            self.closed.pop_front();
        }
        self.closed.push_back(Closed { approval_id: approval_id.clone(), decided });
        Some(self.open.remove(place).requested)
    }
}
