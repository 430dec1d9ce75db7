//! The committer: one thread that writes what waits, all groups in one transaction, and then
//! tells each of them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use convene_threads::Turns;

use crate::{
    control::Control,
    journal::{
        files::JournalFile,
        queue::{CommitQueue, GroupTurn, Submission},
    },
    pending::{Committed, Pending},
    rooms::{inbox::Inbox, overlay::Overlay, quarantine::Quarantine},
    store::{
        error::{CommitFailed, StoreError},
        options::{BUSY_TURN_GROUPS, MAX_LINGER, StoreOptions},
    },
};

/// What the host is told when the journal failed; it exits without answering.
pub(crate) type OnFatal = Arc<dyn Fn(String) + Send + Sync>;

/// What the committer works with.
pub(crate) struct Committer {
    pub(crate) file: JournalFile,
    pub(crate) queue: Arc<CommitQueue>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) overlay: Arc<Overlay>,
    pub(crate) quarantine: Arc<Quarantine>,
    pub(crate) options: StoreOptions,
    pub(crate) on_fatal: OnFatal,
    pub(crate) counters: Arc<CommitCounters>,
}

/// What the committer has written since the store was opened.
#[derive(Default)]
pub(crate) struct CommitCounters {
    pub(crate) commits: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) events: AtomicU64,
    /// Journal files that it began.
    pub(crate) rotations: AtomicU64,
}

impl Committer {
    /// Works until the queue is closed and empty, or a commit fails. A panic, which only a caller's
    /// `done` could bring about, is fatal too: nobody would be answered any more.
    pub(crate) fn run(self) {
        let (queue, on_fatal) = (Arc::clone(&self.queue), Arc::clone(&self.on_fatal));
        if catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            let waiting = queue.fail();
            on_fatal("the committer panicked".into());
            for submission in waiting {
                (submission.done)(Err(CommitFailed::OutcomeUnknown));
            }
        }
    }

    fn work(mut self) {
        convene_threads::prefer_turns(Turns::Shortest);
        let mut linger = Duration::ZERO;
        let mut rotate_at = self.options.journal_file_bytes;
        if self.file.has_wiped()
            && let Err(error) = self.begin_next_file(&mut rotate_at)
        {
            return self.fail(Vec::new(), &error);
        }
        while let Some(turn) = self.queue.next_turn(linger) {
            let began = Instant::now();
            let busy = turn.len() >= BUSY_TURN_GROUPS;
            let turn = self.without_quarantined(turn);
            if turn.is_empty() {
                continue;
            }
            let rows: Vec<Vec<&Arc<Pending>>> = turn
                .iter()
                .map(|group| group.iter().map(|submission| &submission.pending).collect())
                .collect();
            let first_pos = match self.file.commit(&rows) {
                Ok(first_pos) => first_pos,
                Err(error) => return self.fail(turn, &error),
            };
            // What a wiped group had goes from the disk with the file that still has it.
            let wiped = rows.iter().flatten().any(|p| p.ends_the_group());
            linger = if busy { began.elapsed().min(MAX_LINGER) } else { Duration::ZERO };
            self.release(turn, first_pos);
            self.file.tend();
            if (wiped || self.file.bytes() >= rotate_at)
                && let Err(error) = self.begin_next_file(&mut rotate_at)
            {
                return self.fail(Vec::new(), &error);
            }
        }
        if let Err(error) = self.file.close() {
            tracing::warn!(%error, "the journal was closed without a checkpoint");
        }
    }

    /// Begins the next file; where that cannot be, this one goes on for a while.
    ///
    /// # Errors
    /// What there is of the next file could not be removed.
    fn begin_next_file(&mut self, rotate_at: &mut u64) -> Result<(), StoreError> {
        match self.file.rotate()? {
            Ok(retired) => {
                self.counters.rotations.fetch_add(1, Ordering::Relaxed);
                self.inbox.retire(retired);
                *rotate_at = self.options.journal_file_bytes;
            }
            Err(error) => {
                tracing::warn!(%error, "no new journal file can be begun; this one goes on");
                *rotate_at += self.options.journal_file_bytes / 4 + 1;
            }
        }
        Ok(())
    }

    /// Tells everybody whose batch is on disk now, then hands the batches to the projector.
    fn release(&self, turn: Vec<GroupTurn>, first_pos: u64) {
        let mut committed = Vec::with_capacity(turn.len());
        let mut events = 0;
        for (group, pos) in turn.into_iter().zip(first_pos..) {
            for Submission { pending, done } in group {
                done(Ok(()));
                events += pending.records.len() as u64;
                committed.push(Committed { pos, pending });
            }
        }
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        self.counters.batches.fetch_add(committed.len() as u64, Ordering::Relaxed);
        self.counters.events.fetch_add(events, Ordering::Relaxed);
        self.inbox.push(committed);
    }

    /// Refuses the batches of groups that were put in quarantine while they waited, but for what ends
    /// such a group.
    fn without_quarantined(&self, turn: Vec<GroupTurn>) -> Vec<GroupTurn> {
        if self.quarantine.is_empty() {
            return turn;
        }
        let mut kept = Vec::with_capacity(turn.len());
        for group in turn {
            let detail = group
                .first()
                .and_then(|submission| self.quarantine.detail(&submission.pending.key));
            let Some(detail) = detail else {
                kept.push(group);
                continue;
            };
            let (purges, refused): (Vec<_>, Vec<_>) = group
                .into_iter()
                .partition(|submission| submission.pending.control == Some(Control::Purge));
            for submission in refused {
                self.overlay.remove(&submission.pending);
                (submission.done)(Err(CommitFailed::Quarantined(detail.clone())));
            }
            if !purges.is_empty() {
                kept.push(purges);
            }
        }
        kept
    }

    /// Nobody is told that it worked, and nothing is written any more.
    fn fail(self, turn: Vec<GroupTurn>, error: &dyn std::fmt::Display) {
        tracing::error!(%error, "a commit failed, its outcome is unknown");
        let waiting = self.queue.fail();
        (self.on_fatal)(format!("the journal cannot be written: {error}"));
        for submission in turn.into_iter().flatten().chain(waiting) {
            (submission.done)(Err(CommitFailed::OutcomeUnknown));
        }
    }
}
