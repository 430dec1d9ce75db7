//! How what a turn has led to reaches the journal, and when the state goes along as a snapshot.

use std::sync::Arc;

use convene_group_controller::State;
use convene_model::event::{EventKind, RevisionPolicy};
use convene_storage::{Batch, Snapshot};
use tokio::sync::oneshot;

use super::{Actor, Pending};
use crate::controllers::{
    SNAPSHOT_EVERY,
    history_service::{self, Export},
    output::Output,
};

impl Actor {
    /// Whether an event erases a text that the last snapshot may hold. It is replaced at once then,
    /// so that the text is gone from everything that is stored.
    pub(super) fn erases(&self, kind: &EventKind) -> bool {
        let message_seq = match kind {
            EventKind::MessageDeleted(deleted) => deleted.message_seq,
            EventKind::MessageEdited(edited) if self.discards() => edited.message_seq,
            EventKind::MessageEdited(_)
            | EventKind::GroupActivated(_)
            | EventKind::GroupAdopted(_)
            | EventKind::GroupConfigured(_)
            | EventKind::EpochRaised { .. }
            | EventKind::GroupFrozen { .. }
            | EventKind::GroupThawed(_)
            | EventKind::GroupRestored(_)
            | EventKind::AccessRevoked { .. }
            | EventKind::MessagePosted(_)
            | EventKind::MessagePinned(_)
            | EventKind::MessageUnpinned(_)
            | EventKind::ReactionAdded(_)
            | EventKind::ReactionRemoved(_)
            | EventKind::TriggerDecided(_)
            | EventKind::RunStarted(_)
            | EventKind::RunStreaming { .. }
            | EventKind::RunFinished(_)
            | EventKind::ToolsRequested(_)
            | EventKind::ToolStarted(_)
            | EventKind::ToolFinished(_)
            | EventKind::ApprovalRequested(_)
            | EventKind::ApprovalVoted(_)
            | EventKind::ApprovalResolved(_)
            | EventKind::ApprovalExpired(_)
            | EventKind::SummaryRecorded(_)
            | EventKind::HistoryExported { .. } => return false,
        };
        message_seq <= self.last_snapshot || self.stored_replies
    }

    fn discards(&self) -> bool {
        self.controller
            .state()
            .is_some_and(|state| state.config().revisions == RevisionPolicy::Discard)
    }

    /// Hands what the turn has led to to the journal, and holds its outputs until that is durable.
    pub(super) fn commit(&mut self) {
        self.commit_with(false);
    }

    /// Stores the state as a snapshot.
    pub(super) fn commit_snapshot(&mut self) {
        self.commit_with(true);
    }

    fn commit_with(&mut self, snapshot: bool) {
        let Pending { records, posts, changed: _, erases, checkpoint, mut outputs } =
            std::mem::take(&mut self.batch);
        let wake_at = self.controller.durable_deadline();
        if records.is_empty() && wake_at == self.stored_wake_at && !snapshot {
            // Text of a reply waits for no checkpoint of it.
            if !outputs.is_empty() {
                self.gate.hold(None, std::mem::take(&mut outputs));
            }
            if !checkpoint {
                return;
            }
        }
        let seq = self.controller.state().map_or(0, State::seq);
        let snapshot =
            if snapshot || erases || checkpoint || seq >= self.last_snapshot + SNAPSHOT_EVERY {
                self.last_snapshot = seq;
                self.stored_replies = self.controller.is_replying();
                self.controller.snapshot().map(|bytes| Snapshot { seq, bytes: bytes.into() })
            } else {
                None
            };
        self.stored_wake_at = wake_at;
        let first_seq = seq + 1 - records.len() as u64;
        let batch = Batch {
            group_id: self.group_id.clone(),
            key: self.key,
            first_seq,
            records,
            posts,
            chain: self.chain,
            wake_at,
            snapshot,
        };
        self.submit(batch, outputs);
    }

    /// Hands a batch to the journal and holds outputs until it is durable.
    pub(super) fn submit(&mut self, batch: Batch, outputs: Vec<Output>) {
        let (done, committed) = oneshot::channel();
        let submitted = self.shared.store.submit(batch, move |result| {
            // The group may be gone; then nobody waits for it.
            let _ = done.send(result);
        });
        if submitted.is_err() {
            // The step cannot be taken back, so the controller is dropped: `committed` never
            // comes. Posts are refused before they are stepped, so that this is rare.
            tracing::warn!(group = %self.group_id, "the journal has no room for a group's events");
        }
        self.gate.hold(Some(committed), outputs);
    }

    /// Lets the organization's own history service hear of events.
    pub(super) fn export(&self, after: u64, upto: u64) {
        let Some(state) = self.controller.state() else { return };
        let identity = state.identity();
        let export = Export {
            org_id: identity.org_id.clone(),
            group_id: self.group_id.clone(),
            history: identity.history.clone(),
            after,
            upto,
        };
        let shared = Arc::clone(&self.shared);
        let task = history_service::export(shared, export, self.mailbox.clone());
        self.shared.tasks.spawn(task);
    }
}
