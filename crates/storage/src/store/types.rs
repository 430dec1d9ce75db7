//! What goes into the group store and what comes out of it.

use bytes::Bytes;
use convene_model::{
    AgentId, GroupId, GroupKey, MessageId, Timestamp,
    event::Author,
    history::{Excerpt, FinishedRun, Message},
    record::{Chain, Record},
    why::Why,
};

/// What one or several steps of a group leave behind; kept whole or not at all.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The group.
    pub group_id: GroupId,
    /// Its key: `group_id.key()`, passed along since the caller has it.
    pub key: GroupKey,
    /// The number of the first record; without records, the number that the next one will have.
    pub first_seq: u64,
    /// The events, numbered from `first_seq` without gaps. May be empty when there is a snapshot
    /// or a new `wake_at`.
    pub records: Vec<Record>,
    /// One for each `message.posted` among the records.
    pub posts: Vec<PostIndex>,
    /// The chain after the last record.
    pub chain: Chain,
    /// When the group wants to be woken, from now on; `None` clears the alarm.
    pub wake_at: Option<Timestamp>,
    /// The state after the record `snapshot.seq`.
    pub snapshot: Option<Snapshot>,
}

/// How a post is found again by its message id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostIndex {
    /// The number of the event.
    pub seq: u64,
    /// Its message.
    pub message_id: MessageId,
    /// `Posted::digest` of it.
    pub digest: [u8; 16],
}

/// A group's state, in the bytes of its controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last event that the state knows.
    pub seq: u64,
    /// The state.
    pub bytes: Bytes,
}

/// What a controller is rebuilt from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedGroup {
    /// The latest snapshot, if there was one.
    pub snapshot: Option<Snapshot>,
    /// All events after the snapshot, or all events.
    pub records: Vec<Record>,
    /// The number of the group's last event.
    pub last_seq: u64,
    /// The chain after it.
    pub chain: Chain,
    /// When the group wants to be woken.
    pub wake_at: Option<Timestamp>,
}

/// Lines of a snapshot, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportPart {
    /// Whole lines, each ended by `\n`; none when there is nothing.
    pub lines: Bytes,
    /// The number of the last line, when there is more after it.
    pub next: Option<u64>,
}

/// A post that was found by its message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundMessage {
    /// The number of the event.
    pub seq: u64,
    /// `Posted::digest` of it.
    pub digest: [u8; 16],
}

/// A message as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// The number of the event that posted it.
    pub seq: u64,
    /// Who wrote it.
    pub author: Author,
    /// Whether it was taken back.
    pub deleted: bool,
    /// Its current text; empty when it was deleted.
    pub text: String,
}

/// One emoji on one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReaction {
    /// The emoji.
    pub emoji: String,
    /// All who put it there, the earliest first; never empty.
    pub authors: Vec<Author>,
}

/// A page of history, without what only the controller knows (head and history id).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PageParts {
    /// The messages in their current form, oldest first.
    pub messages: Vec<Message>,
    /// The runs that ended within the page, oldest first.
    pub runs: Vec<FinishedRun>,
    /// Messages outside the page that messages of the page answer.
    pub answered: Vec<Excerpt>,
    /// Whether there are messages before the page.
    pub more_before: bool,
    /// Whether there are messages after the page.
    pub more_after: bool,
}

/// Why agents answered a message, without what only the controller knows (the group's agents).
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    /// What was decided, and what came of it.
    pub why: Why,
    /// The agent that wrote the message, if one did.
    pub author: Option<AgentId>,
}

/// Figures for metrics and for the bench; the counters begin at 0 when the store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Transactions that the committer wrote.
    pub commits: u64,
    /// Batches in them.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Events that the projector carried over.
    pub projected_events: u64,
    /// Transactions in which it did.
    pub projections: u64,
    /// Projected events that the search index has not seen yet, about; 0 when there are none.
    pub unindexed_events: u64,
    /// Events that wait for the committer.
    pub queued_events: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Groups whose message ids wait to be learned.
    pub learning_groups: u64,
    /// How often a group had to wait for that, since too many did.
    pub put_off_learning: u64,
    /// How often there was no room since the committer's queue was full.
    pub refused_queue: u64,
    /// How often since the projector was behind.
    pub refused_lag: u64,
    /// How often since the disk was full.
    pub refused_disk: u64,
    /// Events that are not projected yet, those that wait for the committer included.
    pub lag_events: u64,
    /// Their bytes.
    pub lag_bytes: u64,
    /// Memory of the filters over groups' message ids.
    pub id_filter_bytes: u64,
    /// Journal files on disk.
    pub journal_files: u64,
    /// Groups in quarantine.
    pub quarantined_groups: u64,
}
