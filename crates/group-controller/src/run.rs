//! A run that has not ended, as the state remembers it.

use std::time::Duration;

use convene_model::{
    AgentId, CallId, MessageId, RunId, Timestamp, UserId,
    agents::{Resume, ResumedCall, ToolRequest, ToolStatus, Usage, Verdict},
    event::{RunStarted, ToolFinished, ToolStarted, ToolsRequested},
    limits::{MAX_TOOL_EXCERPT_BYTES, MAX_TOOLS_LISTED, RUN_TIMEOUT, TIME_AFTER_APPROVAL},
    tools::ToolView,
};
use serde::{Deserialize, Serialize};

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
    /// How many agents stand between that message and the person who began the chain or let it go
    /// on.
    #[serde(default)]
    pub round: u32,
    /// The number of the event that posted the message, or of the decision to continue or retry.
    #[serde(default)]
    pub seq: u64,
    /// Who answers for it: who began the chain, let it go on, or wanted the run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiator: Option<UserId>,
    /// What it is doing.
    pub phase: Phase,
    /// What its attempts have done so far.
    #[serde(default)]
    pub(crate) work: Work,
}

/// What a run that has not ended is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waiting for its turn.
    Queued,
    /// With the Agents Worker, nothing said yet by this attempt.
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
    /// Waiting for approvals: no attempt is under way, and no time of the run passes.
    Waiting,
}

impl Phase {
    /// The attempt under way; 0 while none is.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        match self {
            Self::Queued | Self::Waiting => 0,
            Self::Thinking { attempt, .. } | Self::Writing { attempt, .. } => *attempt,
        }
    }

    /// When the run is given up; `None` while no attempt is under way.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        match self {
            Self::Queued | Self::Waiting => None,
            Self::Thinking { deadline, .. } | Self::Writing { deadline, .. } => Some(*deadline),
        }
    }

    /// Whether an attempt is under way.
    #[must_use]
    pub fn works(&self) -> bool {
        self.attempt() > 0
    }
}

/// What the attempts of a run have done so far.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Work {
    /// The last attempt that was begun; 0 while none was.
    pub(crate) attempt: u32,
    /// How many attempts were cut off.
    pub(crate) lost: u32,
    /// Under which name it holds what it may use, where that is not its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reservation: Option<RunId>,
    /// How often an attempt ended with calls that it handed over.
    pub(crate) rounds: u32,
    /// How many calls of tools were begun.
    pub(crate) begun: u32,
    /// How many milliseconds of its time it has used; none of them while it waited.
    pub(crate) used_ms: u64,
    /// The reply, as far as it stood at the last hand-over.
    pub(crate) said: String,
    /// What it used, as far as it was told at the last hand-over.
    pub(crate) usage: Option<Usage>,
    /// The last calls, oldest first.
    pub(crate) tools: Vec<ToolView>,
    /// Calls that were begun and have not ended.
    pub(crate) open: Vec<CallId>,
    /// What the last hand-over left.
    pub(crate) handed: Option<Handed>,
}

/// What a hand-over left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handed {
    /// For the next attempt; not read here.
    pub(crate) continuation: String,
    pub(crate) calls: Vec<HandedCall>,
}

/// A call that was handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandedCall {
    pub(crate) request: ToolRequest,
    pub(crate) stage: Stage,
}

/// How far a call has come that was handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// Somebody has to permit it.
    Asked,
    /// The next attempt makes it.
    Permitted,
    /// It was not permitted.
    Denied,
    /// It is recorded as started.
    Started,
    /// It ended.
    Finished { status: ToolStatus, summary: String },
}

impl Run {
    /// How long it may take still.
    pub(crate) fn time_left(&self) -> Duration {
        RUN_TIMEOUT.saturating_sub(Duration::from_millis(self.work.used_ms))
    }

    /// How the next attempt goes on.
    pub(crate) fn resume(&self) -> Option<Resume> {
        let Handed { continuation, calls } = self.work.handed.as_ref()?;
        let calls = calls.iter().map(|HandedCall { request, stage }| ResumedCall {
            call_id: request.call_id.clone(),
            hash: request.hash.clone(),
            verdict: match stage {
                Stage::Asked | Stage::Denied => Verdict::Denied,
                Stage::Permitted | Stage::Started => Verdict::Make,
                Stage::Finished { status: ToolStatus::Unknown, .. } => Verdict::Unknown,
                Stage::Finished { status, summary } => {
                    Verdict::Finished { status: *status, summary: summary.clone() }
                }
            },
        });
        Some(Resume {
            continuation: continuation.clone(),
            offset: self.work.said.len() as u64,
            calls: calls.collect(),
        })
    }

    /// The calls that may be made and are not recorded as started.
    pub(crate) fn permitted(&self) -> Vec<ToolRequest> {
        let calls = self.work.handed.iter().flat_map(|handed| &handed.calls);
        let permitted = calls.filter(|call| call.stage == Stage::Permitted);
        permitted.map(|call| call.request.clone()).collect()
    }

    /// Whether a call of this id is known: handed over, begun, or ended a while ago.
    pub(crate) fn knows(&self, call_id: &CallId) -> bool {
        let handed = self.work.handed.iter().flat_map(|handed| &handed.calls);
        self.work.open.contains(call_id)
            || self.work.tools.iter().any(|tool| tool.call_id == *call_id)
            || handed.into_iter().any(|call| call.request.call_id == *call_id)
    }

    /// The number of the attempt after the last one.
    pub(crate) fn next_attempt(&self) -> u32 {
        self.work.attempt.max(self.phase.attempt()) + 1
    }

    pub(crate) fn begin(&mut self, started: &RunStarted) {
        let RunStarted { attempt, deadline, .. } = *started;
        if self.phase.works() {
            self.work.lost += 1;
        }
        self.work.attempt = attempt;
        self.work.reservation.clone_from(&started.reservation);
        self.phase = Phase::Thinking { attempt, deadline };
    }

    pub(crate) fn stream(&mut self) {
        if let Phase::Thinking { attempt, deadline } = self.phase {
            self.phase = Phase::Writing { attempt, deadline };
        }
    }

    pub(crate) fn hand_over(&mut self, requested: &ToolsRequested, at: Timestamp) {
        if let Some(deadline) = self.phase.deadline() {
            let left = deadline.since(at).min(RUN_TIMEOUT);
            self.work.used_ms = (RUN_TIMEOUT - left).as_millis().try_into().unwrap_or(u64::MAX);
        }
        let calls = requested.calls.iter().map(|request| HandedCall {
            stage: if request.approvers.is_some() { Stage::Asked } else { Stage::Permitted },
            request: request.clone(),
        });
        self.work.rounds += 1;
        self.work.said.clone_from(&requested.said);
        // Without a word of what this attempt used, what those before it used is not all.
        let before = self.work.usage.map(|usage| Usage { tokens_unknown: true, ..usage });
        self.work.usage = requested.usage.or(before);
        self.work.handed =
            Some(Handed { continuation: requested.continuation.clone(), calls: calls.collect() });
        self.phase = if self.asks() { Phase::Waiting } else { Phase::Queued };
    }

    /// Whether somebody has to permit a call.
    fn asks(&self) -> bool {
        let mut calls = self.work.handed.iter().flat_map(|handed| &handed.calls);
        calls.any(|call| call.stage == Stage::Asked)
    }

    pub(crate) fn decide(&mut self, call_id: &CallId, permitted: bool) {
        if let Some(call) = self.handed_mut(call_id).filter(|call| call.stage == Stage::Asked) {
            call.stage = if permitted { Stage::Permitted } else { Stage::Denied };
        }
        if self.phase == Phase::Waiting && !self.asks() {
            self.phase = Phase::Queued;
            let most = RUN_TIMEOUT.saturating_sub(TIME_AFTER_APPROVAL).as_millis();
            self.work.used_ms = self.work.used_ms.min(most.try_into().unwrap_or(u64::MAX));
        }
    }

    pub(crate) fn call_started(&mut self, started: &ToolStarted) {
        self.work.begun += 1;
        self.work.open.push(started.call_id.clone());
        self.list(&started.call_id, &started.tool, &started.arguments);
        if let Some(call) = self.handed_mut(&started.call_id) {
            call.stage = Stage::Started;
        }
    }

    pub(crate) fn call_finished(&mut self, finished: &ToolFinished) {
        let ToolFinished { call_id, status, summary, .. } = finished;
        self.work.open.retain(|open| open != call_id);
        if let Some(call) = self.handed_mut(call_id) {
            let request = call.request.clone();
            if call.stage == Stage::Started {
                call.stage = Stage::Finished { status: *status, summary: summary.clone() };
            } else {
                // It never began, so it is not listed yet.
                self.list(&request.call_id, &request.tool, &request.arguments);
            }
        }
        let listed = self.work.tools.iter_mut().rev().find(|tool| tool.call_id == *call_id);
        if let Some(tool) = listed {
            tool.status = Some(*status);
            tool.summary = Some(excerpt(summary));
        }
    }

    fn list(&mut self, call_id: &CallId, tool: &str, arguments: &str) {
        if self.work.tools.len() >= MAX_TOOLS_LISTED {
            self.work.tools.remove(0);
        }
        self.work.tools.push(ToolView {
            call_id: call_id.clone(),
            tool: tool.to_owned(),
            arguments: excerpt(arguments),
            status: None,
            summary: None,
        });
    }

    fn handed_mut(&mut self, call_id: &CallId) -> Option<&mut HandedCall> {
        let calls = self.work.handed.iter_mut().flat_map(|handed| &mut handed.calls);
        calls.into_iter().find(|call| call.request.call_id == *call_id)
    }
}

fn excerpt(text: &str) -> String {
    cut(text, MAX_TOOL_EXCERPT_BYTES).to_owned()
}

/// As much of a text as fits into so many bytes, cut between code points.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
