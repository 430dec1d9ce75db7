//! The runs of agents in a group: what they have said so far, the tools that they use, what they ask
//! leave for, and what a person can do about them.

use convene_model::{
    AgentId, ApprovalId, CallId, MessageId, RunId, UserId,
    event::{
        ApprovalRequested, ApprovalVoted, Author, Decision, Posted, RunFinished, RunStarted,
        RunStatus, SuppressReason, ToolFinished, ToolStarted, ToolsRequested, TriggerDecided,
    },
    frame::{ApprovalView, ClientFrame, RunPhase, RunView},
    history::FinishedRun,
    tools::{ApprovalDecision, Approvers, ToolStatus},
};
use serde::Deserialize;

use super::{Effect, Room};
use crate::text;

/// A run that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) run_id: RunId,
    pub(crate) agent_id: AgentId,
    /// 0 while it waits for its turn.
    pub(crate) attempt: u32,
    /// The text so far.
    pub(crate) text: String,
    /// Whether the text stays when another attempt begins: one before it handed calls over.
    kept: bool,
    /// Whether it waits for an approval.
    pub(crate) waits: bool,
    /// The calls of its tools, oldest first.
    pub(crate) calls: Vec<Call>,
    /// What it asks leave for.
    pub(crate) asks: Vec<Ask>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    call_id: CallId,
    pub(crate) tool: String,
    /// How it ended; absent while it has not.
    pub(crate) status: Option<ToolStatus>,
}

/// A call that an agent may not make until somebody permits it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) requested: ApprovalRequested,
    /// Who has agreed so far.
    pub(crate) votes: Vec<UserId>,
}

/// More text of a run.
#[derive(Deserialize)]
pub(super) struct Delta {
    run_id: RunId,
    attempt: u32,
    offset: u64,
    text: String,
}

impl Run {
    fn new(run_id: RunId, agent_id: AgentId, attempt: u32) -> Self {
        Self {
            run_id,
            agent_id,
            attempt,
            text: String::new(),
            kept: false,
            waits: false,
            calls: Vec::new(),
            asks: Vec::new(),
        }
    }

    fn begin(&mut self, attempt: u32) {
        self.attempt = attempt;
        self.waits = false;
        if !self.kept {
            self.text.clear();
        }
    }

    fn call(&mut self, call_id: CallId, tool: &str) {
        if self.calls.iter().all(|call| call.call_id != call_id) {
            self.calls.push(Call { call_id, tool: text::line(tool), status: None });
        }
    }

    /// The tool that it uses now.
    pub(crate) fn uses(&self) -> Option<&str> {
        let asked =
            |call: &&Call| self.asks.iter().any(|ask| ask.requested.call_id == call.call_id);
        let under_way = self.calls.iter().filter(|call| call.status.is_none());
        under_way.filter(|call| !asked(call)).map(|call| call.tool.as_str()).next()
    }
}

impl Room {
    /// The runs under way when the group was joined.
    pub(super) fn take_runs(&mut self, runs: Vec<RunView>, approvals: Vec<ApprovalView>) {
        let former = std::mem::take(&mut self.runs);
        for view in runs {
            let known = former.iter().find(|run| run.run_id == view.run_id);
            let mut run = Run::new(view.run_id, view.agent_id, view.attempt);
            if let Some(known) = known {
                run.kept = known.kept;
                if known.attempt == view.attempt {
                    run.text.clone_from(&known.text);
                }
            }
            run.waits = view.phase == RunPhase::Waiting;
            for call in view.tools {
                let status = call.status;
                run.calls.push(Call {
                    call_id: call.call_id,
                    tool: text::line(&call.tool),
                    status,
                });
            }
            let own = approvals.iter().filter(|view| view.requested.run_id == run.run_id);
            run.asks = own
                .map(|view| Ask { requested: view.requested.clone(), votes: view.votes.clone() })
                .collect();
            self.runs.push(run);
        }
    }

    /// The runs that ended within a page of history.
    pub(super) fn take_ended(&mut self, runs: Vec<FinishedRun>) {
        for run in runs {
            self.note_end(&run.finished);
            if let (Some(message_id), false) = (run.finished.message_id, run.tools.is_empty()) {
                let calls = run.tools.into_iter().map(|call| Call {
                    call_id: call.call_id,
                    tool: text::line(&call.tool),
                    status: call.status,
                });
                self.used.insert(message_id, calls.collect());
            }
        }
    }

    fn run(&mut self, run_id: &RunId) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.run_id == *run_id)
    }

    pub(super) fn delta(&mut self, delta: Delta) {
        let Delta { run_id, attempt, offset, text } = delta;
        let Some(run) = self.run(&run_id) else { return };
        if run.attempt != attempt {
            run.begin(attempt);
        }
        let Ok(offset) = usize::try_from(offset) else { return };
        // What is repeated after an attach replaces what was there; a gap cannot be filled here,
        // and the finished reply brings all of it.
        if offset <= run.text.len() && run.text.is_char_boundary(offset) {
            run.text.truncate(offset);
            run.text.push_str(&text);
        }
    }

    pub(super) fn decided(&mut self, decided: TriggerDecided) -> Vec<Effect> {
        let mut effects = Vec::new();
        for candidate in decided.candidates {
            let agent_id = candidate.agent_id;
            match candidate.decision {
                Decision::Accepted { run_id, .. } => {
                    self.bounded.take_if(|(_, bounded)| *bounded == agent_id);
                    self.runs.push(Run::new(run_id, agent_id, 0));
                }
                Decision::Suppressed { reason } if is_bound(reason) => {
                    let name = self.name(&Author::Agent(agent_id.clone()));
                    self.bounded = Some((decided.message_id.clone(), agent_id));
                    let said = format!("{name} does not answer; /why says why, /continue lets it.");
                    effects.push(Effect::Say(said));
                }
                Decision::Suppressed { .. } => {}
            }
        }
        effects
    }

    pub(super) fn run_started(&mut self, started: RunStarted) -> Vec<Effect> {
        match self.run(&started.run_id) {
            Some(run) => run.begin(started.attempt),
            None => {
                self.runs.push(Run::new(started.run_id, started.agent_id, started.attempt));
            }
        }
        Vec::new()
    }

    pub(super) fn tools_requested(&mut self, requested: ToolsRequested) -> Vec<Effect> {
        if let Some(run) = self.run(&requested.run_id) {
            run.text = requested.said;
            run.kept = true;
            for call in requested.calls {
                run.call(call.call_id, &call.tool);
            }
        }
        Vec::new()
    }

    pub(super) fn tool_started(&mut self, started: ToolStarted) -> Vec<Effect> {
        if let Some(run) = self.run(&started.run_id) {
            run.call(started.call_id, &started.tool);
        }
        Vec::new()
    }

    pub(super) fn tool_finished(&mut self, finished: &ToolFinished) -> Vec<Effect> {
        let calls = self.run(&finished.run_id).map(|run| &mut run.calls);
        let mut calls = calls.into_iter().flatten();
        if let Some(call) = calls.find(|call| call.call_id == finished.call_id) {
            call.status = Some(finished.status);
        }
        Vec::new()
    }

    pub(super) fn asked(&mut self, requested: ApprovalRequested) -> Vec<Effect> {
        let name = self.name(&Author::Agent(requested.agent_id.clone()));
        let tool = text::line(&requested.tool);
        let mine = self.may_decide(&requested);
        if let Some(run) = self.run(&requested.run_id) {
            run.waits = true;
            run.asks.push(Ask { requested, votes: Vec::new() });
        }
        let how = if mine { ": /approve or /deny" } else { ", for somebody else to decide" };
        vec![Effect::Say(format!("{name} asks to use {tool}{how}"))]
    }

    pub(super) fn voted(&mut self, voted: ApprovalVoted) -> Vec<Effect> {
        let asks = self.run(&voted.run_id).map(|run| &mut run.asks);
        let mut asks = asks.into_iter().flatten();
        if let Some(ask) = asks.find(|ask| ask.requested.approval_id == voted.approval_id) {
            ask.votes.push(voted.user_id);
        }
        Vec::new()
    }

    /// It was decided, or nobody will.
    pub(super) fn settled(&mut self, run_id: &RunId, approval_id: &ApprovalId) -> Vec<Effect> {
        if let Some(run) = self.run(run_id) {
            run.asks.retain(|ask| ask.requested.approval_id != *approval_id);
            run.waits = !run.asks.is_empty();
        }
        Vec::new()
    }

    /// A message that a run wrote takes its place.
    pub(super) fn has_replied(&mut self, posted: &Posted) {
        let Some(run_id) = &posted.run_id else { return };
        let Some(at) = self.runs.iter().position(|run| run.run_id == *run_id) else { return };
        let run = self.runs.remove(at);
        if !run.calls.is_empty() {
            self.used.insert(posted.message_id.clone(), run.calls);
        }
    }

    pub(super) fn run_finished(&mut self, finished: RunFinished) -> Vec<Effect> {
        self.runs.retain(|run| run.run_id != finished.run_id);
        self.note_end(&finished);
        let name = self.name(&Author::Agent(finished.agent_id));
        let said = match finished.status {
            RunStatus::Completed => return Vec::new(),
            RunStatus::Failed => {
                let why = finished.detail.or(finished.code).unwrap_or_default();
                format!("{name} failed: {} (/retry tries again)", text::line(&why))
            }
            RunStatus::Cancelled => format!("{name} was stopped."),
            RunStatus::Interrupted => format!("{name} was interrupted (/retry tries again)."),
        };
        vec![Effect::Say(said)]
    }

    fn note_end(&mut self, finished: &RunFinished) {
        match finished.status {
            RunStatus::Completed => {}
            RunStatus::Failed | RunStatus::Cancelled | RunStatus::Interrupted => {
                self.failed = Some(finished.run_id.clone());
            }
        }
    }

    /// The calls of the run that wrote a message.
    pub(crate) fn used(&self, message: &MessageId) -> &[Call] {
        self.used.get(message).map_or(&[], Vec::as_slice)
    }

    /// Whether this may be for the person to decide; roles are the group's to check.
    pub(crate) fn may_decide(&self, requested: &ApprovalRequested) -> bool {
        match &requested.who {
            Approvers::Initiator => requested.initiator.as_ref() == Some(&self.me),
            Approvers::Role { .. } => true,
            Approvers::NOfM { users, .. } => users.contains(&self.me),
        }
    }

    /// The decision about what was asked for first of what is the person's to decide.
    pub(crate) fn decide(&mut self, decision: ApprovalDecision) -> Option<Effect> {
        let asks = self.runs.iter().flat_map(|run| &run.asks);
        let mut mine = asks.filter(|ask| self.may_decide(&ask.requested));
        let approval_id = mine.next()?.requested.approval_id.clone();
        Some(self.command(|r#ref| ClientFrame::Approve { r#ref, approval_id, decision }))
    }

    /// Lets the agent answer that a bound kept from it last.
    pub(crate) fn let_continue(&mut self) -> Option<Effect> {
        let (message_id, agent_id) = self.bounded.take()?;
        Some(self.command(|r#ref| ClientFrame::Continue { r#ref, message_id, agent_id }))
    }

    /// Tries the last run again that failed, was stopped or cut off.
    pub(crate) fn retry(&mut self) -> Option<Effect> {
        let run_id = self.failed.take()?;
        Some(self.command(|r#ref| ClientFrame::Retry { r#ref, run_id }))
    }
}

/// Whether a person can let the agent go on.
fn is_bound(reason: SuppressReason) -> bool {
    match reason {
        SuppressReason::Cooldown | SuppressReason::MaxRounds => true,
        SuppressReason::Budget
        | SuppressReason::Policy
        | SuppressReason::Paused
        | SuppressReason::QueueFull
        | SuppressReason::AlreadyQueued => false,
    }
}

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
