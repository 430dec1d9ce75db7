//! The group store: what the host calls.

mod archive;
pub(crate) mod error;
pub mod options;
pub(crate) mod types;

#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{Builder, JoinHandle},
};

use convene_model::{
    GroupId, GroupKey, MessageId, Timestamp,
    history::{HistoryQuery, MessageDetail, SearchPage, SearchRequest},
    record::Record,
};
use parking_lot::Mutex;

use crate::{
    backup,
    disk::{self, Disk},
    journal::{
        committer::{CommitCounters, Committer, OnFatal},
        files::{JournalFile, OpenedJournal},
        queue::{CommitQueue, Submission},
        recovery,
    },
    pending::Pending,
    rooms::{
        detail, history,
        inbox::{Inbox, Stop},
        keeper::{self, Keep, Settled},
        lookup::Lookup,
        marks::Marks,
        overlay::{Known, Overlay},
        projector::{IndexState, Projector, ProjectorCounters, SinceCheckpoint},
        quarantine::Quarantine,
        reader::Reader,
        schema, view, why, wipe, write,
    },
    search,
};

use error::{CommitFailed, NoRoom, Overloaded, StoreError};
use options::{DISK_RETRY_MS, LAG_RETRY_MS, MAX_LEARNING_GROUPS, StoreOptions};
use types::{
    Batch, Explained, FoundMessage, LoadedGroup, PageParts, StoreStats, StoredMessage,
    StoredReaction,
};

/// The file with the tables that are read.
pub(crate) const ROOMS_FILE: &str = "rooms.db";

/// All groups of a node: a shared journal, and tables that follow it.
///
/// A clone is another handle on the same store. When the last one is dropped without
/// [`GroupStore::close`], what was submitted is still committed, and the rest of the projection is
/// done when the store is opened again.
#[derive(Clone)]
pub struct GroupStore {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Arc<CommitQueue>,
    inbox: Arc<Inbox>,
    overlay: Arc<Overlay>,
    quarantine: Arc<Quarantine>,
    marks: Arc<Marks>,
    lookup: Arc<Lookup>,
    reader: Reader,
    settled: Arc<Settled>,
    to_keeper: mpsc::Sender<Keep>,
    /// Groups whose ids wait to be learned.
    learning: Arc<AtomicUsize>,
    refusals: Refusals,
    disk: Arc<Disk>,
    options: StoreOptions,
    commits: Arc<CommitCounters>,
    projections: Arc<ProjectorCounters>,
    first_file: u64,
    threads: Mutex<Option<Threads>>,
}

/// How often there was no room, by what had none.
#[derive(Default)]
struct Refusals {
    queue: AtomicU64,
    lag: AtomicU64,
    disk: AtomicU64,
    learning: AtomicU64,
}

struct Threads {
    committer: JoinHandle<()>,
    projector: JoinHandle<()>,
    keeper: JoinHandle<()>,
}

impl GroupStore {
    /// Opens the store of a data directory, or makes one. Blocks while the journal is read.
    ///
    /// The journal's WAL is checkpointed before anything is served, and what `rooms.db` does not
    /// have yet is checked (checksums and chains) and overlaid; the projection goes on in the
    /// background. `on_fatal` is called at most once, when a commit failed: its outcome is
    /// unknown, so the node must exit without answering.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the files do not belong together, [`StoreError::Failed`] when
    /// they cannot be opened or written durably.
    pub fn open(
        dir: &Path,
        options: StoreOptions,
        on_fatal: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        if backup::is_unadopted(dir) {
            return Err(StoreError::Refused(format!(
                "{} is a backup: run `convene journal adopt` before it is served, so that nobody \
                 takes its numbers for those that came after it was made",
                dir.display()
            )));
        }
        Self::open_with(dir, options, Arc::new(on_fatal), &Hooks::default())
    }

    /// The same for a backup that is to be adopted: it is opened although it carries the mark.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_to_adopt(
        dir: &Path,
        options: StoreOptions,
        on_fatal: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        Self::open_with(dir, options, Arc::new(on_fatal), &Hooks::default())
    }

    fn open_with(
        dir: &Path,
        options: StoreOptions,
        on_fatal: OnFatal,
        hooks: &Hooks,
    ) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir)?;
        // First of all, since what follows may need the room that the ballast holds.
        let disk = Arc::new(Disk::open(dir, options.disk_reserve_bytes, hooks.probe()));
        let rooms_path = dir.join(ROOMS_FILE);
        let journal = OpenedJournal::open(dir, !rooms_path.exists())?;
        let mut rooms = schema::open(&rooms_path, journal.journal_id(), journal.first_pos == 1)?;
        let cache_kib = i64::try_from(options.page_cache_bytes / 1024).unwrap_or(i64::MAX);
        rooms.pragma_update(None, "cache_size", -cache_kib)?;
        let mut position = schema::position(&rooms)?;
        if position > journal.last_pos() {
            return Err(StoreError::Refused(format!(
                "{} has come to row {position}, but the journal ends at row {}",
                rooms_path.display(),
                journal.last_pos()
            )));
        }
        if position + 1 < journal.first_pos {
            return Err(StoreError::Refused(format!(
                "{} has come to row {position}, but the journal begins at row {}",
                rooms_path.display(),
                journal.first_pos
            )));
        }
        let quarantine = Arc::new(Quarantine::default());
        schema::load_quarantine(&rooms, &quarantine)?;
        let mut unprojected =
            recovery::read_unprojected(&journal, position, |key| Ok(schema::head(&rooms, key)?))?;
        if recovery::begins_anew(&unprojected) {
            // Until it is carried over, the tables have what such a group was before.
            write::project(&mut rooms, &unprojected, &quarantine)?;
            position = journal.last_pos();
            unprojected.clear();
        }
        let marks = Arc::new(Marks::default());
        wipe::load_marks(&rooms, &marks)?;
        let overlay = Arc::new(Overlay::new());
        let inbox = Arc::new(Inbox::default());
        hooks.apply(&journal.file, &inbox)?;
        for committed in &unprojected {
            if let Some(fault) = &committed.pending.fault {
                quarantine.add(committed.pending.key, fault.detail.clone());
            }
            overlay.push(&committed.pending);
            let pending = &committed.pending;
            marks.learn(pending.key, pending.control.as_ref(), pending.completes);
        }
        if !unprojected.is_empty() {
            tracing::info!(rows = unprojected.len(), "the projection goes on from row {position}");
            inbox.push(unprojected);
        }

        let first_file = 1 + journal.retired.len() as u64;
        let queue = Arc::new(CommitQueue::new(&options));
        let commits = Arc::new(CommitCounters::default());
        let (index, unindexed) = IndexState::read(&rooms)?;
        let projections = Arc::new(ProjectorCounters::default());
        projections.unindexed.store(unindexed, Ordering::Relaxed);
        let wipes = wipe::any(&rooms)?;
        let purges = wipes || search::index::is_purge_due(&rooms)?;
        projections.purging.store(purges, Ordering::Relaxed);
        let lookup = Arc::new(Lookup::open(&rooms_path)?);
        let settled = Arc::new(Settled::default());
        let reader = {
            let (overlay, quarantine) = (Arc::clone(&overlay), Arc::clone(&quarantine));
            Reader::new(rooms_path, overlay, quarantine, Arc::clone(&marks))
        };
        let (to_keeper, requests) = mpsc::channel();
        let learning = Arc::new(AtomicUsize::new(0));
        let committer = Committer {
            file: journal.file,
            queue: Arc::clone(&queue),
            inbox: Arc::clone(&inbox),
            overlay: Arc::clone(&overlay),
            quarantine: Arc::clone(&quarantine),
            options: options.clone(),
            on_fatal,
            counters: Arc::clone(&commits),
        };
        let projector = Projector {
            wipes,
            purges,
            connection: rooms,
            inbox: Arc::clone(&inbox),
            quarantine: Arc::clone(&quarantine),
            keeper: to_keeper.clone(),
            retired: journal.retired.into(),
            position,
            since_checkpoint: SinceCheckpoint::after_a_start(),
            index,
            disk: Arc::clone(&disk),
            counters: Arc::clone(&projections),
        };
        let keeper = {
            let (lookup, overlay) = (Arc::clone(&lookup), Arc::clone(&overlay));
            let settled = Arc::clone(&settled);
            let (learning, marks) = (Arc::clone(&learning), Arc::clone(&marks));
            spawn("convene-keeper", move || {
                keeper::run(requests, &lookup, &overlay, &marks, &settled, &learning);
            })?
        };
        let threads = Threads {
            committer: spawn("convene-commit", move || committer.run())?,
            projector: spawn("convene-project", move || projector.run())?,
            keeper,
        };
        Ok(Self {
            inner: Arc::new(Inner {
                queue,
                inbox,
                overlay,
                quarantine,
                marks,
                lookup,
                reader,
                settled,
                to_keeper,
                learning,
                refusals: Refusals::default(),
                disk,
                options,
                commits,
                projections,
                first_file,
                threads: Mutex::new(Some(threads)),
            }),
        })
    }

    /// Queues a batch for the journal. A group's batches must come one after another, without
    /// gaps; they are committed in that order.
    ///
    /// `done` is called once: with `Ok` after the commit, on the committer's thread, in the
    /// group's order (so it must be short); with an error when the batch was not acknowledged.
    ///
    /// What was stepped cannot be taken back, so a batch is taken even where [`Self::has_room`]
    /// says no: callers ask that before they let a post happen.
    ///
    /// # Errors
    /// [`Overloaded`] when the store is closing: nothing was queued, and `done` is not called.
    pub fn submit(
        &self,
        batch: Batch,
        done: impl FnOnce(Result<(), CommitFailed>) + Send + 'static,
    ) -> Result<(), Overloaded> {
        let pending = Arc::new(Pending::new(batch));
        // First the overlay, so that a batch is visible before it can be projected.
        self.inner.overlay.push(&pending);
        self.inner.marks.learn(pending.key, None, pending.completes);
        let submission = Submission { pending, done: Box::new(done) };
        self.inner.queue.push(submission).map_err(|submission| {
            self.inner.overlay.remove(&submission.pending);
            Overloaded { retry_after_ms: LAG_RETRY_MS }
        })
    }

    /// Whether there is room for more than what must be taken; cheap, for a check before a step.
    ///
    /// # Errors
    /// [`NoRoom`] when too much waits for the committer or for the projector, or when the disk is
    /// full.
    pub fn has_room(&self) -> Result<(), NoRoom> {
        let inner = &self.inner;
        if !inner.disk.has_room() {
            inner.refusals.disk.fetch_add(1, Ordering::Relaxed);
            return Err(NoRoom::DiskFull { retry_after_ms: DISK_RETRY_MS });
        }
        if let Err(overloaded) = inner.queue.has_room() {
            inner.refusals.queue.fetch_add(1, Ordering::Relaxed);
            return Err(overloaded.into());
        }
        let behind = inner.overlay.events() >= inner.options.max_lag_events
            || inner.overlay.bytes() >= inner.options.max_lag_bytes;
        if behind {
            inner.refusals.lag.fetch_add(1, Ordering::Relaxed);
            return Err(Overloaded { retry_after_ms: LAG_RETRY_MS }.into());
        }
        Ok(())
    }

    /// What a group's controller is rebuilt from: its latest snapshot and all events after it,
    /// with the chain checked. `None` when the store has never seen the group. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Quarantined`] when what is stored contradicts itself.
    pub fn load(&self, group: GroupKey) -> Result<Option<LoadedGroup>, StoreError> {
        self.inner.reader.load(&group)
    }

    /// The events `from` to `to`, both included, committed or merely submitted. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when one of them is not there.
    pub fn events(&self, group: GroupKey, from: u64, to: u64) -> Result<Vec<Record>, StoreError> {
        self.inner.reader.events(&group, from, to)
    }

    /// A page of history, as if nothing after the event `upto` had happened; except that a text
    /// which was erased meanwhile is gone. Blocks.
    ///
    /// # Errors
    /// [`StoreError::PageSize`] when the query's limit is no page size.
    pub fn history(
        &self,
        group: GroupKey,
        query: HistoryQuery,
        upto: u64,
    ) -> Result<PageParts, StoreError> {
        history::page(&self.inner.reader, &group, query, upto)
    }

    /// The post with this message id, committed or merely submitted. A matter of microseconds, so
    /// it may be called where nothing may block.
    ///
    /// # Errors
    /// As [`StoreError`] has it.
    pub fn find_message(
        &self,
        group: GroupKey,
        message_id: &MessageId,
    ) -> Result<Option<FoundMessage>, StoreError> {
        self.inner.quarantine.check(&group)?;
        match self.inner.overlay.look_up(&group, message_id) {
            Known::Post(found) => return Ok(Some(found)),
            Known::Absent => return Ok(None),
            Known::Unknown => {}
            Known::Learn(reading) => {
                let inner = &self.inner;
                if inner.learning.fetch_add(1, Ordering::Relaxed) < MAX_LEARNING_GROUPS {
                    // A store that ends learns nothing any more.
                    let _ = inner.to_keeper.send(Keep::Learn { key: group, reading });
                } else {
                    inner.learning.fetch_sub(1, Ordering::Relaxed);
                    inner.refusals.learning.fetch_add(1, Ordering::Relaxed);
                    inner.overlay.learn_later(&group);
                }
            }
        }
        Ok(self.inner.lookup.find(&group, message_id)?)
    }

    /// Gives back the memory that a group takes while it is used. It may be used again any time.
    pub fn release(&self, group: GroupKey) {
        self.inner.overlay.forget(&group);
    }

    /// A message as it is now, committed or merely submitted. Blocks, for a look-up and two chunks
    /// at most.
    ///
    /// # Errors
    /// As [`StoreError`] has it.
    pub fn message(
        &self,
        group: GroupKey,
        message_id: &MessageId,
    ) -> Result<Option<StoredMessage>, StoreError> {
        let found = self.find_message(group, message_id)?;
        found.map(|found| view::message(&self.inner.reader, &group, found.seq)).transpose()
    }

    /// The reactions to the message that the event `message_seq` posted, committed or merely
    /// submitted, in the order in which each emoji came; none when it was deleted. Blocks.
    ///
    /// # Errors
    /// As [`StoreError`] has it.
    pub fn reactions(
        &self,
        group: GroupKey,
        message_seq: u64,
    ) -> Result<Vec<StoredReaction>, StoreError> {
        view::reactions(&self.inner.reader, &group, message_seq)
    }

    /// One message with its reactions and its former texts, as if nothing after the event `upto`
    /// had happened; except that a text which was erased meanwhile is gone. Blocks.
    ///
    /// # Errors
    /// As [`StoreError`] has it.
    pub fn detail(
        &self,
        group: GroupKey,
        message_id: &MessageId,
        upto: u64,
    ) -> Result<Option<MessageDetail>, StoreError> {
        detail::detail(&self.inner.reader, &group, message_id, upto)
    }

    /// What was decided about a message and what came of it, as if nothing after the event `upto` had
    /// happened. Blocks.
    ///
    /// # Errors
    /// As [`StoreError`] has it.
    pub fn why(
        &self,
        group: GroupKey,
        message_id: &MessageId,
        upto: u64,
    ) -> Result<Option<Explained>, StoreError> {
        why::why(&self.inner.reader, &group, message_id, upto)
    }

    /// Messages that answer a query, newest first, those merely submitted included, as if no message
    /// after the event `upto` had been posted. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Query`] when there is nothing to search for or too much, [`StoreError::PageSize`]
    /// when the limit is none.
    pub fn search(
        &self,
        group: GroupKey,
        request: &SearchRequest,
        upto: u64,
    ) -> Result<SearchPage, StoreError> {
        search::search(&self.inner.reader, &group, request, upto)
    }

    /// All groups that the store has seen, those in quarantine included. Blocks.
    ///
    /// # Errors
    /// As [`StoreError`] has it.
    pub fn groups(&self) -> Result<Vec<GroupId>, StoreError> {
        self.inner.reader.groups()
    }

    /// The groups that want to be woken, and when; those in quarantine are left out. Blocks.
    ///
    /// # Errors
    /// As [`StoreError`] has it.
    pub fn alarms(&self) -> Result<Vec<(GroupId, Timestamp)>, StoreError> {
        self.inner.reader.alarms()
    }

    /// The bounds that the store works with.
    #[must_use]
    pub fn options(&self) -> &StoreOptions {
        &self.inner.options
    }

    /// Figures, for metrics and for the bench.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let inner = &self.inner;
        let rotations = inner.commits.rotations.load(Ordering::Relaxed);
        let removed = inner.projections.files_removed.load(Ordering::Relaxed);
        StoreStats {
            commits: inner.commits.commits.load(Ordering::Relaxed),
            batches: inner.commits.batches.load(Ordering::Relaxed),
            events: inner.commits.events.load(Ordering::Relaxed),
            projected_events: inner.projections.events.load(Ordering::Relaxed),
            projections: inner.projections.transactions.load(Ordering::Relaxed),
            unindexed_events: inner.projections.unindexed.load(Ordering::Relaxed),
            queued_events: inner.queue.events(),
            queued_bytes: inner.queue.bytes(),
            learning_groups: inner.learning.load(Ordering::Relaxed) as u64,
            put_off_learning: inner.refusals.learning.load(Ordering::Relaxed),
            refused_queue: inner.refusals.queue.load(Ordering::Relaxed),
            refused_lag: inner.refusals.lag.load(Ordering::Relaxed),
            refused_disk: inner.refusals.disk.load(Ordering::Relaxed),
            lag_events: inner.overlay.events(),
            lag_bytes: inner.overlay.bytes(),
            id_filter_bytes: inner.overlay.filter_bytes() as u64,
            journal_files: (inner.first_file + rotations).saturating_sub(removed),
            quarantined_groups: inner.quarantine.len() as u64,
        }
    }

    /// Waits until everything that was submitted before is committed, or has failed. Blocks.
    pub fn flush(&self) {
        self.inner.queue.wait_until_empty();
    }

    /// Ends the store: commits what was submitted, projects everything, checkpoints. From here on
    /// nothing is taken; reads still work. Blocks; a second call does nothing.
    pub fn close(&self) {
        self.inner.stop(Stop::WhenEmpty);
    }

    /// Waits until everything that was submitted is projected. Blocks; for tests and tools, since
    /// nothing ever needs to wait for the projector.
    pub fn settle(&self) {
        self.inner.settled.wait_until(|| self.inner.overlay.events() == 0);
    }
}

impl GroupStore {
    /// Waits until everything that was submitted is in the search index, and what was wiped is out
    /// of its file. Blocks; for tests and tools, since a search finds what is not there, too.
    pub fn settle_index(&self) {
        let inner = &self.inner;
        inner.inbox.hurry();
        inner.settled.wait_until(|| {
            let counters = &inner.projections;
            inner.overlay.events() == 0
                && counters.unindexed.load(Ordering::Relaxed) == 0
                && !counters.purging.load(Ordering::Relaxed)
        });
    }
}

/// How tests get at what nobody else may touch.
#[derive(Default)]
struct Hooks {
    /// Events that the projector may carry over at first.
    #[cfg(test)]
    allowance: Option<usize>,
    /// Pages that the journal file may have.
    #[cfg(test)]
    journal_pages: Option<u32>,
    /// Bytes that count as free on the disk.
    #[cfg(test)]
    free: Option<Arc<std::sync::atomic::AtomicU64>>,
}

impl Hooks {
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "there are no hooks but in tests"))]
    fn probe(&self) -> Option<disk::Probe> {
        #[cfg(test)]
        if let Some(free) = &self.free {
            let free = Arc::clone(free);
            return Some(Box::new(move || Ok(free.load(Ordering::Relaxed))));
        }
        None
    }

    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "there are no hooks but in tests"))]
    fn apply(&self, _file: &JournalFile, _inbox: &Inbox) -> Result<(), StoreError> {
        #[cfg(test)]
        {
            _inbox.allow(self.allowance);
            if let Some(pages) = self.journal_pages {
                _file.connection().query_row(
                    &format!("PRAGMA max_page_count = {pages}"),
                    [],
                    |_| Ok(()),
                )?;
            }
        }
        Ok(())
    }
}

impl Inner {
    fn stop(&self, stop: Stop) {
        let Some(threads) = self.threads.lock().take() else { return };
        self.queue.close();
        join(threads.committer);
        self.inbox.stop(stop);
        join(threads.projector);
        let _ = self.to_keeper.send(Keep::End);
        join(threads.keeper);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop(Stop::Now);
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    Ok(Builder::new().name(name.into()).spawn(work)?)
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a storage thread ended by a panic");
    }
}
