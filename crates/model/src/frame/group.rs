//! What a group sends, beside events: answers to one connection, what goes to all, and the state that a
//! newcomer is given.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    AgentId, Code, ConnId, HistoryId, MessageId, Ref, RunId, Timestamp, UserId,
    event::{ApprovalRequested, Author, GroupAgent},
    frame::with_conn,
    tools::ToolView,
};

/// A frame from the group, beside events (which are [`crate::record::Record`] bodies).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum GroupFrame {
    /// The connection is in the group's stream; what it missed follows, then what happens.
    Attached {
        /// The attach that this answers.
        r#ref: Ref,
        /// The group's last event number at that moment.
        seq: u64,
        /// The group's epoch.
        epoch: u64,
        /// The numbering.
        history: HistoryId,
        /// What a client needs beside history.
        state: GroupState,
    },
    /// A command was carried out, and is durable.
    Ok {
        /// The command that this answers.
        r#ref: Ref,
        /// The number of the event that it led to, if it led to one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seq: Option<u64>,
        /// The message that it was about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message_id: Option<MessageId>,
    },
    /// A command was refused and changed nothing.
    Error {
        /// The command that this answers, if it could be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        r#ref: Option<Ref>,
        /// Why.
        code: Code,
        /// What is particular to this occurrence.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        /// When trying again makes sense, in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        /// The first event number that can still be replayed, with `too_old`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<u64>,
    },
    /// The numbering is another one, or the client is ahead of it: read history anew.
    Reset {
        /// The attach that this answers.
        r#ref: Ref,
        /// The group's last event number.
        seq: u64,
        /// The numbering.
        history: HistoryId,
    },
    /// The connection is no longer in the group's stream; or, without `conn`, all of a user's.
    Detached {
        /// Why.
        reason: DetachReason,
        /// Whose connections, when the frame is for all of a user's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user_id: Option<UserId>,
    },
    /// More text of a running reply; not persisted.
    Delta {
        /// Which run.
        run_id: RunId,
        /// Which attempt of it.
        attempt: u32,
        /// How many UTF-8 bytes came before.
        offset: u64,
        /// The text.
        text: String,
    },
    /// Who came to the group and who left it since the last such frame, or since `attached`; not
    /// persisted. A user is present while at least one of the user's connections is attached.
    Presence {
        /// Users who are listed as present from now on; some may have been already.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        joined: Vec<UserId>,
        /// Users who are present no longer; some may not have been listed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        left: Vec<UserId>,
        /// How many users are present now, those included who are beyond `MAX_PRESENT_LISTED`.
        count: u64,
    },
    /// A user is writing; holds for `TYPING_TTL`. Not persisted.
    Typing {
        /// Who.
        user_id: UserId,
    },
}

/// Why a connection left the group's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetachReason {
    /// The client asked for it.
    Requested,
    /// Its routing token expired and was not renewed in time.
    TokenExpired,
    /// Its user's access was withdrawn.
    Revoked,
    /// The group's epoch was raised.
    EpochRaised,
    /// The group is archived.
    GroupArchived,
}

/// What a client needs beside history.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GroupState {
    /// The version of the group's configuration.
    pub version: u64,
    /// Its agents.
    pub agents: Vec<GroupAgent>,
    /// Whether all agents are paused.
    pub paused: bool,
    /// The runs that have not ended, in the order of their triggers.
    pub runs: Vec<RunView>,
    /// The approvals that nobody has decided, in the order in which they were asked for.
    #[serde(default)]
    pub approvals: Vec<ApprovalView>,
    /// The pinned messages, in the order in which they were pinned.
    #[serde(default)]
    pub pins: Vec<PinView>,
    /// Users who are present, at most `MAX_PRESENT_LISTED` of them.
    #[serde(default)]
    pub present: Vec<UserId>,
    /// How many users are present in all.
    #[serde(default)]
    pub present_count: u64,
}

/// A pinned message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinView {
    /// Which message.
    pub message_id: MessageId,
    /// The number of the event that posted it.
    pub message_seq: u64,
    /// Who pinned it.
    pub author: Author,
    /// When.
    pub at: Timestamp,
}

/// A run that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// Which run.
    pub run_id: RunId,
    /// Which agent.
    pub agent_id: AgentId,
    /// The message that woke it.
    pub trigger: MessageId,
    /// The attempt under way; 0 while it is queued.
    pub attempt: u32,
    /// What it is doing.
    pub phase: RunPhase,
    /// The last calls of tools, at most `MAX_TOOLS_LISTED`, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolView>,
}

/// An approval that nobody has decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalView {
    /// What is asked.
    #[serde(flatten)]
    pub requested: ApprovalRequested,
    /// Who has agreed so far, where several have to.
    pub votes: Vec<UserId>,
}

/// What a run that has not ended is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunPhase {
    /// Waiting for its turn.
    Queued,
    /// With the Agents Worker, nothing said yet.
    Thinking,
    /// Writing its reply.
    Writing,
    /// Waiting for an approval. No agent works on it meanwhile.
    Waiting,
}

impl GroupFrame {
    /// The frame as bytes.
    ///
    /// # Panics
    /// Never: frames have no map with keys other than texts.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("frames have only text keys").into()
    }

    /// The frame for one connection as bytes, `conn` first.
    #[must_use]
    pub fn encode_for(&self, conn: &ConnId) -> Bytes {
        with_conn(conn, &self.encode())
    }
}
