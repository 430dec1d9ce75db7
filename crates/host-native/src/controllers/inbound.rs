//! Frames from an upstream as the group takes them: parsed, and their tokens verified.

use bytes::Bytes;
use convene_group_controller::RunAct;
use convene_model::{
    AgentId, ApprovalId, Code, ConnId, HistoryId, MessageId, ParticipantId, Ref, RunId,
    claims::Access,
    event::ApprovalDecision,
    frame::{self, BadFrame, UpstreamFrame},
    limits::MAX_FRAME_BYTES,
    token,
    trace::TraceParent,
};

use super::Shared;

/// A frame of a connection, read and checked as far as that is possible without the group.
#[derive(Debug)]
pub(super) enum Inbound {
    Attach {
        conn: ConnId,
        r#ref: Ref,
        access: Result<Access, Code>,
        after: Option<u64>,
        history: Option<HistoryId>,
    },
    Detach {
        conn: ConnId,
        r#ref: Ref,
    },
    Post {
        conn: ConnId,
        r#ref: Ref,
        message_id: MessageId,
        text: String,
        mentions: Option<Vec<ParticipantId>>,
        reply_to: Option<MessageId>,
        trace: Option<TraceParent>,
    },
    Cancel {
        conn: ConnId,
        r#ref: Ref,
        run_id: RunId,
    },
    Approve {
        conn: ConnId,
        r#ref: Ref,
        approval_id: ApprovalId,
        decision: ApprovalDecision,
    },
    Continue {
        conn: ConnId,
        r#ref: Ref,
        message_id: MessageId,
        agent_id: AgentId,
    },
    Retry {
        conn: ConnId,
        r#ref: Ref,
        run_id: RunId,
    },
    /// What an agent's own process does with a run.
    Run {
        conn: ConnId,
        r#ref: Ref,
        run_id: RunId,
        attempt: u32,
        act: RunAct,
    },
    /// A command about a message.
    About {
        conn: ConnId,
        r#ref: Ref,
        message_id: MessageId,
        command: Command,
    },
    Typing {
        conn: ConnId,
    },
    /// A frame that cannot be read.
    Bad(BadFrame),
}

/// What is to become of a message.
#[derive(Debug)]
pub(super) enum Command {
    Edit { text: String },
    Delete,
    React { emoji: String, on: bool },
    Pin { on: bool },
}

/// What a frame turns out to be.
pub(super) enum Read {
    /// It can be taken as it is.
    Ready(Inbound),
    /// Its token is still to be verified.
    Attach(Box<Attach>),
}

/// An `attach` whose token is not verified yet. That takes fifty times as long as reading a frame,
/// so it is done beside the group's task.
pub(super) struct Attach {
    conn: ConnId,
    r#ref: Ref,
    token: String,
    after: Option<u64>,
    history: Option<HistoryId>,
}

impl Attach {
    pub(super) fn verify(self, shared: &Shared) -> Inbound {
        let Self { conn, r#ref, token, after, history } = self;
        let keys = &shared.config.orchestrator_keys;
        let access = token::verify_routing(keys, &token, (shared.clock)())
            .map_err(|error| convene_model::Problem::from(error).code);
        Inbound::Attach { conn, r#ref, access, after, history }
    }
}

/// Reads a frame and verifies its token, if it has one.
pub(super) fn inspect(shared: &Shared, bytes: &Bytes) -> Inbound {
    match read(bytes) {
        Read::Ready(inbound) => inbound,
        Read::Attach(attach) => attach.verify(shared),
    }
}

/// Reads a frame.
pub(super) fn read(bytes: &Bytes) -> Read {
    let parsed = frame::parse::<UpstreamFrame>(bytes);
    if bytes.len() > MAX_FRAME_BYTES {
        let (conn, r#ref) = match parsed {
            Ok(frame) => {
                let (conn, r#ref) = frame.address();
                (Some(conn.clone()), r#ref.cloned())
            }
            Err(bad) => (bad.conn, bad.r#ref),
        };
        let detail = format!("a frame has at most {MAX_FRAME_BYTES} bytes");
        return Read::Ready(Inbound::Bad(BadFrame { code: Code::TooLarge, detail, conn, r#ref }));
    }
    Read::Ready(match parsed {
        Ok(UpstreamFrame::Attach { conn, r#ref, token, after, history, render: _ }) => {
            return Read::Attach(Box::new(Attach { conn, r#ref, token, after, history }));
        }
        Ok(UpstreamFrame::Detach { conn, r#ref }) => Inbound::Detach { conn, r#ref },
        Ok(UpstreamFrame::Post {
            conn,
            r#ref,
            message_id,
            text,
            mentions,
            reply_to,
            traceparent,
        }) => {
            Inbound::Post { conn, r#ref, message_id, text, mentions, reply_to, trace: traceparent }
        }
        Ok(UpstreamFrame::Cancel { conn, r#ref, run_id }) => {
            Inbound::Cancel { conn, r#ref, run_id }
        }
        Ok(UpstreamFrame::Approve { conn, r#ref, approval_id, decision }) => {
            Inbound::Approve { conn, r#ref, approval_id, decision }
        }
        Ok(UpstreamFrame::Continue { conn, r#ref, message_id, agent_id }) => {
            Inbound::Continue { conn, r#ref, message_id, agent_id }
        }
        Ok(UpstreamFrame::Retry { conn, r#ref, run_id }) => Inbound::Retry { conn, r#ref, run_id },
        Ok(UpstreamFrame::RunClaim { conn, r#ref, run_id, attempt }) => {
            Inbound::Run { conn, r#ref, run_id, attempt, act: RunAct::Claim }
        }
        Ok(UpstreamFrame::RunText { conn, r#ref, run_id, attempt, offset, text }) => {
            Inbound::Run { conn, r#ref, run_id, attempt, act: RunAct::Text { offset, text } }
        }
        Ok(UpstreamFrame::RunEnd { conn, r#ref, run_id, attempt, outcome }) => {
            Inbound::Run { conn, r#ref, run_id, attempt, act: RunAct::End(outcome) }
        }
        Ok(UpstreamFrame::Edit { conn, r#ref, message_id, text }) => {
            Inbound::About { conn, r#ref, message_id, command: Command::Edit { text } }
        }
        Ok(UpstreamFrame::Delete { conn, r#ref, message_id }) => {
            Inbound::About { conn, r#ref, message_id, command: Command::Delete }
        }
        Ok(UpstreamFrame::React { conn, r#ref, message_id, emoji, on }) => {
            Inbound::About { conn, r#ref, message_id, command: Command::React { emoji, on } }
        }
        Ok(UpstreamFrame::Pin { conn, r#ref, message_id, on }) => {
            Inbound::About { conn, r#ref, message_id, command: Command::Pin { on } }
        }
        Ok(UpstreamFrame::Typing { conn }) => Inbound::Typing { conn },
        Err(bad) => Inbound::Bad(bad),
    })
}
