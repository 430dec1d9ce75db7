//! The group protocol `convene.v1`: JSON text frames between clients, apps and groups.
//!
//! A frame from a client has a `type` and mostly a `ref` that the answer repeats. On an upstream
//! the same frames carry `conn` as well, and `attach` its `token`. A frame from the group to one
//! connection has `conn` as its first member, so that it can be put in and taken out unparsed.
//!
//! Owns what clients and apps send, and how frames are read and passed on; what a group sends is in
//! `frame/group.rs`.

mod group;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::{
    AgentId, ApprovalId, Code, ConnId, HistoryId, MessageId, ParticipantId, Ref, RunId,
    agents::OutsideOutcome, event::ApprovalDecision, trace::TraceParent,
};

pub use group::{ApprovalView, DetachReason, GroupFrame, GroupState, PinView, RunPhase, RunView};

/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "convene.v1";
/// The close code for a client that cannot keep up; it reconnects and resumes.
pub const CLOSE_TOO_SLOW: u16 = 4008;
/// The close code of an upstream that carried nobody, when its group falls asleep. Open it again when
/// somebody wants the group, not before.
pub const CLOSE_ASLEEP: u16 = 4010;
/// The close code of an upstream whose group has sent as many bytes as it may.
pub const CLOSE_EGRESS: u16 = 4011;
/// The close code of an upstream that was opened under a former epoch of its group. Open it again when
/// somebody wants the group, with a routing token of the new one.
pub const CLOSE_EPOCH_RAISED: u16 = 4012;

/// How a client wants messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Render {
    /// With a sanitised HTML fragment beside each text.
    Html,
}

/// A frame from a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum ClientFrame {
    /// Joins the group's stream, or renews the right to it.
    Attach {
        /// Repeated by the answer.
        r#ref: Ref,
        /// The last event number that the client has seen; replay begins after it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
        /// The numbering that `after` belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        history: Option<HistoryId>,
        /// How the client wants messages.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        render: Option<Render>,
    },
    /// Leaves the group's stream.
    Detach {
        /// Repeated by the answer.
        r#ref: Ref,
    },
    /// Writes a message.
    Post {
        /// Repeated by the answer.
        r#ref: Ref,
        /// Makes the post idempotent.
        message_id: MessageId,
        /// Markdown, 1 to `MAX_TEXT_BYTES` bytes.
        text: String,
        /// Who is mentioned; where absent, `@name` is matched.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mentions: Option<Vec<ParticipantId>>,
        /// The message that it answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply_to: Option<MessageId>,
    },
    /// Stops a run.
    Cancel {
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which run.
        run_id: RunId,
    },
    /// Decides about a call that an agent wants to make. One's own decision again is success.
    Approve {
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which approval.
        approval_id: ApprovalId,
        /// What is decided.
        decision: ApprovalDecision,
    },
    /// Lets an agent answer a message where a bound had stopped it. A repeat is success.
    Continue {
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which message.
        message_id: MessageId,
        /// Which agent.
        agent_id: AgentId,
    },
    /// Runs an agent again whose run failed, was cut off or stopped. A repeat is success.
    Retry {
        /// Repeated by the answer.
        r#ref: Ref,
        /// The run that ended.
        run_id: RunId,
    },
    /// An agent's own process takes a run on: from then on the run is this connection's.
    #[serde(rename = "run.claim")]
    RunClaim {
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which run.
        run_id: RunId,
        /// Which attempt of it, as `run.started` names it.
        attempt: u32,
    },
    /// More text of the reply of a run that this connection has taken on.
    #[serde(rename = "run.text")]
    RunText {
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which run.
        run_id: RunId,
        /// Which attempt of it.
        attempt: u32,
        /// How many UTF-8 bytes came before.
        offset: u64,
        /// The text, at most `MAX_TEXT_BYTES`.
        text: String,
    },
    /// A run that this connection has taken on is over.
    #[serde(rename = "run.end")]
    RunEnd {
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which run.
        run_id: RunId,
        /// Which attempt of it.
        attempt: u32,
        /// How it ended.
        outcome: OutsideOutcome,
    },
    /// Replaces the text of one's own message. The text that already stands is success.
    Edit {
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which message.
        message_id: MessageId,
        /// Markdown, 1 to `MAX_TEXT_BYTES` bytes.
        text: String,
    },
    /// Takes a message back: one's own, or anybody's for owners and admins. A repeat is success.
    Delete {
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which message.
        message_id: MessageId,
    },
    /// Puts a reaction on a message or takes one's own off. What already stands is success.
    React {
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which message.
        message_id: MessageId,
        /// One emoji, at most `MAX_EMOJI_BYTES` bytes.
        emoji: String,
        /// Whether it should stand.
        on: bool,
    },
    /// Pins a message to the group or takes it off. What already stands is success.
    Pin {
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which message.
        message_id: MessageId,
        /// Whether it should be pinned.
        on: bool,
    },
    /// The user has read the group up to an event. The App keeps it; no group sees this frame.
    Read {
        /// Repeated by the answer.
        r#ref: Ref,
        /// The number of the last event that was read; a lower one than before changes nothing.
        up_to: u64,
    },
    /// The user is writing. Never answered, never stored; sent again every few seconds.
    Typing {},
}

/// A frame from an app, for one of the connections that it carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum UpstreamFrame {
    /// Joins a connection to the group, or renews its right.
    Attach {
        /// Which connection.
        conn: ConnId,
        /// Repeated by the answer.
        r#ref: Ref,
        /// A routing token of the connection's user.
        token: String,
        /// The last event number that the client has seen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
        /// The numbering that `after` belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        history: Option<HistoryId>,
        /// How the client wants messages; the app's affair.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        render: Option<Render>,
    },
    /// Takes a connection off the group.
    Detach {
        /// Which connection.
        conn: ConnId,
        /// Repeated by the answer.
        r#ref: Ref,
    },
    /// Writes a message.
    Post {
        /// Which connection.
        conn: ConnId,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Makes the post idempotent.
        message_id: MessageId,
        /// Markdown.
        text: String,
        /// Who is mentioned.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mentions: Option<Vec<ParticipantId>>,
        /// The message that it answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply_to: Option<MessageId>,
        /// The trace that it is followed in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        traceparent: Option<TraceParent>,
    },
    /// Stops a run.
    Cancel {
        /// Which connection.
        conn: ConnId,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which run.
        run_id: RunId,
    },
    /// Decides about a call that an agent wants to make. One's own decision again is success.
    Approve {
        /// Which connection.
        conn: ConnId,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which approval.
        approval_id: ApprovalId,
        /// What is decided.
        decision: ApprovalDecision,
    },
    /// Lets an agent answer a message where a bound had stopped it. A repeat is success.
    Continue {
        /// Which connection.
        conn: ConnId,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which message.
        message_id: MessageId,
        /// Which agent.
        agent_id: AgentId,
    },
    /// Runs an agent again whose run failed, was cut off or stopped. A repeat is success.
    Retry {
        /// Which connection.
        conn: ConnId,
        /// Repeated by the answer.
        r#ref: Ref,
        /// The run that ended.
        run_id: RunId,
    },
    /// An agent's own process takes a run on: from then on the run is this connection's.
    #[serde(rename = "run.claim")]
    RunClaim {
        /// Which connection.
        conn: ConnId,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which run.
        run_id: RunId,
        /// Which attempt of it, as `run.started` names it.
        attempt: u32,
    },
    /// More text of the reply of a run that this connection has taken on.
    #[serde(rename = "run.text")]
    RunText {
        /// Which connection.
        conn: ConnId,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which run.
        run_id: RunId,
        /// Which attempt of it.
        attempt: u32,
        /// How many UTF-8 bytes came before.
        offset: u64,
        /// The text, at most `MAX_TEXT_BYTES`.
        text: String,
    },
    /// A run that this connection has taken on is over.
    #[serde(rename = "run.end")]
    RunEnd {
        /// Which connection.
        conn: ConnId,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which run.
        run_id: RunId,
        /// Which attempt of it.
        attempt: u32,
        /// How it ended.
        outcome: OutsideOutcome,
    },
    /// Replaces the text of the user's own message. The text that already stands is success.
    Edit {
        /// Which connection.
        conn: ConnId,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which message.
        message_id: MessageId,
        /// Markdown, 1 to `MAX_TEXT_BYTES` bytes.
        text: String,
    },
    /// Takes a message back: the user's own, or anybody's for owners and admins. A repeat is success.
    Delete {
        /// Which connection.
        conn: ConnId,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which message.
        message_id: MessageId,
    },
    /// Puts a reaction on a message or takes the user's own off. What already stands is success.
    React {
        /// Which connection.
        conn: ConnId,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which message.
        message_id: MessageId,
        /// One emoji, at most `MAX_EMOJI_BYTES` bytes.
        emoji: String,
        /// Whether it should stand.
        on: bool,
    },
    /// Pins a message to the group or takes it off. What already stands is success.
    Pin {
        /// Which connection.
        conn: ConnId,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which message.
        message_id: MessageId,
        /// Whether it should be pinned.
        on: bool,
    },
    /// The user is writing. Never answered, never stored; sent again every few seconds.
    Typing {
        /// Which connection.
        conn: ConnId,
    },
}

impl UpstreamFrame {
    /// Which connection the frame is of, and what it is called, if it is to be answered.
    #[must_use]
    pub fn address(&self) -> (&ConnId, Option<&Ref>) {
        match self {
            Self::Attach { conn, r#ref, .. }
            | Self::Detach { conn, r#ref }
            | Self::Post { conn, r#ref, .. }
            | Self::Cancel { conn, r#ref, .. }
            | Self::RunClaim { conn, r#ref, .. }
            | Self::RunText { conn, r#ref, .. }
            | Self::RunEnd { conn, r#ref, .. }
            | Self::Approve { conn, r#ref, .. }
            | Self::Continue { conn, r#ref, .. }
            | Self::Retry { conn, r#ref, .. }
            | Self::Edit { conn, r#ref, .. }
            | Self::Delete { conn, r#ref, .. }
            | Self::React { conn, r#ref, .. }
            | Self::Pin { conn, r#ref, .. } => (conn, Some(r#ref)),
            Self::Typing { conn } => (conn, None),
        }
    }
}

/// The types of frames that a group understands.
pub const FRAME_TYPES: &[&str] = &[
    "attach",
    "detach",
    "post",
    "cancel",
    "approve",
    "continue",
    "retry",
    "edit",
    "delete",
    "react",
    "pin",
    "read",
    "typing",
    "run.claim",
    "run.text",
    "run.end",
];

/// What can be said of a frame that is not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFrame {
    /// Why.
    pub code: Code,
    /// What is wrong, in words.
    pub detail: String,
    /// The frame's `conn`, if that much could be read.
    pub conn: Option<ConnId>,
    /// The frame's `ref`, if that much could be read.
    pub r#ref: Option<Ref>,
}

/// Reads a frame (`ClientFrame` or `UpstreamFrame`).
///
/// # Errors
/// [`BadFrame`] with [`Code::UnknownType`] or [`Code::InvalidFrame`]; its `conn` and `ref` are
/// filled as far as they can be read, so that the answer reaches whoever sent the frame.
pub fn parse<'a, F: Deserialize<'a>>(bytes: &'a [u8]) -> Result<F, BadFrame> {
    let error = match serde_json::from_slice(bytes) {
        Ok(frame) => return Ok(frame),
        Err(error) => error,
    };
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let member = |name: &str| value.get(name).and_then(|v| v.as_str());
    let known = member("type").is_none_or(|name| FRAME_TYPES.contains(&name));
    Err(BadFrame {
        code: if known { Code::InvalidFrame } else { Code::UnknownType },
        detail: error.to_string(),
        conn: member("conn").and_then(|text| ConnId::new(text).ok()),
        r#ref: member("ref").and_then(|text| Ref::new(text).ok()),
    })
}

/// Puts the trace that a frame is followed in into it (a JSON object with at least one member).
#[must_use]
pub fn with_trace(trace: TraceParent, frame: &[u8]) -> Bytes {
    let mut out = format!("{{\"traceparent\":\"{trace}\",").into_bytes();
    out.extend_from_slice(frame.get(1..).unwrap_or_default());
    out.into()
}

const CONN_START: &[u8] = b"{\"conn\":\"";

/// Puts `conn` into a frame (a JSON object with at least one member) as its first member.
#[must_use]
pub fn with_conn(conn: &ConnId, frame: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(frame.len() + conn.as_str().len() + 12);
    out.put_slice(CONN_START);
    out.put_slice(conn.as_str().as_bytes());
    out.put_slice(b"\",");
    out.put_slice(frame.get(1..).unwrap_or_default());
    out.freeze()
}

/// Takes `conn` out of a frame that has it as its first member; `None` for a broadcast, whose
/// bytes come back untouched and uncopied.
#[must_use]
pub fn split_conn(frame: &Bytes) -> (Option<ConnId>, Bytes) {
    let Some(rest) = frame.strip_prefix(CONN_START) else {
        return (None, frame.clone());
    };
    let Some(end) = rest.iter().position(|b| *b == b'"') else {
        return (None, frame.clone());
    };
    let conn = std::str::from_utf8(&rest[..end]).ok().and_then(|text| ConnId::new(text).ok());
    let Some(conn) = conn else {
        return (None, frame.clone());
    };
    let after = CONN_START.len() + end + 1;
    let mut out = BytesMut::with_capacity(frame.len() - after + 1);
    out.put_u8(b'{');
    out.put_slice(frame.get(after + 1..).unwrap_or_default());
    (Some(conn), out.freeze())
}

#[cfg(test)]
mod tests;
