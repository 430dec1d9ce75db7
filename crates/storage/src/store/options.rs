//! The store's settings and bounds.

use std::time::Duration;

/// Bytes after which a journal file is closed and a new one begun.
pub const JOURNAL_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Events that may wait for the projector (those not committed yet included) before posts are
/// refused. At 100,000 events per second about two seconds of work.
pub const MAX_LAG_EVENTS: u64 = 200_000;
/// Their bytes. They are in memory too, since reads overlay them.
pub const MAX_LAG_BYTES: u64 = 192 * 1024 * 1024;
/// Events that may wait for the committer before posts are refused.
pub const MAX_QUEUED_EVENTS: u64 = 65_536;
/// Their bytes.
pub const MAX_QUEUED_BYTES: u64 = 64 * 1024 * 1024;
/// Groups whose message ids wait to be learned; further ones are looked up and learned later.
pub const MAX_LEARNING_GROUPS: usize = 1024;
/// Events of one group in one turn of the committer; a single batch with more goes alone.
pub const MAX_GROUP_EVENTS_PER_TURN: usize = 64;
/// Events in one turn of the committer, which is one transaction.
pub const MAX_EVENTS_PER_TURN: usize = 8192;
/// Bytes in one turn of the committer.
pub const MAX_BYTES_PER_TURN: usize = 16 * 1024 * 1024;
/// Groups in a turn of the committer from which on the node counts as busy: the committer then
/// lets more come in before the next turn, for as long as that commit took, since a commit costs
/// nearly the same whatever is in it. A lone post never waits for others.
pub const BUSY_TURN_GROUPS: usize = 4;
/// How long it lets more come in at most.
pub const MAX_LINGER: Duration = Duration::from_micros(200);
/// Groups that wait from which on the committer does not let more come in.
pub const FULL_TURN_GROUPS: usize = 16;
/// Events that the projector carries over in one transaction.
pub const PROJECTOR_BATCH_EVENTS: usize = 32_768;
/// How long the projector waits for more, in milliseconds: small transactions would make it fall
/// behind and leave small chunks.
pub const PROJECTOR_LINGER_MS: u64 = 250;
/// Projected events that may wait for the search index before the projector sees to it first.
/// Until a message is in the index, a search of its group reads through it.
pub const MAX_UNINDEXED_EVENTS: u64 = 400_000;
/// Bytes at which a stored chunk of a group's events is closed.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Rows that one read transaction sees at most: a pinned reader makes the WAL grow.
pub const MAX_ROWS_PER_READ: usize = 1000;
/// What a refused caller is told to wait, in milliseconds, when the committer's queue is full.
pub const QUEUE_RETRY_MS: u64 = 100;
/// What a refused caller is told to wait, in milliseconds, when the projector is behind.
pub const LAG_RETRY_MS: u64 = 500;

/// Pages of the tables that are kept in memory, for the projector.
pub const PAGE_CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes that must be free on the disk, or posts are refused.
pub const DISK_RESERVE_BYTES: u64 = 256 * 1024 * 1024;
/// What a refused caller is told to wait, in milliseconds, when the disk is full.
pub const DISK_RETRY_MS: u64 = 5_000;

/// Bounds that differ between a small machine, a large one and a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// See [`JOURNAL_FILE_BYTES`].
    pub journal_file_bytes: u64,
    /// See [`MAX_LAG_EVENTS`].
    pub max_lag_events: u64,
    /// See [`MAX_LAG_BYTES`].
    pub max_lag_bytes: u64,
    /// See [`MAX_QUEUED_EVENTS`].
    pub max_queued_events: u64,
    /// See [`MAX_QUEUED_BYTES`].
    pub max_queued_bytes: u64,
    /// See [`DISK_RESERVE_BYTES`].
    pub disk_reserve_bytes: u64,
    /// See [`PAGE_CACHE_BYTES`].
    pub page_cache_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            journal_file_bytes: JOURNAL_FILE_BYTES,
            max_lag_events: MAX_LAG_EVENTS,
            max_lag_bytes: MAX_LAG_BYTES,
            max_queued_events: MAX_QUEUED_EVENTS,
            max_queued_bytes: MAX_QUEUED_BYTES,
            disk_reserve_bytes: DISK_RESERVE_BYTES,
            page_cache_bytes: PAGE_CACHE_BYTES,
        }
    }
}
