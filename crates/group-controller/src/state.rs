//! The durable state of a group: a fold over its events, and nothing else.

use std::collections::{BTreeMap, VecDeque};

use convene_model::{
    AgentId, ArchiveId, Code, GroupId, MessageId, RunId, Timestamp, UserId,
    agents::failure,
    claims::Access,
    event::{
        Activated, ApprovalDecision, ApprovalResolved, Author, Decision, Event, EventKind,
        GroupAgent, GroupConfig, Pinned, RunFinished, RunStarted, RunStatus, TriggerDecided,
        WakeReason,
    },
    frame::PinView,
    limits::{EXPIRED_TOKEN_GRACE, MAX_RETRYABLE, ROUTING_TOKEN_TTL},
};
use serde::{Deserialize, Serialize};

use crate::{
    Phase, Run,
    approval::Approvals,
    context::Summary,
    export::Outbox,
    remembered::{Broken, Remembered, Stopped, is_bound},
    run::Work,
};

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
    /// The number of the event that began each agent's last attempt: when its next run comes.
    #[serde(default)]
    pub(crate) turns: BTreeMap<AgentId, u64>,
    /// How many runs agents have woken along each chain, by its root, since a person wrote it or let
    /// it go on; of the chains that the other members know.
    #[serde(default)]
    pub(crate) chains: BTreeMap<MessageId, u32>,
    #[serde(default)]
    pub(crate) approvals: Approvals,
    /// What the messages before the window were about. Boxed, since most groups have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) summary: Option<Box<Summary>>,
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
    /// Messages that are too old for the window, but woke a run that has not ended or may be retried.
    pub(crate) awaited: Vec<Remembered>,
    /// What the organization's own history service is to be told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outbox: Option<Outbox>,
    /// The attempt to archive the group that it stands still for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) frozen: Option<ArchiveId>,
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
            turns: BTreeMap::new(),
            chains: BTreeMap::new(),
            approvals: Approvals::default(),
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
            EventKind::TriggerDecided(decided) => self.queue(decided, event.seq),
            EventKind::RunStarted(started) => self.start(started, event),
            EventKind::RunStreaming { run_id, .. } => self.change(run_id, Run::stream),
            EventKind::RunFinished(finished) => self.end(finished),
            EventKind::SummaryRecorded(recorded) => self.summarize(recorded, event.at),
            EventKind::ToolsRequested(requested) => {
                self.change(&requested.run_id, |run| run.hand_over(requested, event.at));
            }
            EventKind::ToolStarted(started) => {
                self.change(&started.run_id, |run| run.call_started(started));
            }
            EventKind::ToolFinished(finished) => {
                self.change(&finished.run_id, |run| run.call_finished(finished));
            }
            EventKind::ApprovalRequested(requested) => self.approvals.ask(requested),
            EventKind::ApprovalVoted(voted) => self.approvals.vote(voted),
            EventKind::ApprovalResolved(resolved) => self.resolve(resolved),
            EventKind::ApprovalExpired(expired) => self.approvals.expire(expired),
            EventKind::HistoryExported { upto } => self.exported(*upto),
            EventKind::MessagePinned(pinned) => self.pin(pinned, event.at),
            EventKind::MessageUnpinned(pinned) => self.unpin(&pinned.message_id),
            EventKind::ReactionAdded(_) | EventKind::ReactionRemoved(_) => {}
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

    fn queue(&mut self, decided: &TriggerDecided, seq: u64) {
        let TriggerDecided { message_id, message_seq, candidates, by } = decided;
        // Decided by itself it has a number of its own; with its message it has the message's.
        let seq = if by.is_some() { seq } else { *message_seq };
        let remembered = self.remembered(message_id);
        let (root, hop, round, initiator) =
            remembered.map_or((message_id.clone(), 0, 0, None), |remembered| {
                let Remembered { root, hop, round, initiator, .. } = remembered;
                (root.clone(), *hop, *round, initiator.clone())
            });
        for candidate in candidates {
            let agent_id = candidate.agent_id.clone();
            match &candidate.decision {
                Decision::Accepted { run_id, reason } => {
                    let round = match reason {
                        WakeReason::Mention
                        | WakeReason::Reply
                        | WakeReason::Auto
                        | WakeReason::Discussion => round,
                        WakeReason::Continue => 0,
                        WakeReason::Retry => self.retried(message_id, &agent_id).unwrap_or(round),
                    };
                    match reason {
                        WakeReason::Discussion => self.count_in_chain(&root),
                        WakeReason::Continue => {
                            self.chains.remove(&root);
                            self.continued(message_id, &agent_id);
                        }
                        WakeReason::Mention
                        | WakeReason::Reply
                        | WakeReason::Auto
                        | WakeReason::Retry => {}
                    }
                    self.runs.push(Run {
                        run_id: run_id.clone(),
                        agent_id,
                        trigger: message_id.clone(),
                        root: root.clone(),
                        hop,
                        round,
                        seq,
                        initiator: by.clone().or_else(|| initiator.clone()),
                        phase: Phase::Queued,
                        work: Work::default(),
                    });
                }
                Decision::Suppressed { reason } if is_bound(*reason) => {
                    if let Some(remembered) = self.remembered_mut(message_id) {
                        remembered.stopped.push(Stopped { agent_id, continued: false });
                    }
                }
                Decision::Suppressed { .. } => {}
            }
        }
    }

    fn count_in_chain(&mut self, root: &MessageId) {
        *self.chains.entry(root.clone()).or_default() += 1;
        let Self { chains, window, awaited, runs, .. } = self;
        chains.retain(|root, _| {
            let mut remembered = window.iter().chain(&*awaited);
            remembered.any(|remembered| remembered.root == *root)
                || runs.iter().any(|run| run.root == *root)
        });
    }

    fn continued(&mut self, message_id: &MessageId, agent_id: &AgentId) {
        let stopped = self.remembered_mut(message_id).into_iter().flat_map(|m| &mut m.stopped);
        for stopped in stopped.filter(|stopped| stopped.agent_id == *agent_id) {
            stopped.continued = true;
        }
    }

    /// Notes that an agent's last run for a message is made again; the round that it was in.
    fn retried(&mut self, message_id: &MessageId, agent_id: &AgentId) -> Option<u32> {
        let broken = self.remembered_mut(message_id)?.broken.iter_mut();
        let broken = broken.filter(|broken| broken.agent_id == *agent_id);
        broken.fold(None, |_, broken| {
            broken.retried = true;
            Some(broken.round)
        })
    }

    fn start(&mut self, started: &RunStarted, event: &Event) {
        self.last_started.insert(started.agent_id.clone(), event.at);
        self.turns.insert(started.agent_id.clone(), event.seq);
        let agents = &self.config.agents;
        self.last_started.retain(|id, _| agents.iter().any(|agent| agent.agent_id == *id));
        self.turns.retain(|id, _| agents.iter().any(|agent| agent.agent_id == *id));
        self.change(&started.run_id, |run| run.begin(started));
    }

    fn resolve(&mut self, resolved: &ApprovalResolved) {
        if let Some(requested) = self.approvals.resolve(resolved) {
            let permitted = match resolved.decision {
                ApprovalDecision::Approve => true,
                ApprovalDecision::Deny => false,
            };
            self.change(&requested.run_id, |run| run.decide(&requested.call_id, permitted));
        }
    }

    fn end(&mut self, finished: &RunFinished) {
        let place = self.runs.iter().position(|run| run.run_id == finished.run_id);
        if let Some(run) = place.map(|place| self.runs.remove(place)) {
            match finished.status {
                RunStatus::Completed => {}
                RunStatus::Failed | RunStatus::Cancelled | RunStatus::Interrupted => {
                    self.broke(run, finished.code.as_deref() == Some(failure::AGENT_NOT_CONNECTED));
                }
            }
        }
        self.trim_awaited();
    }

    fn broke(&mut self, run: Run, missed: bool) {
        let Some(remembered) = self.remembered_mut(&run.trigger) else { return };
        // An agent's runs of one message are made one after the other, and only the last can be
        // made again.
        let others = remembered.broken.iter().filter(|broken| broken.agent_id == run.agent_id);
        if others.count() >= MAX_RETRYABLE
            && let Some(first) = remembered.broken.iter().position(|b| b.agent_id == run.agent_id)
        {
            remembered.broken.remove(first);
        }
        let Run { run_id, agent_id, round, .. } = run;
        remembered.broken.push(Broken { run_id, agent_id, round, retried: false, missed });
    }

    fn change(&mut self, run_id: &RunId, change: impl FnOnce(&mut Run)) {
        if let Some(run) = self.runs.iter_mut().find(|run| run.run_id == *run_id) {
            change(run);
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
