//! A message as the state remembers it, with what became of the agents that it brought into question.

use convene_model::{
    AgentId, MessageId, RunId, UserId, agents::ContextMessage, event::SuppressReason,
};
use serde::{Deserialize, Serialize};

/// A message as the state remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    /// The number of the event that posted it; 0 where a former version of the state did not keep it.
    #[serde(default)]
    pub(crate) seq: u64,
    /// What it costs, about; counted anew when the state is read.
    #[serde(skip)]
    pub(crate) tokens: usize,
    #[serde(flatten)]
    pub(crate) message: ContextMessage,
    pub(crate) root: MessageId,
    pub(crate) hop: u32,
    /// How many agents stand between it and the person who began its chain or let it go on.
    #[serde(default)]
    pub(crate) round: u32,
    /// That person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) initiator: Option<UserId>,
    /// Agents that a bound kept from answering it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) stopped: Vec<Stopped>,
    /// Runs that it woke and that ended without a whole reply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) broken: Vec<Broken>,
}

/// An agent that a bound kept from answering a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stopped {
    pub(crate) agent_id: AgentId,
    /// Whether a person has let it go on.
    pub(crate) continued: bool,
}

/// A run that ended without a whole reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Broken {
    pub(crate) run_id: RunId,
    pub(crate) agent_id: AgentId,
    pub(crate) round: u32,
    /// Whether it was made again.
    pub(crate) retried: bool,
    /// Whether the agent's own process was not there for it: it is made again when that comes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) missed: bool,
}

impl Remembered {
    pub(crate) fn is(&self, message_id: &MessageId) -> bool {
        self.message.message_id == *message_id
    }

    pub(crate) fn may_be_retried(&self) -> bool {
        self.broken.iter().any(|broken| !broken.retried)
    }
}

/// Whether what kept an agent from answering is a bound that a person may lift.
pub(crate) fn is_bound(reason: SuppressReason) -> bool {
    match reason {
        SuppressReason::Cooldown
        | SuppressReason::MaxRounds
        | SuppressReason::Budget
        | SuppressReason::Paused
        | SuppressReason::QueueFull => true,
        SuppressReason::Policy | SuppressReason::AlreadyQueued => false,
    }
}
