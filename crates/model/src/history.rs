//! Pages of a group's history.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::{
    ApprovalId, CallId, HistoryId, MessageId, ParticipantId, RunId, Timestamp, UserId,
    event::{Author, Event, EventKind, Posted, RunFinished},
    limits::{DEFAULT_PAGE, MAX_PAGE},
    tools::{ApprovalDecision, ToolView},
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
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

/// A message's members one beside the other: a flattened struct is read by way of a map of all its
/// members, which costs several times as much, and snapshots hold millions of messages.
#[derive(Deserialize)]
struct MessageMembers {
    seq: u64,
    at: Timestamp,
    message_id: MessageId,
    author: Author,
    root: MessageId,
    hop: u32,
    nth: u64,
    #[serde(default)]
    reply_to: Option<MessageId>,
    #[serde(default)]
    run_id: Option<RunId>,
    #[serde(default)]
    mentions: Vec<ParticipantId>,
    text: String,
    #[serde(default)]
    edited_at: Option<Timestamp>,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    reactions: Vec<Reactions>,
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let MessageMembers {
            seq,
            at,
            message_id,
            author,
            root,
            hop,
            nth,
            reply_to,
            run_id,
            mentions,
            text,
            edited_at,
            deleted,
            reactions,
        } = MessageMembers::deserialize(deserializer)?;
        let posted =
            Posted { message_id, author, root, hop, nth, reply_to, run_id, mentions, text };
        Ok(Self { seq, at, posted, edited_at, deleted, reactions })
    }
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
    /// The calls of tools that it made or wanted to make, in the order in which they came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolView>,
    /// What it asked permission for, and what became of that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<PastApproval>,
}

impl FinishedRun {
    /// A run without calls of tools.
    #[must_use]
    pub const fn new(seq: u64, at: Timestamp, finished: RunFinished) -> Self {
        Self { seq, at, finished, tools: Vec::new(), approvals: Vec::new() }
    }
}

/// A permission that an agent asked for, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PastApproval {
    /// The approval.
    pub approval_id: ApprovalId,
    /// The call that it was asked for.
    pub call_id: CallId,
    /// The tool's name.
    pub tool: String,
    /// What became of it.
    pub outcome: ApprovalOutcome,
    /// Who permitted it, or who refused, in the order in which they did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<UserId>,
    /// When that was decided; absent while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// What became of a permission that an agent asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalOutcome {
    /// Nobody has decided yet.
    Open,
    /// It was given.
    Approved,
    /// It was refused.
    Denied,
    /// Nobody decided in time, or the run ended first.
    Expired,
}

/// What a run did with tools, gathered from its events in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolLog {
    /// The calls.
    pub tools: Vec<ToolView>,
    /// The approvals.
    pub approvals: Vec<PastApproval>,
}

impl ToolLog {
    /// Takes the next event of the run in; one that tells of neither changes nothing.
    pub fn take(&mut self, event: Event) {
        let at = event.at;
        match event.kind {
            EventKind::ToolsRequested(requested) => {
                for call in requested.calls {
                    self.call(call.call_id, call.tool, call.arguments);
                }
            }
            EventKind::ToolStarted(started) => {
                self.call(started.call_id, started.tool, started.arguments);
            }
            EventKind::ToolFinished(finished) => {
                let call = self.tools.iter_mut().find(|call| call.call_id == finished.call_id);
                if let Some(call) = call {
                    call.status = Some(finished.status);
                    call.summary = Some(finished.summary);
                }
            }
            EventKind::ApprovalRequested(asked) => self.approvals.push(PastApproval {
                approval_id: asked.approval_id,
                call_id: asked.call_id,
                tool: asked.tool,
                outcome: ApprovalOutcome::Open,
                by: Vec::new(),
                at: None,
            }),
            EventKind::ApprovalVoted(voted) => {
                if let Some(approval) = self.approval(&voted.approval_id) {
                    approval.by.push(voted.user_id);
                }
            }
            EventKind::ApprovalResolved(resolved) => {
                let Some(approval) = self.approval(&resolved.approval_id) else { return };
                approval.at = Some(at);
                match resolved.decision {
                    ApprovalDecision::Approve => approval.outcome = ApprovalOutcome::Approved,
                    // Who had agreed before does not refuse.
                    ApprovalDecision::Deny => {
                        approval.outcome = ApprovalOutcome::Denied;
                        approval.by.clear();
                    }
                }
                approval.by.push(resolved.user_id);
            }
            EventKind::ApprovalExpired(expired) => {
                if let Some(approval) = self.approval(&expired.approval_id) {
                    approval.outcome = ApprovalOutcome::Expired;
                    approval.at = Some(at);
                }
            }
            EventKind::GroupActivated(_)
            | EventKind::GroupAdopted(_)
            | EventKind::GroupConfigured(_)
            | EventKind::EpochRaised { .. }
            | EventKind::GroupFrozen { .. }
            | EventKind::GroupThawed(_)
            | EventKind::GroupRestored(_)
            | EventKind::AccessRevoked { .. }
            | EventKind::MessagePosted(_)
            | EventKind::MessageEdited(_)
            | EventKind::MessageDeleted(_)
            | EventKind::MessagePinned(_)
            | EventKind::MessageUnpinned(_)
            | EventKind::ReactionAdded(_)
            | EventKind::ReactionRemoved(_)
            | EventKind::TriggerDecided(_)
            | EventKind::RunStarted(_)
            | EventKind::RunStreaming { .. }
            | EventKind::RunFinished(_)
            | EventKind::SummaryRecorded(_)
            | EventKind::HistoryExported { .. } => {}
        }
    }

    /// A call that is recorded twice, as wanted and as begun, is one.
    fn call(&mut self, call_id: CallId, tool: String, arguments: String) {
        if !self.tools.iter().any(|call| call.call_id == call_id) {
            self.tools.push(ToolView { call_id, tool, arguments, status: None, summary: None });
        }
    }

    fn approval(&mut self, approval_id: &ApprovalId) -> Option<&mut PastApproval> {
        self.approvals.iter_mut().find(|approval| approval.approval_id == *approval_id)
    }
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
