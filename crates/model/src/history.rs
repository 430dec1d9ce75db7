//! Pages of a group's history.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    HistoryId, MessageId, Timestamp,
    event::{Author, Posted, RunFinished},
    limits::{DEFAULT_PAGE, MAX_PAGE},
};

/// Which page of history is asked for; `before` and `after` are exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    /// Only messages with a smaller number; the page holds the newest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// Only messages with a larger number; without `before` the page holds the oldest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// The page around this number: half of it before, the rest from there on. Excludes the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub around: Option<u64>,
    /// 1 to [`MAX_PAGE`]; [`DEFAULT_PAGE`] when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl HistoryQuery {
    /// The page's size.
    ///
    /// # Errors
    /// `Err(limit)` when it is 0 or above [`MAX_PAGE`].
    pub fn page_size(&self) -> Result<usize, usize> {
        match self.limit {
            None => Ok(DEFAULT_PAGE),
            Some(limit) if (1..=MAX_PAGE).contains(&limit) => Ok(limit),
            Some(limit) => Err(limit),
        }
    }
}

/// A message in its current form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// The number of the event that posted it.
    pub seq: u64,
    /// When it was posted.
    pub at: Timestamp,
    /// The message, with its current text; empty when it was deleted.
    #[serde(flatten)]
    pub posted: Posted,
    /// When it was last edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited_at: Option<Timestamp>,
    /// Whether it was taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// The reactions to it, in the order in which each emoji first came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reactions: Vec<Reactions>,
}

/// What one emoji on one message has come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reactions {
    /// The emoji.
    pub emoji: String,
    /// How many authors put it there.
    pub count: u64,
    /// The first of them, at most `MAX_REACTORS_LISTED`.
    pub authors: Vec<Author>,
}

/// A message that another one answers, as much of it as a quotation needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Excerpt {
    /// Its id.
    pub message_id: MessageId,
    /// The number of the event that posted it.
    pub seq: u64,
    /// Who wrote it.
    pub author: Author,
    /// The first `EXCERPT_CHARS` characters of its text; empty when it was deleted.
    pub text: String,
    /// Whether it was taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

/// `GET /groups/{id}/messages/{message_id}`: one message and its former versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MessageDetail {
    /// The message as it is now.
    pub message: Message,
    /// Its former texts, oldest first; none under [`crate::event::RevisionPolicy::Discard`] or when
    /// it was deleted.
    pub revisions: Vec<Revision>,
}

/// A former text of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Revision {
    /// The number of the event that set it.
    pub seq: u64,
    /// When it was set.
    pub at: Timestamp,
    /// The text.
    pub text: String,
}

/// `POST /groups/{id}/search`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchRequest {
    /// Words that must all occur; `"…"` is a phrase, `word*` a beginning. At most
    /// `MAX_QUERY_CHARS` characters and `MAX_QUERY_WORDS` words.
    pub query: String,
    /// Only messages with a smaller number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// Only messages of this author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Author>,
    /// 1 to `MAX_HITS`; `DEFAULT_HITS` when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Messages that a search found, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SearchPage {
    /// The hits.
    pub hits: Vec<Hit>,
    /// Whether there are older ones: ask again with `before` of the last hit's number.
    pub more: bool,
}

/// A message that a search found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hit {
    /// The message as it is now.
    pub message: Message,
    /// The passage that was found, in pieces.
    pub snippet: Vec<SnippetPiece>,
}

/// A piece of a snippet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnippetPiece {
    /// Its text.
    pub text: String,
    /// Whether it matched the query.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hit: bool,
}

/// The end of a run, as history lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FinishedRun {
    /// The number of the event.
    pub seq: u64,
    /// When it ended.
    pub at: Timestamp,
    /// How it ended.
    #[serde(flatten)]
    pub finished: RunFinished,
}

/// A page of history: current forms ordered by the number of the posting event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryPage {
    /// The messages, oldest first.
    pub messages: Vec<Message>,
    /// The runs that ended within the page: after its first message (or from the beginning of the
    /// group when nothing lies before the page) and up to its end.
    pub runs: Vec<FinishedRun>,
    /// Messages outside the page that messages of the page answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answered: Vec<Excerpt>,
    /// Whether there are messages before the page.
    pub more_before: bool,
    /// Whether there are messages after the page.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more_after: bool,
    /// The group's last event number at the time of reading: attach with it to miss nothing.
    pub head: u64,
    /// The numbering that these numbers belong to.
    pub history: HistoryId,
}

/// A page whose messages are passed on unparsed.
#[derive(Debug, Serialize, Deserialize)]
pub struct RawHistoryPage {
    /// The messages, oldest first.
    pub messages: Vec<Box<RawValue>>,
    /// The runs that ended within the page.
    pub runs: Vec<Box<RawValue>>,
    /// Messages outside the page that messages of the page answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answered: Vec<Excerpt>,
    /// Whether there are messages before the page.
    pub more_before: bool,
    /// Whether there are messages after the page.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more_after: bool,
    /// The group's last event number at the time of reading.
    pub head: u64,
    /// The numbering that these numbers belong to.
    pub history: HistoryId,
}
