//! Pages of a group's history.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    HistoryId, Timestamp,
    event::{Posted, RunFinished},
    limits::{DEFAULT_PAGE, MAX_PAGE},
};

/// Which page of history is asked for; `before` and `after` are exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    /// Only messages with a smaller number; the page holds the newest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// Only messages with a larger number; without `before` the page holds the oldest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// The end of a run, as history lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// The messages, oldest first.
    pub messages: Vec<Message>,
    /// The runs that ended within the page: after its first message (or from the beginning of the
    /// group when nothing lies before the page) and up to its end.
    pub runs: Vec<FinishedRun>,
    /// Whether there are messages before the page.
    pub more_before: bool,
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
    /// Whether there are messages before the page.
    pub more_before: bool,
    /// The group's last event number at the time of reading.
    pub head: u64,
    /// The numbering that these numbers belong to.
    pub history: HistoryId,
}
