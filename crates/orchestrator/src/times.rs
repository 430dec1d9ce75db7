//! Periods and limits of the Orchestrator's scheduled work.

use std::time::Duration;

/// The longest sleep after which groups are archived, in seconds: a hundred years.
pub const MAX_AUTO_ARCHIVE_SECS: u64 = 100 * 365 * 24 * 60 * 60;

/// Periods and limits; an operator sets them under `[orchestrator]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    /// A group that sleeps for so long is archived; never when `None`. An organization may have
    /// another time.
    pub auto_archive_after: Option<Duration>,
    /// How often scheduled work looks for something to do.
    pub reconcile_every: Duration,
    /// How long a worker has a task without renewing it: what a process that died was doing is taken
    /// up after this time.
    pub task_lease: Duration,
    /// How long after a delete it is looked again that nobody has written a snapshot meanwhile.
    pub longest_archive: Duration,
    /// How long a call waits for its task before it answers 202.
    pub call_waits: Duration,
    /// Bytes of a snapshot's uncompressed lines at most.
    pub max_snapshot_bytes: u64,
    /// How long tasks that ended are kept, and reports of sleeping and waking.
    pub keep_ended: Duration,
}

impl Default for Times {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            auto_archive_after: Some(DAY * 7),
            reconcile_every: Duration::from_secs(5),
            task_lease: Duration::from_secs(60),
            longest_archive: Duration::from_secs(6 * 60 * 60),
            call_waits: Duration::from_secs(30),
            max_snapshot_bytes: u64::MAX,
            keep_ended: DAY * 30,
        }
    }
}
