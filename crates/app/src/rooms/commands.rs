//! What a user asks of a group without a socket, and the answer.

use convene_model::{
    AgentId, ApprovalId, MessageId, ParticipantId, RunId, event::ApprovalDecision,
};

/// A command over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupCommand {
    /// Writes a message.
    Post(PostRequest),
    /// Replaces the text of one's own message.
    Edit {
        /// Which message.
        message_id: MessageId,
        /// Markdown.
        text: String,
    },
    /// Takes a message back.
    Delete {
        /// Which message.
        message_id: MessageId,
    },
    /// Puts a reaction on a message or takes one's own off.
    React {
        /// Which message.
        message_id: MessageId,
        /// One emoji.
        emoji: String,
        /// Whether it should stand.
        on: bool,
    },
    /// Pins a message or takes it off.
    Pin {
        /// Which message.
        message_id: MessageId,
        /// Whether it should be pinned.
        on: bool,
    },
    /// Stops a run.
    Cancel {
        /// Which run.
        run_id: RunId,
    },
    /// Makes a run again that failed, was cut off or stopped.
    Retry {
        /// Which run.
        run_id: RunId,
    },
    /// Decides about a call that an agent wants to make.
    Approve {
        /// Which approval.
        approval_id: ApprovalId,
        /// What is decided.
        decision: ApprovalDecision,
    },
    /// Lets an agent answer a message where a bound had stopped it.
    Continue {
        /// Which message.
        message_id: MessageId,
        /// Which agent.
        agent_id: AgentId,
    },
}

impl GroupCommand {
    /// The message that it is about, if it is about one.
    #[must_use]
    pub fn message_id(&self) -> Option<&MessageId> {
        match self {
            Self::Post(PostRequest { message_id, .. })
            | Self::Edit { message_id, .. }
            | Self::Delete { message_id }
            | Self::React { message_id, .. }
            | Self::Pin { message_id, .. }
            | Self::Continue { message_id, .. } => Some(message_id),
            Self::Cancel { .. } | Self::Retry { .. } | Self::Approve { .. } => None,
        }
    }
}

/// A post over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostRequest {
    /// Makes the post idempotent.
    pub message_id: MessageId,
    /// Markdown.
    pub text: String,
    /// Who is mentioned.
    pub mentions: Option<Vec<ParticipantId>>,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
}

/// A command that was carried out and is durable.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Carried {
    /// The number of its event; absent where everything stood as it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The message that it was about, if it was about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
}
