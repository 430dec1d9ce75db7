//! The projector: one thread of the lowest priority that carries committed batches over to
//! `rooms.db`, checkpoints it, and removes the journal files that are covered.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Sender, channel},
    },
    time::{Duration, Instant},
};

use rusqlite::Connection;

use crate::{
    disk::Disk,
    journal::files::RetiredFile,
    paced,
    pending::Committed,
    rooms::{
        inbox::{Backlog, Inbox, Next},
        keeper::Keep,
        quarantine::Quarantine,
        wipe, write,
    },
    search::{
        index,
        indexer::{self, SLICE_MESSAGES, Slice},
    },
    store::options::MAX_UNINDEXED_EVENTS,
};

/// Events after which `rooms.db` is checkpointed.
const CHECKPOINT_EVENTS: u64 = 65_536;
/// Bytes after which it is.
const CHECKPOINT_BYTES: u64 = 32 * 1024 * 1024;
/// Transactions after which it is; a small one writes a handful of pages.
const CHECKPOINT_TRANSACTIONS: u64 = 500;
/// Free pages from which on the file is made shorter, so many at each checkpoint.
const VACUUM_PAGES: i64 = 1024;
/// How long a checkpoint waits for readers before it is put off.
const CHECKPOINT_WAIT: Duration = Duration::from_millis(500);
/// How long the projector waits after a failure before it tries again: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Chunks from which on the filling of the search index is worth a line in the log.
const TELL_FROM: u64 = 10_000;
/// How often the log says how far it is.
const TELL_PERIOD: Duration = Duration::from_secs(10);

/// What the projector works with.
pub(crate) struct Projector {
    pub(crate) connection: Connection,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) quarantine: Arc<Quarantine>,
    pub(crate) keeper: Sender<Keep>,
    /// Files that are written no more, oldest first.
    pub(crate) retired: VecDeque<RetiredFile>,
    /// The last row that is carried over.
    pub(crate) position: u64,
    pub(crate) since_checkpoint: SinceCheckpoint,
    pub(crate) index: IndexState,
    /// Whether groups are being wiped.
    pub(crate) wipes: bool,
    /// Whether words of wiped groups may be left in the search index's file.
    pub(crate) purges: bool,
    pub(crate) disk: Arc<Disk>,
    pub(crate) counters: Arc<ProjectorCounters>,
}

/// What the projector has done since the store was opened.
#[derive(Default)]
pub(crate) struct ProjectorCounters {
    pub(crate) events: AtomicU64,
    pub(crate) transactions: AtomicU64,
    /// Journal files that it removed.
    pub(crate) files_removed: AtomicU64,
    /// Projected events that the search index has not seen yet, about; 0 when there are none.
    pub(crate) unindexed: AtomicU64,
    /// Whether words of wiped groups may be left in the search index's file.
    pub(crate) purging: AtomicBool,
}

/// How far the search index is.
pub(crate) struct IndexState {
    /// The last chunk when the store was opened, while the index has not come there.
    rebuilding: Option<i64>,
    told: Instant,
    /// Set after a failure.
    not_before: Option<Instant>,
}

impl IndexState {
    /// How far it is in a file that was just opened, and the chunks that it is behind.
    pub(crate) fn read(connection: &Connection) -> Result<(Self, u64), rusqlite::Error> {
        let behind = indexer::waiting(connection)?;
        let last = connection.query_row("SELECT max(id) FROM chunks", [], |row| row.get(0))?;
        if behind >= TELL_FROM {
            tracing::info!(chunks = behind, "the search index is filled in the background");
        }
        let rebuilding = if behind > 0 { last } else { None };
        Ok((Self { rebuilding, told: Instant::now(), not_before: None }, behind))
    }
}

/// What was written since the last complete checkpoint.
#[derive(Default)]
pub(crate) struct SinceCheckpoint {
    events: u64,
    bytes: u64,
    transactions: u64,
    /// Whether nothing is left of a group: the WAL, which still has its pages, is cut off then.
    wiped: bool,
}

impl SinceCheckpoint {
    /// A process that died may have left pages of a wiped group in the WAL: it is cut off first.
    pub(crate) fn after_a_start() -> Self {
        Self { wiped: true, ..Self::default() }
    }
}

impl Projector {
    /// Works until the inbox says to stop.
    pub(crate) fn run(mut self) {
        // A checkpoint's CPU time must not be taken from posts.
        convene_threads::become_background();
        if let Err(error) = paced::give_way(&mut self.connection) {
            tracing::warn!(%error, "the projector takes long turns");
        }
        loop {
            match self.inbox.next(self.backlog()) {
                Next::Index if self.wipes => self.wipe(),
                Next::Index if self.purges => self.purge(),
                Next::Index => self.fill_index(),
                Next::Project(batch) => {
                    if !self.carry_over(&batch) {
                        break;
                    }
                    self.finish(batch);
                    if self.wipes {
                        self.wipe();
                    } else if self.purges {
                        self.purge();
                    }
                    if self.unindexed() >= MAX_UNINDEXED_EVENTS && self.index.rebuilding.is_none() {
                        self.fill_index();
                    }
                    self.clean_up(false);
                }
                Next::Idle => self.clean_up(true),
                Next::Stop => break,
            }
        }
        if !self.inbox.is_stopping_now() {
            if let Err(error) = self.save_quarantine() {
                tracing::warn!(%error, "a quarantine was not saved");
            }
            self.clean_up(true);
        }
    }

    /// Carries a batch over, however often it takes. `false` when it fails and the store stops: the
    /// rest is done when the store is opened again.
    fn carry_over(&mut self, batch: &[Committed]) -> bool {
        let mut pause = RETRY.0;
        while let Err(error) = write::project(&mut self.connection, batch, &self.quarantine) {
            tracing::error!(%error, "committed events wait: rooms.db cannot be written");
            if self.inbox.is_stopping() {
                return false;
            }
            self.disk.tend();
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY.1);
        }
        true
    }

    fn finish(&mut self, batch: Vec<Committed>) {
        let events: u64 =
            batch.iter().map(|committed| committed.pending.records.len() as u64).sum();
        let bytes: u64 = batch.iter().map(|committed| committed.pending.bytes).sum();
        self.counters.events.fetch_add(events, Ordering::Relaxed);
        self.counters.transactions.fetch_add(1, Ordering::Relaxed);
        self.since_checkpoint.events += events;
        self.since_checkpoint.bytes += bytes;
        self.since_checkpoint.transactions += 1;
        if let Some(last) = batch.last() {
            self.position = last.pos;
        }
        if batch.iter().any(|committed| committed.pending.ends_the_group()) {
            self.wipes = true;
            self.purges = true;
            self.counters.purging.store(true, Ordering::Relaxed);
        }
        self.counters.unindexed.fetch_add(events, Ordering::Relaxed);
        // The keeper ends after this thread.
        let _ = self.keeper.send(Keep::Projected(batch));
    }

    fn unindexed(&self) -> u64 {
        self.counters.unindexed.load(Ordering::Relaxed)
    }

    fn backlog(&self) -> Backlog {
        if self.index.not_before.is_some_and(|at| at > Instant::now()) {
            return Backlog::None;
        }
        if self.wipes || self.purges {
            return Backlog::Much;
        }
        match self.unindexed() {
            0 => Backlog::None,
            events if events < SLICE_MESSAGES && self.index.rebuilding.is_none() => Backlog::Little,
            _ => Backlog::Much,
        }
    }

    /// Takes a slice of a wiped group out.
    fn wipe(&mut self) {
        let slice = match wipe::slice(&mut self.connection) {
            Ok(slice) => slice,
            Err(error) => {
                tracing::warn!(%error, "a wiped group is not taken out yet");
                self.index.not_before = Some(Instant::now() + RETRY.1);
                return;
            }
        };
        self.index.not_before = None;
        if let Err(error) = self.vacuum() {
            tracing::warn!(%error, "rooms.db is not made shorter");
        }
        let Some(wipe::Slice { done, bytes }) = slice else {
            self.wipes = false;
            return;
        };
        self.since_checkpoint.bytes += bytes;
        self.since_checkpoint.transactions += 1;
        if let Some(key) = done {
            self.since_checkpoint.wiped = true;
            // The keeper ends after this thread.
            let _ = self.keeper.send(Keep::Wiped(key));
        }
        self.clean_up(false);
    }

    /// Merges a slice of the search index, so that words of wiped groups leave its file.
    fn purge(&mut self) {
        let is_done = match index::purge_slice(&mut self.connection) {
            Ok(is_done) => is_done,
            Err(error) => {
                tracing::warn!(%error, "words of wiped groups are not taken out of the index yet");
                self.index.not_before = Some(Instant::now() + RETRY.1);
                return;
            }
        };
        self.index.not_before = None;
        self.since_checkpoint.bytes += index::PURGE_BYTES;
        self.since_checkpoint.transactions += 1;
        if is_done {
            self.purges = false;
            self.counters.purging.store(false, Ordering::Relaxed);
            self.since_checkpoint.wiped = true;
            // The keeper ends after this thread.
            let _ = self.keeper.send(Keep::Indexed);
        }
        self.clean_up(false);
    }

    /// Brings a slice of what was carried over into the search index.
    fn fill_index(&mut self) {
        let slice = match indexer::index_slice(&mut self.connection, &self.quarantine) {
            Ok(slice) => slice,
            Err(error) => {
                tracing::warn!(%error, "the search index cannot be written; searches read through");
                self.index.not_before = Some(Instant::now() + RETRY.1);
                return;
            }
        };
        let Slice { events, bytes, chunk, left } = slice;
        self.index.not_before = None;
        self.since_checkpoint.events += events;
        self.since_checkpoint.bytes += bytes;
        self.since_checkpoint.transactions += 1;
        let unindexed = if left == 0 { 0 } else { self.unindexed().saturating_sub(events).max(1) };
        self.counters.unindexed.store(unindexed, Ordering::Relaxed);
        if let Some(last) = self.index.rebuilding {
            if chunk >= last {
                self.index.rebuilding = None;
            }
            if left >= TELL_FROM && self.index.told.elapsed() >= TELL_PERIOD {
                tracing::info!(chunks_left = left, "the search index is being filled");
                self.index.told = Instant::now();
            }
        }
        // The keeper ends after this thread.
        let _ = self.keeper.send(Keep::Indexed);
        self.clean_up(false);
    }

    /// Saves a quarantine that a reader found, with no batch to carry over.
    fn save_quarantine(&mut self) -> Result<(), rusqlite::Error> {
        if self.quarantine.unsaved().is_empty() {
            return Ok(());
        }
        write::project(&mut self.connection, &[], &self.quarantine)
    }

    fn clean_up(&mut self, idle: bool) {
        self.disk.tend();
        for mut file in self.inbox.take_retired() {
            file.close();
            self.retired.push_back(file);
        }
        if idle && let Err(error) = self.save_quarantine() {
            tracing::warn!(%error, "a quarantine is not saved yet");
        }
        let since = &self.since_checkpoint;
        let much = since.events >= CHECKPOINT_EVENTS
            || since.bytes >= CHECKPOINT_BYTES
            || since.transactions >= CHECKPOINT_TRANSACTIONS;
        let removable = self.retired.front().is_some_and(|file| file.last_pos <= self.position);
        let at_rest = idle && since.transactions > 0;
        let wiped = since.wiped && !self.wipes;
        if !(much || removable || at_rest || wiped) {
            return;
        }
        match self.checkpoint() {
            Ok(true) => {
                self.since_checkpoint = SinceCheckpoint::default();
                self.remove_covered();
            }
            Ok(false) => tracing::debug!("a reader holds up the checkpoint of rooms.db"),
            Err(error) => tracing::warn!(%error, "the checkpoint of rooms.db failed"),
        }
    }

    /// Copies the WAL of `rooms.db` into the file and lets it begin anew. `false` when a reader
    /// was in the way.
    fn checkpoint(&mut self) -> Result<bool, rusqlite::Error> {
        self.vacuum()?;
        // The long part waits for nobody; readers of the newest state are not in its way.
        self.refresh_lookups();
        run_checkpoint(&self.connection, "PASSIVE")?;
        // Now readers that begin need no WAL, so only those that began before are waited for.
        self.refresh_lookups();
        self.connection.busy_timeout(CHECKPOINT_WAIT)?;
        let mode = if self.since_checkpoint.wiped { "TRUNCATE" } else { "RESTART" };
        let complete = run_checkpoint(&self.connection, mode)?;
        self.connection.busy_timeout(crate::sqlite::BUSY_TIMEOUT)?;
        Ok(complete)
    }

    /// Makes the file shorter by some of its free pages.
    fn vacuum(&self) -> Result<(), rusqlite::Error> {
        let free: i64 = self.connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        if free > VACUUM_PAGES {
            let sql = format!("PRAGMA incremental_vacuum({VACUUM_PAGES})");
            let mut statement = self.connection.prepare(&sql)?;
            // Each step frees a page.
            let mut pages = statement.query([])?;
            while pages.next()?.is_some() {}
        }
        Ok(())
    }

    fn refresh_lookups(&self) {
        let (answer, answered) = channel();
        if self.keeper.send(Keep::Refresh(answer)).is_ok() {
            let _ = answered.recv();
        }
    }

    /// Removes the journal files whose rows are all in `rooms.db`, checkpointed.
    fn remove_covered(&mut self) {
        while let Some(file) = self.retired.front_mut() {
            if file.last_pos > self.position {
                return;
            }
            if let Err(error) = file.remove() {
                tracing::warn!(%error, path = %file.path.display(), "a journal file stays");
                return;
            }
            self.counters.files_removed.fetch_add(1, Ordering::Relaxed);
            self.retired.pop_front();
        }
    }
}

fn run_checkpoint(connection: &Connection, mode: &str) -> Result<bool, rusqlite::Error> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        let (busy, log, copied): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && log == copied)
    })
}
