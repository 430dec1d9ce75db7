//! Joins a connection to the group's stream, or renews its right.

use convene_model::{
    AgentId, Code, HistoryId, Ref, Role, claims::Access, frame::GroupFrame,
    limits::MAX_REPLAY_EVENTS,
};

use crate::{
    Address, Effect,
    controller::{Rejected, Turn},
    outside,
};

pub(crate) fn attach(
    turn: &mut Turn<'_>,
    from: &Address,
    r#ref: &Ref,
    access: Result<Access, Code>,
    after: Option<u64>,
    history: Option<HistoryId>,
) -> Result<(), Rejected> {
    let access = access.map_err(|code| Rejected::new(code, "the routing token does not hold"))?;
    check(turn, from, &access)?;

    let state = turn.state();
    let (seq, ours) = (state.seq(), state.identity.history.clone());
    let foreign = history.is_some_and(|history| history != ours);
    if foreign || after.is_some_and(|after| after > seq) {
        turn.send(from.clone(), GroupFrame::Reset { r#ref: r#ref.clone(), seq, history: ours });
        return Ok(());
    }
    if after.is_some_and(|after| seq - after > MAX_REPLAY_EVENTS) {
        turn.send(
            from.clone(),
            GroupFrame::Error {
                r#ref: Some(r#ref.clone()),
                code: Code::TooOld,
                detail: None,
                retry_after_ms: None,
                start: Some(seq - MAX_REPLAY_EVENTS + 1),
            },
        );
        return Ok(());
    }

    let epoch = state.identity.epoch;
    let in_stream = turn.live.access(from).is_some();
    // First, so that an attach names the last event, and the state has what waits for the agent.
    if let Some(agent_id) = agent_that_comes(&access).filter(|_| !in_stream) {
        outside::came(turn, &agent_id);
    }
    let seq = turn.state().seq();
    turn.live.join(turn.now, from.clone(), access);
    // The user is among those who are present.
    let state = turn.view();
    let r#ref = r#ref.clone();
    turn.send(from.clone(), GroupFrame::Attached { r#ref, seq, epoch, history: ours, state });
    if let Some(after) = after.filter(|after| *after < seq) {
        turn.effects.push(Effect::Replay { to: from.clone(), after, upto: seq });
    }
    // A connection that only renews its right has had each delta already.
    if !in_stream || after.is_some() {
        replies_so_far(turn, from);
    }
    Ok(())
}

/// The agent whose own process attaches, if it is one.
fn agent_that_comes(access: &Access) -> Option<AgentId> {
    match access.claims.role {
        Role::Agent => AgentId::new(access.claims.user_id.as_str()).ok(),
        Role::Member | Role::Admin | Role::Owner => None,
    }
}

fn check(turn: &Turn<'_>, from: &Address, access: &Access) -> Result<(), Rejected> {
    turn.state().admits(access).map_err(|code| Rejected::new(code, ""))?;
    let user_id = &access.claims.user_id;
    if turn.live.access(from).is_some_and(|held| held.claims.user_id != *user_id) {
        return Err(Rejected::new(Code::Forbidden, "the connection belongs to another user"));
    }
    if !turn.live.has_room(from) {
        return Err(Rejected::new(Code::Overloaded, "too many connections"));
    }
    Ok(())
}

/// The text so far of each reply in flight, as one delta from its beginning.
fn replies_so_far(turn: &mut Turn<'_>, to: &Address) {
    let state = turn.state();
    let mut deltas = Vec::new();
    for run in &state.runs {
        let text = turn.live.reply(run);
        if !text.is_empty() {
            deltas.push(GroupFrame::Delta {
                run_id: run.run_id.clone(),
                attempt: run.work.attempt,
                offset: 0,
                text: text.to_owned(),
            });
        }
    }
    for delta in deltas {
        turn.send(to.clone(), delta);
    }
}
