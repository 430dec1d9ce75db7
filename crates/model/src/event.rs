//! What a group remembers: its events, in order, numbered without gaps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    AgentId, ArchiveId, GroupId, HistoryId, MessageId, OrgId, ParticipantId, RunId, Timestamp,
    UserId,
    agents::{SummaryAuthor, Usage},
    infra::HistoryMode,
};

pub use crate::tools::{
    ApprovalDecision, ApprovalExpired, ApprovalRequested, ApprovalResolved, ApprovalVoted,
    ToolFinished, ToolStarted, ToolsRequested,
};

/// One thing that happened in a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "EventFrame")]
pub struct Event {
    /// Its number in the group; the first is 1, and there are no gaps.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// An event as it is read: alone or as the frame that it travels in. The frame's `type` is taken
/// out here, since what is flattened may refuse members that it does not know.
#[derive(Deserialize)]
struct EventFrame {
    #[serde(default, rename = "type")]
    _frame_type: serde::de::IgnoredAny,
    seq: u64,
    at: Timestamp,
    #[serde(flatten)]
    kind: EventKind,
}

impl From<EventFrame> for Event {
    fn from(EventFrame { seq, at, kind, .. }: EventFrame) -> Self {
        Self { seq, at, kind }
    }
}

/// What happened, as the member `kind` and the members that belong to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum EventKind {
    /// The group came to life; always the first event.
    #[serde(rename = "group.activated")]
    GroupActivated(Activated),
    /// A restored backup of the group goes on, under a numbering of its own.
    #[serde(rename = "group.adopted")]
    GroupAdopted(Adopted),
    /// What the controller needs to know of the group changed.
    #[serde(rename = "group.configured")]
    GroupConfigured(GroupConfig),
    /// The epoch was raised: every token of a former epoch is void.
    #[serde(rename = "group.epoch_raised")]
    EpochRaised {
        /// The epoch from now on.
        epoch: u64,
    },
    /// The group stands still while it is archived: nothing follows but a thaw or a restoration.
    #[serde(rename = "group.frozen")]
    GroupFrozen {
        /// The attempt to archive it.
        archive_id: ArchiveId,
    },
    /// The attempt to archive the group was given up; it goes on under a higher epoch.
    #[serde(rename = "group.thawed")]
    GroupThawed(Unfrozen),
    /// The group came back from its snapshot; it goes on under a higher epoch.
    #[serde(rename = "group.restored")]
    GroupRestored(Unfrozen),
    /// A user's routing tokens issued before `at` are void.
    #[serde(rename = "access.revoked")]
    AccessRevoked {
        /// Whose.
        user_id: UserId,
    },
    /// Somebody wrote a message.
    #[serde(rename = "message.posted")]
    MessagePosted(Posted),
    /// A message's text was replaced.
    #[serde(rename = "message.edited")]
    MessageEdited(Edited),
    /// A message was taken back; its text is erased.
    #[serde(rename = "message.deleted")]
    MessageDeleted(Deleted),
    /// A message was pinned to the group.
    #[serde(rename = "message.pinned")]
    MessagePinned(Pinned),
    /// A message was taken off the group's pins.
    #[serde(rename = "message.unpinned")]
    MessageUnpinned(Pinned),
    /// A reaction was put on a message.
    #[serde(rename = "reaction.added")]
    ReactionAdded(Reaction),
    /// A reaction was taken off a message.
    #[serde(rename = "reaction.removed")]
    ReactionRemoved(Reaction),
    /// Which agents a message wakes, and which not, and why.
    #[serde(rename = "trigger.decided")]
    TriggerDecided(TriggerDecided),
    /// An attempt of a run was handed to the Agents Worker.
    #[serde(rename = "run.started")]
    RunStarted(RunStarted),
    /// The first text of an attempt arrived: from here on it is not driven again by itself.
    #[serde(rename = "run.streaming")]
    RunStreaming {
        /// Which run.
        run_id: RunId,
        /// Which attempt of it.
        attempt: u32,
    },
    /// A run ended; there is exactly one of these for each run.
    #[serde(rename = "run.finished")]
    RunFinished(RunFinished),
    /// What was written up to an event is with the organization's own history service.
    #[serde(rename = "history.exported")]
    HistoryExported {
        /// The number of the event.
        upto: u64,
    },
    /// What messages were about that agents are no longer shown.
    #[serde(rename = "summary.recorded")]
    SummaryRecorded(SummaryRecorded),
    /// An attempt ended with calls of tools that may change something.
    #[serde(rename = "tool.requested")]
    ToolsRequested(ToolsRequested),
    /// A call of a tool began.
    #[serde(rename = "tool.started")]
    ToolStarted(ToolStarted),
    /// A call of a tool ended.
    #[serde(rename = "tool.finished")]
    ToolFinished(ToolFinished),
    /// An agent asks for permission.
    #[serde(rename = "approval.requested")]
    ApprovalRequested(ApprovalRequested),
    /// One of several people gave it.
    #[serde(rename = "approval.voted")]
    ApprovalVoted(ApprovalVoted),
    /// Permission was given or refused.
    #[serde(rename = "approval.resolved")]
    ApprovalResolved(ApprovalResolved),
    /// Nobody decided in time, or the run ended first.
    #[serde(rename = "approval.expired")]
    ApprovalExpired(ApprovalExpired),
}

impl EventKind {
    /// The message that the event posts or changes, its reactions and pin included.
    #[must_use]
    pub const fn message_id(&self) -> Option<&MessageId> {
        match self {
            Self::MessagePosted(posted) => Some(&posted.message_id),
            Self::MessageEdited(edited) => Some(&edited.message_id),
            Self::MessageDeleted(deleted) => Some(&deleted.message_id),
            Self::MessagePinned(pinned) | Self::MessageUnpinned(pinned) => Some(&pinned.message_id),
            Self::ReactionAdded(reaction) | Self::ReactionRemoved(reaction) => {
                Some(&reaction.message_id)
            }
            Self::GroupActivated(_)
            | Self::GroupAdopted(_)
            | Self::GroupConfigured(_)
            | Self::EpochRaised { .. }
            | Self::GroupFrozen { .. }
            | Self::GroupThawed(_)
            | Self::GroupRestored(_)
            | Self::AccessRevoked { .. }
            | Self::TriggerDecided(_)
            | Self::RunStarted(_)
            | Self::RunStreaming { .. }
            | Self::RunFinished(_)
            | Self::ToolsRequested(_)
            | Self::ToolStarted(_)
            | Self::ToolFinished(_)
            | Self::ApprovalRequested(_)
            | Self::ApprovalVoted(_)
            | Self::ApprovalResolved(_)
            | Self::ApprovalExpired(_)
            | Self::SummaryRecorded(_)
            | Self::HistoryExported { .. } => None,
        }
    }
}

/// Who wrote something.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "id", rename_all = "lowercase")]
pub enum Author {
    /// A person.
    User(UserId),
    /// An agent.
    Agent(AgentId),
}

/// The first event of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activated {
    /// The group.
    pub group_id: GroupId,
    /// Whose it is.
    pub org_id: OrgId,
    /// Where its history is kept.
    pub history_mode: HistoryMode,
    /// Its epoch.
    pub epoch: u64,
    /// The numbering that its events belong to.
    pub history: HistoryId,
}

/// How a group goes on after a backup of it was restored: what came after the backup is lost, and
/// its numbers will be used again, so nobody may take them for the lost ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The epoch from now on, beyond any that the group can have had.
    pub epoch: u64,
    /// The numbering that its events belong to from now on.
    pub history: HistoryId,
}

/// How a group goes on that was frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfrozen {
    /// The attempt to archive it that it was frozen for.
    pub archive_id: ArchiveId,
    /// The epoch from now on.
    pub epoch: u64,
}

/// What the controller needs to know of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// Grows with each change; an equal or older version changes nothing.
    pub version: u64,
    /// The agents of the group.
    pub agents: Vec<GroupAgent>,
    /// Whether all agents are paused.
    #[serde(default)]
    pub paused: bool,
    /// What becomes of a text that an edit replaced.
    #[serde(default)]
    pub revisions: RevisionPolicy,
    /// How far agents may answer each other after a person, at most `MAX_ROUNDS_SETTING`;
    /// `MAX_ROUNDS` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rounds: Option<u32>,
    /// How long an agent that ran is woken by nothing but a person's mention, in seconds, within
    /// `COOLDOWN_SETTING_SECS`; `AGENT_COOLDOWN` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown_secs: Option<u64>,
}

/// What becomes of a text that an edit replaced. A deletion erases every text of its message under
/// either policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RevisionPolicy {
    /// It can be read as a former version of the message.
    #[default]
    Keep,
    /// It is erased.
    Discard,
}

/// An agent as the group knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupAgent {
    /// Which agent.
    pub agent_id: AgentId,
    /// The name by which it is mentioned, without the `@`.
    pub name: String,
    /// What wakes it.
    pub trigger: TriggerPolicy,
    /// Whether it is a process of somebody else's that joins the group and takes its runs on itself.
    #[serde(default, skip_serializing_if = "is_false")]
    pub outside: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes members by reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// What wakes an agent in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TriggerPolicy {
    /// Nothing.
    Off,
    /// A message that mentions it.
    Mention,
    /// Each message of a person.
    Auto,
    /// Each message of a person or of another agent, within the bounds of a discussion.
    Discussion,
}

impl TriggerPolicy {
    /// All of them, from the quietest to the most eager.
    pub const ALL: [Self; 4] = [Self::Off, Self::Mention, Self::Auto, Self::Discussion];
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Posted {
    /// Its id, chosen by its author.
    pub message_id: MessageId,
    /// Who wrote it.
    pub author: Author,
    /// The human message that began the chain which this one belongs to; itself for a human's.
    pub root: MessageId,
    /// How many agents stand between the root and this message.
    pub hop: u32,
    /// Its number among the group's messages, deleted ones included; the first is 1. Unread counts
    /// are differences of it.
    pub nth: u64,
    /// The message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// The run that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// Who is mentioned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<ParticipantId>,
    /// Its text, Markdown. The last member, so that it can be erased without touching the rest.
    pub text: String,
}

impl Posted {
    /// What a repeated post must be equal in: author, text, what it answers. Sixteen bytes.
    ///
    /// Mentions are left out, since the controller may have found them itself in the text.
    #[must_use]
    pub fn digest(&self) -> [u8; 16] {
        post_digest(&self.author, &self.text, self.reply_to.as_ref())
    }
}

/// The digest of a post by its content; see [`Posted::digest`].
#[must_use]
pub fn post_digest(author: &Author, text: &str, reply_to: Option<&MessageId>) -> [u8; 16] {
    let mut hash = blake3::Hasher::new();
    let (kind, id) = match author {
        Author::User(id) => (b"u", id.as_str()),
        Author::Agent(id) => (b"a", id.as_str()),
    };
    hash.update(kind);
    hash.update(id.as_bytes());
    hash.update(b"\0");
    hash.update(reply_to.map_or("", MessageId::as_str).as_bytes());
    hash.update(b"\0");
    hash.update(text.as_bytes());
    let mut out = [0; 16];
    out.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    out
}

/// A new text for a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edited {
    /// Which message.
    pub message_id: MessageId,
    /// The number of the event that posted it.
    pub message_seq: u64,
    /// Who edited it.
    pub author: Author,
    /// The new text; the last member, as in [`Posted`].
    pub text: String,
}

/// A message taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// Which message.
    pub message_id: MessageId,
    /// The number of the event that posted it.
    pub message_seq: u64,
    /// Who took it back.
    pub author: Author,
}

/// A message pinned to the group, or taken off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// Which message.
    pub message_id: MessageId,
    /// The number of the event that posted it.
    pub message_seq: u64,
    /// Who did it.
    pub author: Author,
}

/// A reaction to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaction {
    /// Which message.
    pub message_id: MessageId,
    /// The number of the event that posted it.
    pub message_seq: u64,
    /// Who reacted.
    pub author: Author,
    /// The emoji.
    pub emoji: String,
}

/// Which agents a message wakes; committed with the message. A person who lets an agent continue or
/// retry leaves another one of the same message, with that agent alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerDecided {
    /// The message.
    pub message_id: MessageId,
    /// The number of the event that posted it.
    pub message_seq: u64,
    /// Each agent that came into question.
    pub candidates: Vec<Candidate>,
    /// Who let an agent continue or retry, where that was decided and not the message itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
}

/// An agent that came into question, and what was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which agent.
    pub agent_id: AgentId,
    /// What was decided.
    #[serde(flatten)]
    pub decision: Decision,
}

/// A decision about one agent and one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Decision {
    /// The agent will run.
    Accepted {
        /// Why.
        reason: WakeReason,
        /// The run that was made.
        run_id: RunId,
    },
    /// The agent will not run.
    Suppressed {
        /// Why not.
        reason: SuppressReason,
    },
}

/// Why an agent was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WakeReason {
    /// A person mentioned it.
    Mention,
    /// A person answered a message of it and mentioned no other agent.
    Reply,
    /// It answers each message of a person.
    Auto,
    /// Another agent mentioned it, or it takes part in discussions.
    Discussion,
    /// A person let it go on where a bound had stopped it.
    Continue,
    /// A person wanted a run again that had failed.
    Retry,
}

/// Why an agent was not woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SuppressReason {
    /// It ran in this group a moment ago.
    Cooldown,
    /// Agents have answered each other as often as they may.
    MaxRounds,
    /// The organization's budget is used up.
    Budget,
    /// Its trigger policy is off.
    Policy,
    /// All agents of the group are paused.
    Paused,
    /// Too many runs wait already.
    QueueFull,
    /// A run of it waits already, and will be shown this message too.
    AlreadyQueued,
}

/// An attempt of a run begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStarted {
    /// Which run.
    pub run_id: RunId,
    /// Which attempt; the first is 1.
    pub attempt: u32,
    /// Which agent.
    pub agent_id: AgentId,
    /// The message that woke it.
    pub trigger: MessageId,
    /// When the run ends as timed out.
    pub deadline: Timestamp,
    /// Under which name it holds what it may use, where that is not its id: after an attempt that was cut off
    /// it holds anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<RunId>,
}

/// A run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunFinished {
    /// Which run.
    pub run_id: RunId,
    /// The attempt that was the last; 0 when none was begun.
    pub attempt: u32,
    /// Which agent.
    pub agent_id: AgentId,
    /// The message that woke it.
    pub trigger: MessageId,
    /// How it ended.
    pub status: RunStatus,
    /// The message with its reply, whole or as far as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
    /// A stable code, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// One sentence for people, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What it used, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Under which name it held at last what it may use, where that is not its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<RunId>,
}

/// What the messages of a range were about.
///
/// A change of a message in the range erases its text, as it erases the message's own, and so does
/// the next summary, which takes its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryRecorded {
    /// The number of the event that posted the first message.
    pub from_seq: u64,
    /// The number of the event that posted the last message.
    pub to_seq: u64,
    /// Who wrote it.
    pub by: SummaryAuthor,
    /// The name under which a model was asked for it, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// What asking the model used, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Its text; the last member, as in [`Posted`].
    pub text: String,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// The agent replied.
    Completed,
    /// Something failed; `code` and `detail` say what.
    Failed,
    /// A person stopped it.
    Cancelled,
    /// A crash cut it after it had begun to answer.
    Interrupted,
}
