//! What rooms tell the workspace of what was said and read.

use convene_model::{HistoryId, ParticipantId, Timestamp, UserId, event::Author};

/// Up to where a group's messages are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The numbering that `seq` belongs to.
    pub history: HistoryId,
    /// The number of the event that posted the last recorded message.
    pub seq: u64,
    /// Its number among the group's messages.
    pub nth: u64,
}

/// A message, as much of it as counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The number of the event that posted it.
    pub seq: u64,
    /// Its number among the group's messages.
    pub nth: u64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub author: Author,
    /// Whom it names as mentioned.
    pub mentions: Vec<ParticipantId>,
    /// Its text where `@name` may stand in it, else empty.
    pub text: String,
}

/// A user has read a group up to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Who.
    pub user: UserId,
    /// The number of the event.
    pub up_to: u64,
    /// How many messages that are.
    pub nth: u64,
}

/// What is to be recorded of one group. Recording it again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    /// The numbering.
    pub history: HistoryId,
    /// Messages without a gap between them, oldest first.
    pub said: Vec<Said>,
    /// Numbers of the events that posted messages which were taken back.
    pub unsaid: Vec<u64>,
    /// What was read.
    pub read: Vec<Mark>,
    /// Whether what is recorded may end before `said` begins: the numbering is another one, or more
    /// was missed than is read again.
    pub jump: bool,
}
