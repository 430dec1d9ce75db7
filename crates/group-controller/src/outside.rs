//! Agents whose process is somebody else's: a run is offered to whoever is connected as the agent,
//! taken on by one connection, and let go of when that connection ends.
//!
//! Leases, attempts and the one terminal event are those of every run; here is only whose a run is
//! while the controller is in memory. A controller that was rebuilt offers each run anew, as its next
//! attempt, so nobody answers for a claim of before.

use std::collections::BTreeMap;

use convene_model::{
    AgentId, Code, RunId, Timestamp,
    agents::failure,
    event::{Decision, RunStatus, WakeReason},
    limits::OUTSIDE_CLAIM_WITHIN,
};

use crate::{
    Address, Run, commands,
    controller::Turn,
    runs::{self, End},
    triggers,
};

/// The runs of outside agents that are under way.
pub(crate) type Claims = BTreeMap<RunId, Claim>;

/// Whose a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Which attempt of the run.
    pub(crate) attempt: u32,
    /// The connection that has taken it on.
    pub(crate) by: Option<Address>,
    /// When it is given up unless somebody takes it on.
    until: Timestamp,
}

/// When the first offer is given up.
pub(crate) fn next_deadline(claims: &Claims) -> Option<Timestamp> {
    claims.values().filter(|claim| claim.by.is_none()).map(|claim| claim.until).min()
}

/// Offers an attempt that was just started; `run.started` tells whoever is connected.
pub(crate) fn offer(turn: &mut Turn<'_>, run_id: &RunId, attempt: u32) {
    let until = turn.now + OUTSIDE_CLAIM_WITHIN;
    turn.live.claims.insert(run_id.clone(), Claim { attempt, by: None, until });
}

/// Whether an agent runs in a process of somebody else's.
pub(crate) fn is_outside(turn: &Turn<'_>, agent_id: &AgentId) -> bool {
    turn.state().agent(agent_id).is_some_and(|agent| agent.outside)
}

/// Ends the runs that nobody took on in time. What the agent's process was not there for is made again
/// when it comes; one that is there and does nothing is not asked for ever.
pub(crate) fn expire(turn: &mut Turn<'_>) {
    let now = turn.now;
    let due = turn.live.claims.iter().filter(|(_, claim)| claim.by.is_none() && claim.until <= now);
    for run_id in due.map(|(run_id, _)| run_id.clone()).collect::<Vec<_>>() {
        let agent_id = turn.state().run(&run_id).map(|run| run.agent_id.clone());
        let is_there = agent_id.is_some_and(|agent_id| turn.live.has_agent(&agent_id));
        let end = if is_there {
            let detail = "The agent's own process is connected, but did not take the request on.";
            End::failed(failure::AGENT_UNRESPONSIVE, detail)
        } else {
            let detail = "The agent's own process is not connected. It answers when it comes.";
            End::failed(failure::AGENT_NOT_CONNECTED, detail)
        };
        runs::finish(turn, &run_id, end, false);
    }
}

/// An agent's own process has come: what it was not there for is made again, each message once.
pub(crate) fn came(turn: &mut Turn<'_>, agent_id: &AgentId) {
    if !is_outside(turn, agent_id) {
        return;
    }
    for (message_id, message_seq) in turn.state().missed(agent_id) {
        // What may not run now waits for the next time, or for a person.
        if commands::may_run(turn, agent_id, Code::NotRetryable).is_err() {
            return;
        }
        let run_id = triggers::run_id(turn.next_seq(), 0);
        let decision = Decision::Accepted { reason: WakeReason::Retry, run_id };
        commands::wake(turn, &message_id, message_seq, agent_id, decision, None);
    }
    turn.dispatch();
}

/// Lets go of the runs whose connection has ended: one that showed nothing is offered anew.
pub(crate) fn let_go(turn: &mut Turn<'_>) {
    let live = &turn.live;
    let ended = live
        .claims
        .iter()
        .filter(|(_, claim)| claim.by.as_ref().is_some_and(|by| live.access(by).is_none()));
    for run_id in ended.map(|(run_id, _)| run_id.clone()).collect::<Vec<_>>() {
        turn.live.claims.remove(&run_id);
        let run: Option<Run> = turn.state().run(&run_id).cloned();
        if let Some(run) = run {
            let end = End::of(RunStatus::Interrupted).because("The agent's own process went away.");
            runs::lost(turn, &run, end, false);
        }
    }
}
