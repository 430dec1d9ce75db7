//! The commands of a group, one file each: what is checked, what happens.

mod approve;
mod attach;
mod cancel;
mod configure;
mod delete;
mod detach;
mod edit;
mod freeze;
mod init;
mod let_continue;
mod pin;
mod post;
mod react;
mod restore;
mod retry;
mod revoke;
mod run;
mod thaw;
mod typing;

pub(crate) use approve::approve;
pub(crate) use attach::attach;
pub(crate) use cancel::cancel;
pub(crate) use configure::configure;
pub(crate) use delete::delete;
pub(crate) use detach::detach;
pub(crate) use edit::edit;
pub(crate) use freeze::freeze;
pub(crate) use init::init;
pub(crate) use let_continue::let_continue;
pub(crate) use pin::pin;
pub(crate) use post::post;
pub(crate) use react::react;
pub(crate) use restore::restore;
pub(crate) use retry::retry;
pub(crate) use revoke::revoke;
pub(crate) use run::run;
pub(crate) use thaw::thaw;
pub(crate) use typing::typing;

use convene_model::{
    AgentId, Code, MessageId, Role, UserId,
    claims::{Access, RoutingClaims},
    event::{Candidate, Decision, EventKind, TriggerDecided, TriggerPolicy},
    frame::{DetachReason, GroupFrame},
    limits::{MAX_QUEUED_RUNS, MAX_TEXT_BYTES},
};

use crate::{
    Address, Target,
    controller::{Rejected, Turn},
    triggers,
};

/// The right of an attached connection.
fn attached<'a>(turn: &'a Turn<'_>, from: &Address) -> Result<&'a Access, Rejected> {
    turn.live.access(from).ok_or_else(|| Rejected::new(Code::NotAttached, ""))
}

/// The claims of an attached connection whose user is not a program in the role of an agent.
fn person<'a>(turn: &'a Turn<'_>, from: &Address) -> Result<&'a RoutingClaims, Rejected> {
    let claims = &attached(turn, from)?.claims;
    match claims.role {
        Role::Member | Role::Admin | Role::Owner => Ok(claims),
        Role::Agent => Err(Rejected::new(Code::Forbidden, "this is for people, not for agents")),
    }
}

/// Whether an agent may be let run; `otherwise` is why not where the agent itself may not.
pub(crate) fn may_run(
    turn: &Turn<'_>,
    agent_id: &AgentId,
    otherwise: Code,
) -> Result<(), Rejected> {
    let state = turn.state();
    let agent = state.agent(agent_id);
    if agent.is_none_or(|agent| agent.trigger == TriggerPolicy::Off) {
        return Err(Rejected::new(otherwise, "the agent takes no part in the group"));
    }
    if state.config.paused {
        return Err(Rejected::new(Code::AgentsPaused, ""));
    }
    if triggers::waiting(state) >= MAX_QUEUED_RUNS {
        return Err(Rejected::new(Code::Overloaded, "too many runs wait already"));
    }
    Ok(())
}

/// Records that an agent is woken for a message, by a person or because it has come; the number of the
/// event.
pub(crate) fn wake(
    turn: &mut Turn<'_>,
    message_id: &MessageId,
    message_seq: u64,
    agent_id: &AgentId,
    decision: Decision,
    by: Option<UserId>,
) -> u64 {
    turn.emit(EventKind::TriggerDecided(TriggerDecided {
        message_id: message_id.clone(),
        message_seq,
        candidates: vec![Candidate { agent_id: agent_id.clone(), decision }],
        by,
    }))
}

/// A message that exists and was not taken back.
fn standing(target: Option<Target>) -> Result<Target, Rejected> {
    target.filter(|target| !target.deleted).ok_or_else(|| Rejected::new(Code::MessageNotFound, ""))
}

/// A message's text: 1 to [`MAX_TEXT_BYTES`] bytes, not only blanks.
fn check_text(text: &str) -> Result<(), Rejected> {
    if text.len() > MAX_TEXT_BYTES {
        let detail = format!("a text has at most {MAX_TEXT_BYTES} bytes");
        return Err(Rejected::new(Code::TooLarge, detail));
    }
    if text.trim().is_empty() {
        return Err(Rejected::new(Code::ValidationFailed, "a message needs a text"));
    }
    Ok(())
}

/// Takes over a higher epoch: every token of a former one is void.
fn raise_epoch(turn: &mut Turn<'_>, epoch: u64) {
    turn.emit(EventKind::EpochRaised { epoch });
    for address in turn.live.expel_all() {
        turn.send(
            address,
            GroupFrame::Detached { reason: DetachReason::EpochRaised, user_id: None },
        );
    }
}
