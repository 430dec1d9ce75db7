//! What a group's archiving and restoring ask of the store: bounded reads of everything, a wipe, and
//! events that come from a snapshot.

use std::{sync::Arc, time::Duration};

use convene_model::{
    GroupId, GroupKey,
    record::{CHAIN_START, Chain},
};

use crate::{
    control::{Control, Import},
    journal::queue::Submission,
    pending::Pending,
    rooms::{export, marks::Mark},
};

use super::{
    GroupStore,
    error::{CommitFailed, Overloaded, StoreError},
    options::LAG_RETRY_MS,
    types::{ExportPart, LoadedGroup},
};

impl GroupStore {
    /// The events after `after` and up to `upto` as lines of a snapshot, at most `max_bytes` but at
    /// least one. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when one of them is not there.
    pub fn export_events(
        &self,
        group: GroupKey,
        after: u64,
        upto: u64,
        max_bytes: usize,
    ) -> Result<ExportPart, StoreError> {
        export::events(&self.inner.reader, &group, after, upto, max_bytes)
    }

    /// The messages and ended runs after `after`, as they are at the event `upto`, as lines of a
    /// snapshot, at most `max_bytes` but at least one. Blocks.
    ///
    /// # Errors
    /// As [`StoreError`] has it.
    pub fn export_messages(
        &self,
        group: GroupKey,
        after: u64,
        upto: u64,
        max_bytes: usize,
    ) -> Result<ExportPart, StoreError> {
        export::messages(&self.inner.reader, &group, after, upto, max_bytes)
    }

    /// About how many bytes a group's events take. Blocks.
    ///
    /// # Errors
    /// As [`StoreError`] has it.
    pub fn size_of(&self, group: GroupKey) -> Result<u64, StoreError> {
        let waiting = self.inner.overlay.batches(&group);
        let waiting = waiting.iter().map(|batch| batch.bytes).sum::<u64>();
        Ok(export::bytes(&self.inner.reader, &group)? + waiting)
    }

    /// Queues the end of everything that the store has of a group, after the event `last_seq` with
    /// the chain `chain`. From now on the group is unknown to every read; it may begin anew when
    /// [`Self::wait_until_wiped`] says so. `done` is called as with [`Self::submit`].
    ///
    /// # Errors
    /// [`Overloaded`] when the store is closing: nothing was queued.
    pub fn wipe(
        &self,
        group_id: &GroupId,
        last_seq: u64,
        chain: Chain,
        done: impl FnOnce(Result<(), CommitFailed>) + Send + 'static,
    ) -> Result<(), Overloaded> {
        let pending = Pending::control(group_id, last_seq + 1, chain, Control::Wipe);
        self.submit_control(pending, Mark::Wiped, done)
    }

    /// Queues the end of a group whose rows contradict each other: nobody knows where it stands, and
    /// everything of it goes, what was put aside included. `done` is called as with [`Self::submit`].
    ///
    /// # Errors
    /// [`Overloaded`] when the store is closing: nothing was queued.
    pub fn purge(
        &self,
        group_id: &GroupId,
        done: impl FnOnce(Result<(), CommitFailed>) + Send + 'static,
    ) -> Result<(), Overloaded> {
        let pending = Pending::control(group_id, 1, CHAIN_START, Control::Purge);
        self.submit_control(pending, Mark::Wiped, done)
    }

    /// Queues the beginning of an import of a group that the store does not have. What is submitted
    /// next are its events; nobody sees the group until a batch has `group.restored`. `done` is
    /// called as with [`Self::submit`].
    ///
    /// # Errors
    /// [`Overloaded`] when the store is closing: nothing was queued.
    pub fn begin_import(
        &self,
        group_id: &GroupId,
        import: Import,
        done: impl FnOnce(Result<(), CommitFailed>) + Send + 'static,
    ) -> Result<(), Overloaded> {
        let control = Control::Import(import.clone());
        let pending = Pending::control(group_id, 1, CHAIN_START, control);
        self.submit_control(pending, Mark::Importing(import), done)
    }

    fn submit_control(
        &self,
        pending: Pending,
        mark: Mark,
        done: impl FnOnce(Result<(), CommitFailed>) + Send + 'static,
    ) -> Result<(), Overloaded> {
        let inner = Arc::clone(&self.inner);
        let key = pending.key;
        let pending = Arc::new(pending);
        let before = inner.marks.set(key, Some(mark));
        inner.overlay.push(&pending);
        let marks = Arc::clone(&inner.marks);
        let undo = before.clone();
        let told = move |result: Result<(), CommitFailed>| {
            if result.is_err() {
                marks.set(key, undo);
            }
            done(result);
        };
        let submission = Submission { pending, done: Box::new(told) };
        inner.queue.push(submission).map_err(|submission| {
            inner.overlay.remove(&submission.pending);
            inner.marks.set(key, before);
            Overloaded { retry_after_ms: LAG_RETRY_MS }
        })
    }

    /// The import of a group that is not whole yet, with what of it is there. Blocks.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_import(
        &self,
        group: GroupKey,
    ) -> Result<Option<(Import, Option<LoadedGroup>)>, StoreError> {
        match self.inner.marks.get(&group) {
            Some(Mark::Importing(import)) => {
                Ok(Some((import, self.inner.reader.load_hidden(&group)?)))
            }
            Some(Mark::Wiped) | None => Ok(None),
        }
    }

    /// Waits until everything of a group is projected, for so long at most; whether that is so. Until
    /// then an export has texts that were erased meanwhile. Blocks.
    #[must_use]
    pub fn wait_until_projected(&self, group: GroupKey, patience: Duration) -> bool {
        let inner = &self.inner;
        inner.settled.wait_for(patience, || !inner.overlay.holds(&group))
    }

    /// Whether a wipe of the group is under way, so that it cannot begin anew yet.
    #[must_use]
    pub fn is_being_wiped(&self, group: GroupKey) -> bool {
        self.inner.marks.get(&group) == Some(Mark::Wiped)
    }

    /// Waits until nothing of a wiped group is left, for so long at most; whether that is so. Blocks.
    #[must_use]
    pub fn wait_until_wiped(&self, group: GroupKey, patience: Duration) -> bool {
        self.inner.settled.wait_for(patience, || !self.is_being_wiped(group))
    }
}
