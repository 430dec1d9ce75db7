//! The contract of an organization's own history service, which keeps what people and agents wrote where
//! a group's `history_mode` is `external`. See `docs/external-history.md`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    GroupId, HistoryId, MessageId, OrgId, Timestamp,
    event::{Edited, Event, EventKind, Posted, RunFinished},
};

/// `POST {url}/groups/{group_id}/entries`: what happened, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppendRequest {
    /// Whose group it is.
    pub org_id: OrgId,
    /// The group.
    pub group_id: GroupId,
    /// The numbering that the numbers belong to.
    pub history: HistoryId,
    /// Up to which number everything was sent before; 0 in the first request.
    pub after: u64,
    /// Up to which number everything is sent with this request.
    pub upto: u64,
    /// The entries with numbers after `after` and up to `upto`, ascending; there may be none.
    pub entries: Vec<Entry>,
}

/// One thing that happened. Its number makes it idempotent: what has a number up to which the service
/// has everything already is a repetition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// Its number in the group; numbers grow, with gaps.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A message; its text is empty when it was taken back before it could be sent.
    Message(Posted),
    /// Another text for a message.
    Edit {
        /// Which message.
        message_id: MessageId,
        /// The number of its entry.
        message_seq: u64,
        /// The new text.
        text: String,
    },
    /// A message was taken back: every text of it is to be erased.
    Delete {
        /// Which message.
        message_id: MessageId,
        /// The number of its entry.
        message_seq: u64,
    },
    /// A run of an agent ended.
    Run(RunFinished),
}

impl Entry {
    /// What an event is to such a service; `None` for those that it is not told of.
    #[must_use]
    pub fn of(event: Event) -> Option<Self> {
        let Event { seq, at, kind } = event;
        let what = if let EventKind::MessagePosted(posted) = kind {
            What::Message(posted)
        } else if let EventKind::MessageEdited(Edited { message_id, message_seq, text, .. }) = kind
        {
            What::Edit { message_id, message_seq, text }
        } else if let EventKind::MessageDeleted(deleted) = kind {
            What::Delete { message_id: deleted.message_id, message_seq: deleted.message_seq }
        } else if let EventKind::RunFinished(finished) = kind {
            What::Run(finished)
        } else {
            return None;
        };
        Some(Self { seq, at, what })
    }
}

/// The answer to an append: 200 when all of it is kept, 409 when `after` is beyond what is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Appended {
    /// Up to which number the service has everything.
    pub last: u64,
}

/// `GET {url}/groups/{group_id}/messages?after&before&limit`: messages as they are now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Texts {
    /// The newest ones after `after` and before `before`, oldest first, at most `limit`.
    pub messages: Vec<Text>,
}

/// A message of such a page. It may have more members; these are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Text {
    /// The number of its entry.
    pub seq: u64,
    /// Its current text; empty when it was taken back.
    pub text: String,
}
