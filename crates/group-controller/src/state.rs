//! The durable state of a group: a fold over its events, and nothing else.

use std::collections::{BTreeMap, VecDeque};

use convene_model::{
    AgentId, ArchiveId, Code, GroupId, MessageId, RunId, Timestamp, UserId,
    agents::ContextMessage,
    claims::Access,
    event::{
        Activated, Author, Decision, Event, EventKind, GroupAgent, GroupConfig, Pinned, RunStarted,
        TriggerDecided,
    },
    frame::PinView,
    limits::{EXPIRED_TOKEN_GRACE, ROUTING_TOKEN_TTL},
};
use serde::{Deserialize, Serialize};

use crate::{context::Summary, export::Outbox};

/// The durable state of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// What the group was activated as, with the epoch that holds now.
    pub(crate) identity: Activated,
    /// The number of the last event.
    pub(crate) seq: u64,
    pub(crate) config: GroupConfig,
    /// Users whose tokens issued until then are void; kept as long as such a token could live.
    pub(crate) revoked: BTreeMap<UserId, Timestamp>,
    /// Runs that have not ended, in the order of their triggers.
    pub(crate) runs: Vec<Run>,
    /// When each agent was last handed to the Agents Worker, for the cooldown.
    pub(crate) last_started: BTreeMap<AgentId, Timestamp>,
    /// What the messages before the window were about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) summary: Option<Summary>,
    /// The newest messages, oldest first.
    pub(crate) window: VecDeque<Remembered>,
    pub(crate) window_bytes: usize,
    /// What the window costs, about; counted anew when the state is read.
    #[serde(skip)]
    pub(crate) window_tokens: usize,
    /// How many messages there were, deleted ones included.
    pub(crate) messages: u64,
    /// The pinned messages, in the order in which they were pinned.
    pub(crate) pins: Vec<PinView>,
    /// Messages that are too old for the window, but woke a run that has not ended.
    pub(crate) awaited: Vec<Remembered>,
    /// What the organization's own history service is to be told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outbox: Option<Outbox>,
    /// The attempt to archive the group that it stands still for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) frozen: Option<ArchiveId>,
}

/// A run that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Which run.
    pub run_id: RunId,
    /// Which agent.
    pub agent_id: AgentId,
    /// The message that woke it.
    pub trigger: MessageId,
    /// The human message that began the chain.
    pub root: MessageId,
    /// How many agents stand between the root and the message that woke it.
    pub hop: u32,
    /// What it is doing.
    pub phase: Phase,
}

/// What a run that has not ended is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waiting for its turn.
    Queued,
    /// With the Agents Worker, nothing said yet.
    Thinking {
        /// Which attempt.
        attempt: u32,
        /// When the run is given up.
        deadline: Timestamp,
    },
    /// Writing its reply.
    Writing {
        /// Which attempt.
        attempt: u32,
        /// When the run is given up.
        deadline: Timestamp,
    },
}

impl Phase {
    /// The attempt under way; 0 while none is.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        match self {
            Self::Queued => 0,
            Self::Thinking { attempt, .. } | Self::Writing { attempt, .. } => *attempt,
        }
    }

    /// When the run is given up; `None` while it waits.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        match self {
            Self::Queued => None,
            Self::Thinking { deadline, .. } | Self::Writing { deadline, .. } => Some(*deadline),
        }
    }
}

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
}

/// An event that cannot follow on the events before it: the stored history is not a group's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {seq} cannot follow event {last}: {problem}")]
pub struct ImpossibleEvent {
    /// Its number.
    pub seq: u64,
    /// The number before it.
    pub last: u64,
    /// Why it cannot.
    pub problem: &'static str,
}

impl State {
    /// The state after a group's first event.
    pub(crate) fn begin(event: &Event) -> Result<Self, ImpossibleEvent> {
        let impossible = |problem| ImpossibleEvent { seq: event.seq, last: 0, problem };
        if event.seq != 1 {
            return Err(impossible("the first event has number 1"));
        }
        let EventKind::GroupActivated(identity) = &event.kind else {
            return Err(impossible("a group begins with its activation"));
        };
        Ok(Self {
            identity: identity.clone(),
            seq: 1,
            config: GroupConfig::default(),
            revoked: BTreeMap::new(),
            runs: Vec::new(),
            last_started: BTreeMap::new(),
            summary: None,
            window: VecDeque::new(),
            window_bytes: 0,
            window_tokens: 0,
            messages: 0,
            pins: Vec::new(),
            awaited: Vec::new(),
            outbox: None,
            frozen: None,
        })
    }

    /// Takes the next event in.
    pub(crate) fn apply(&mut self, event: &Event) -> Result<(), ImpossibleEvent> {
        let impossible = |problem| ImpossibleEvent { seq: event.seq, last: self.seq, problem };
        if event.seq != self.seq + 1 {
            return Err(impossible("numbers have no gaps"));
        }
        self.check_frozen(&event.kind).map_err(impossible)?;
        match &event.kind {
            EventKind::GroupActivated(_) => return Err(impossible("a group is activated once")),
            EventKind::GroupConfigured(config) => self.config = config.clone(),
            EventKind::GroupAdopted(adopted) => {
                self.identity.epoch = adopted.epoch;
                self.identity.history = adopted.history.clone();
            }
            EventKind::GroupFrozen { archive_id } => self.frozen = Some(archive_id.clone()),
            EventKind::GroupThawed(unfrozen) | EventKind::GroupRestored(unfrozen) => {
                self.frozen = None;
                self.identity.epoch = unfrozen.epoch;
            }
            EventKind::EpochRaised { epoch } => self.identity.epoch = *epoch,
            EventKind::AccessRevoked { user_id } => self.revoke(user_id, event.at),
            EventKind::MessagePosted(posted) => self.remember(event.seq, posted),
            EventKind::MessageEdited(edited) => self.reword(edited),
            EventKind::MessageDeleted(deleted) => self.forget(deleted),
            EventKind::TriggerDecided(decided) => self.queue(decided),
            EventKind::RunStarted(started) => self.start(started, event.at),
            EventKind::RunStreaming { run_id, .. } => self.stream(run_id),
            EventKind::RunFinished(finished) => self.end(&finished.run_id),
            EventKind::SummaryRecorded(recorded) => self.summarize(recorded, event.at),
            EventKind::HistoryExported { upto } => self.exported(*upto),
            EventKind::MessagePinned(pinned) => self.pin(pinned, event.at),
            EventKind::MessageUnpinned(pinned) => self.unpin(&pinned.message_id),
            EventKind::ReactionAdded(_)
            | EventKind::ReactionRemoved(_)
            | EventKind::ToolsRequested(_)
            | EventKind::ToolStarted(_)
            | EventKind::ToolFinished(_)
            | EventKind::ApprovalRequested(_)
            | EventKind::ApprovalVoted(_)
            | EventKind::ApprovalResolved(_)
            | EventKind::ApprovalExpired(_) => {}
        }
        self.put_out(event);
        self.seq = event.seq;
        Ok(())
    }

    /// The number of the last event.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The group.
    #[must_use]
    pub fn group_id(&self) -> &GroupId {
        &self.identity.group_id
    }

    /// What the group was activated as, with the epoch that holds now.
    #[must_use]
    pub fn identity(&self) -> &Activated {
        &self.identity
    }

    /// What the controller was told of the group last.
    #[must_use]
    pub fn config(&self) -> &GroupConfig {
        &self.config
    }

    /// Whether a routing token that was verified still holds for this group as it is now.
    ///
    /// # Errors
    /// [`Code::Forbidden`] for another group or organization, [`Code::StaleEpoch`] for a former
    /// epoch, [`Code::AccessRevoked`] for a token issued before its user was removed.
    pub fn admits(&self, access: &Access) -> Result<(), Code> {
        let claims = &access.claims;
        if claims.group_id != self.identity.group_id || claims.org_id != self.identity.org_id {
            return Err(Code::Forbidden);
        }
        if claims.epoch != self.identity.epoch {
            return Err(Code::StaleEpoch);
        }
        // Tokens carry whole seconds: one of the same second may be from before, so it is refused.
        if self.revoked.get(&claims.user_id).is_some_and(|at| access.issued_at <= *at) {
            return Err(Code::AccessRevoked);
        }
        Ok(())
    }

    /// The pinned messages, in the order in which they were pinned.
    #[must_use]
    pub fn pins(&self) -> &[PinView] {
        &self.pins
    }

    /// The attempt to archive the group that it stands still for: nothing happens in it until it is
    /// thawed, restored or wiped.
    #[must_use]
    pub fn frozen(&self) -> Option<&ArchiveId> {
        self.frozen.as_ref()
    }

    /// How many messages there were, deleted ones included.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// What may follow in a group that stands still: that it goes on, or that a restored backup of
    /// it does. And a group stands still only when its runs have ended.
    fn check_frozen(&self, kind: &EventKind) -> Result<(), &'static str> {
        if let EventKind::GroupThawed(unfrozen) | EventKind::GroupRestored(unfrozen) = kind {
            if self.frozen.as_ref() != Some(&unfrozen.archive_id) {
                return Err("a group goes on from the attempt that it was frozen for");
            }
            if unfrozen.epoch <= self.identity.epoch {
                return Err("a group that was frozen goes on under a higher epoch");
            }
            return Ok(());
        }
        if self.frozen.is_some() && !matches!(kind, EventKind::GroupAdopted(_)) {
            return Err("nothing follows in a group that is frozen");
        }
        if matches!(kind, EventKind::GroupFrozen { .. }) && !self.runs.is_empty() {
            return Err("a group is frozen when its runs have ended");
        }
        Ok(())
    }

    /// Runs that have not ended, in the order of their triggers.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub(crate) fn run(&self, run_id: &RunId) -> Option<&Run> {
        self.runs.iter().find(|run| run.run_id == *run_id)
    }

    pub(crate) fn agent(&self, agent_id: &AgentId) -> Option<&GroupAgent> {
        self.config.agents.iter().find(|agent| agent.agent_id == *agent_id)
    }

    fn revoke(&mut self, user_id: &UserId, at: Timestamp) {
        let horizon = at - (ROUTING_TOKEN_TTL + EXPIRED_TOKEN_GRACE * 2);
        self.revoked.retain(|_, instant| *instant >= horizon);
        self.revoked.insert(user_id.clone(), at);
    }

    fn pin(&mut self, pinned: &Pinned, at: Timestamp) {
        self.pins.push(PinView {
            message_id: pinned.message_id.clone(),
            message_seq: pinned.message_seq,
            author: pinned.author.clone(),
            at,
        });
    }

    pub(crate) fn unpin(&mut self, message_id: &MessageId) {
        self.pins.retain(|pin| pin.message_id != *message_id);
    }

    fn queue(&mut self, decided: &TriggerDecided) {
        let message = self.window.iter().rev().find(|m| m.message.message_id == decided.message_id);
        let (root, hop) = message
            .map_or((decided.message_id.clone(), 0), |message| (message.root.clone(), message.hop));
        for candidate in &decided.candidates {
            if let Decision::Accepted { run_id, .. } = &candidate.decision {
                self.runs.push(Run {
                    run_id: run_id.clone(),
                    agent_id: candidate.agent_id.clone(),
                    trigger: decided.message_id.clone(),
                    root: root.clone(),
                    hop,
                    phase: Phase::Queued,
                });
            }
        }
    }

    fn start(&mut self, started: &RunStarted, at: Timestamp) {
        self.last_started.insert(started.agent_id.clone(), at);
        let agents = &self.config.agents;
        self.last_started.retain(|id, _| agents.iter().any(|agent| agent.agent_id == *id));
        if let Some(run) = self.runs.iter_mut().find(|run| run.run_id == started.run_id) {
            run.phase = Phase::Thinking { attempt: started.attempt, deadline: started.deadline };
        }
    }

    fn end(&mut self, run_id: &RunId) {
        self.runs.retain(|run| run.run_id != *run_id);
        let runs = &self.runs;
        self.awaited.retain(|m| runs.iter().any(|run| run.trigger == m.message.message_id));
    }

    fn stream(&mut self, run_id: &RunId) {
        if let Some(run) = self.runs.iter_mut().find(|run| run.run_id == *run_id)
            && let Phase::Thinking { attempt, deadline } = run.phase
        {
            run.phase = Phase::Writing { attempt, deadline };
        }
    }
}

/// The author as an agent, if it is one.
pub(crate) fn as_agent(author: &Author) -> Option<&AgentId> {
    match author {
        Author::User(_) => None,
        Author::Agent(id) => Some(id),
    }
}
