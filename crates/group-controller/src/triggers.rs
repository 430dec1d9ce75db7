//! Which agents a message wakes, and why not.

use std::time::Duration;

use convene_model::{
    AgentId, RunId,
    event::{
        Author, Candidate, Decision, GroupAgent, Posted, SuppressReason, TriggerDecided,
        TriggerPolicy, WakeReason,
    },
    limits::{AGENT_COOLDOWN, MAX_CHAIN_RUNS, MAX_QUEUED_RUNS, MAX_ROUNDS},
};

use crate::{
    Phase,
    controller::Turn,
    state::{State, as_agent},
};

/// What is decided about each agent that the message brings into question; `None` when it brings
/// none into question. `round` is how many agents stand between the message and the person who began
/// the chain or let it go on; `answered` wrote the message that it answers. The caller records it in
/// the message's commit.
pub(crate) fn decide(
    turn: &Turn<'_>,
    posted: &Posted,
    round: u32,
    answered: Option<&Author>,
    message_seq: u64,
) -> Option<TriggerDecided> {
    let mut candidates = Vec::new();
    let agents = &turn.state().config.agents;
    // Who asks one agent about the words of another does not ask both.
    let names_none = agents.iter().all(|agent| !mentions(posted, agent));
    let answered = answered.and_then(as_agent).filter(|_| names_none);
    let mut queued = waiting(turn.state());
    let mut in_chain = turn.state().chains.get(&posted.root).copied().unwrap_or(0);
    for (index, agent) in agents.iter().enumerate() {
        let Some(reason) = wake_reason(posted, answered, agent) else { continue };
        let decision = match suppressed(turn, round, in_chain, agent, reason) {
            Some(reason) => Decision::Suppressed { reason },
            None if queued >= MAX_QUEUED_RUNS => {
                Decision::Suppressed { reason: SuppressReason::QueueFull }
            }
            None => {
                queued += 1;
                in_chain += u32::from(reason == WakeReason::Discussion);
                Decision::Accepted { reason, run_id: run_id(message_seq, index) }
            }
        };
        candidates.push(Candidate { agent_id: agent.agent_id.clone(), decision });
    }
    (!candidates.is_empty()).then(|| TriggerDecided {
        message_id: posted.message_id.clone(),
        message_seq,
        candidates,
        by: None,
    })
}

/// Runs that wait for their turn or for a person.
pub(crate) fn waiting(state: &State) -> usize {
    state.runs.iter().filter(|run| !run.phase.works()).count()
}

/// A run's id: unique within the group, since the number of its message or decision is.
///
/// # Panics
/// Never: it has at most 64 safe characters.
pub(crate) fn run_id(message_seq: u64, index: usize) -> RunId {
    RunId::new(format!("r{message_seq}-{index}")).expect("two numbers and a dash make an id")
}

/// Why the message would wake the agent, if it brings it into question at all.
fn wake_reason(
    posted: &Posted,
    answered: Option<&AgentId>,
    agent: &GroupAgent,
) -> Option<WakeReason> {
    let by = as_agent(&posted.author);
    if by == Some(&agent.agent_id) {
        return None;
    }
    match (by, mentions(posted, agent), agent.trigger) {
        (None, true, _) => Some(WakeReason::Mention),
        (Some(_), true, _) => Some(WakeReason::Discussion),
        (None, false, _) if answered == Some(&agent.agent_id) => Some(WakeReason::Reply),
        (None, false, TriggerPolicy::Auto | TriggerPolicy::Discussion) => Some(WakeReason::Auto),
        (Some(_), false, TriggerPolicy::Discussion) => Some(WakeReason::Discussion),
        (None, false, TriggerPolicy::Off | TriggerPolicy::Mention) | (Some(_), false, _) => None,
    }
}

fn mentions(posted: &Posted, agent: &GroupAgent) -> bool {
    posted.mentions.iter().any(|id| id.as_str() == agent.agent_id.as_str())
}

/// Why the agent is not woken all the same. A human's explicit mention or answer is never suppressed
/// by cooldown or rounds: it queues.
fn suppressed(
    turn: &Turn<'_>,
    round: u32,
    in_chain: u32,
    agent: &GroupAgent,
    reason: WakeReason,
) -> Option<SuppressReason> {
    if agent.trigger == TriggerPolicy::Off {
        return Some(SuppressReason::Policy);
    }
    if turn.state().config.paused {
        return Some(SuppressReason::Paused);
    }
    if !agent.outside && turn.live.budget.exhausted_until > turn.now {
        return Some(SuppressReason::Budget);
    }
    match reason {
        WakeReason::Mention | WakeReason::Reply | WakeReason::Continue | WakeReason::Retry => None,
        WakeReason::Auto => cooling(turn, agent),
        WakeReason::Discussion if round >= max_rounds(turn) || in_chain >= MAX_CHAIN_RUNS => {
            Some(SuppressReason::MaxRounds)
        }
        WakeReason::Discussion => cooling(turn, agent),
    }
}

fn max_rounds(turn: &Turn<'_>) -> u32 {
    turn.state().config.max_rounds.unwrap_or(MAX_ROUNDS)
}

fn cooling(turn: &Turn<'_>, agent: &GroupAgent) -> Option<SuppressReason> {
    let state = turn.state();
    // A run that has not begun is shown what is said until it does.
    let is_queued = |run: &crate::Run| {
        run.agent_id == agent.agent_id && run.phase == Phase::Queued && run.work.attempt == 0
    };
    if state.runs.iter().any(is_queued) {
        return Some(SuppressReason::AlreadyQueued);
    }
    let cooldown = state.config.cooldown_secs.map_or(AGENT_COOLDOWN, Duration::from_secs);
    let last = state.last_started.get(&agent.agent_id)?;
    (turn.now.since(*last) < cooldown).then_some(SuppressReason::Cooldown)
}
