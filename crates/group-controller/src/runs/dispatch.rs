//! Who works next, and what an attempt is given.

use convene_model::{
    RunId,
    agents::InvokeRequest,
    event::{EventKind, RunStarted, ToolStarted},
    limits::MAX_RUNS_AT_ONCE,
};

use crate::{Effect, Invocation, Phase, Run, budget, controller::Turn, outside};

/// Hands waiting runs to the Agents Worker, one per agent and [`MAX_RUNS_AT_ONCE`] per group at a
/// time. While all agents are paused, they wait. A run whose organization may have a budget asks for
/// leave before its first attempt; meanwhile it has its place.
pub(crate) fn dispatch(turn: &mut Turn<'_>) {
    if turn.state().config.paused {
        return;
    }
    while let Some(run) = next(turn) {
        // The model of an outside agent is its owner's to pay for.
        if run.work.attempt == 0 && !outside::is_outside(turn, &run.agent_id) {
            budget::begin(turn, &run);
        } else {
            start(turn, &run);
        }
    }
}

/// The run whose turn it is: one that has begun before one that has not, then first come first
/// served, where an agent's next run comes when the one before it was begun. So an agent with a long
/// queue takes turns with the others instead of keeping them waiting.
fn next(turn: &Turn<'_>) -> Option<Run> {
    let (state, asked) = (turn.state(), &turn.live.budget.asked);
    let has_place = |run: &&Run| run.phase.works() || asked.contains(&run.run_id);
    let working = state.runs.iter().filter(has_place);
    let working: Vec<_> = working.map(|run| &run.agent_id).collect();
    if working.len() >= MAX_RUNS_AT_ONCE {
        return None;
    }
    let waiting = state
        .runs
        .iter()
        .filter(|run| run.phase == Phase::Queued && !working.contains(&&run.agent_id));
    let came = |run: &&Run| {
        let turn = state.turns.get(&run.agent_id).copied().unwrap_or(0);
        (run.work.attempt == 0, run.seq.max(turn))
    };
    waiting.min_by_key(came).cloned()
}

/// Begins the next attempt of a run, which goes on with what the run holds.
pub(crate) fn start(turn: &mut Turn<'_>, run: &Run) {
    start_under(turn, run, run.work.reservation.clone());
}

/// Begins the next attempt of a run, which holds what it may use under this name: the calls that it makes
/// are recorded first.
pub(crate) fn start_under(turn: &mut Turn<'_>, run: &Run, reservation: Option<RunId>) {
    let attempt = run.next_attempt();
    let deadline = run.phase.deadline().unwrap_or(turn.now + run.time_left());
    for request in run.permitted() {
        turn.emit(EventKind::ToolStarted(ToolStarted {
            run_id: run.run_id.clone(),
            attempt,
            call_id: request.call_id,
            tool: request.tool,
            arguments: request.arguments,
        }));
    }
    turn.emit(EventKind::RunStarted(RunStarted {
        run_id: run.run_id.clone(),
        attempt,
        agent_id: run.agent_id.clone(),
        trigger: run.trigger.clone(),
        deadline,
        reservation,
    }));
    if outside::is_outside(turn, &run.agent_id) {
        outside::offer(turn, &run.run_id, attempt);
        return;
    }
    let state = turn.state();
    let agents = state.config.agents.iter();
    let invocation = Invocation {
        org_id: state.identity.org_id.clone(),
        initiator: run.initiator.clone(),
        deadline,
        request: InvokeRequest {
            group_id: state.identity.group_id.clone(),
            agent_id: run.agent_id.clone(),
            run_id: run.run_id.clone(),
            attempt,
            trigger: run.trigger.clone(),
            agents: agents.map(|agent| (agent.agent_id.clone(), agent.name.clone())).collect(),
            summary: state.context_summary(),
            messages: state.context(&run.trigger),
            resume: state.run(&run.run_id).and_then(Run::resume),
        },
    };
    turn.effects.push(Effect::Invoke(Box::new(invocation)));
}
