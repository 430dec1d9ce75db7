//! What an agent's own process does with a run of its agent: takes it on, writes, ends it.
//!
//! Refused without a change: whatever is not for a run of the connection's own agent
//! (`run_not_found`), an attempt that is over or that another connection has (`conflict`), text that
//! does not follow (`conflict`, with what is there), and text beyond the limit (`too_large`).

use convene_model::{
    AgentId, Code, Ref, Role, RunId,
    agents::{Outcome, OutsideOutcome, failure},
    limits::{MAX_FAILURE_CHARS, MAX_REPLY_BYTES, MAX_TEXT_BYTES},
};

use crate::{
    Address, RunAct, RunEnd,
    commands::attached,
    controller::{Rejected, Turn},
    runs,
};

pub(crate) fn run(
    turn: &mut Turn<'_>,
    from: &Address,
    r#ref: &Ref,
    run_id: &RunId,
    attempt: u32,
    act: RunAct,
) -> Result<(), Rejected> {
    let agent = agent(turn, from)?;
    let found = turn.state().run(run_id).filter(|run| run.agent_id == agent);
    let run = found.ok_or_else(|| Rejected::new(Code::RunNotFound, ""))?;
    if run.phase.attempt() != attempt {
        let detail = format!("attempt {} is under way", run.phase.attempt());
        return Err(Rejected::new(Code::Conflict, detail));
    }
    let Some(claim) = turn.live.claims.get_mut(run_id).filter(|claim| claim.attempt == attempt)
    else {
        return Err(Rejected::new(Code::Conflict, "the attempt is not for its own process"));
    };
    let (is_free, is_ours) = (claim.by.is_none(), claim.by.as_ref() == Some(from));
    let not_ours = "the run is not taken on by this connection";
    let mut seq = None;
    match act {
        RunAct::Claim if is_free => claim.by = Some(from.clone()),
        RunAct::Claim if is_ours => {}
        RunAct::Claim => {
            return Err(Rejected::new(Code::Conflict, "another connection has the run"));
        }
        RunAct::Text { .. } | RunAct::End(_) if !is_ours => {
            return Err(Rejected::new(Code::Conflict, not_ours));
        }
        RunAct::Text { offset, text } => write(turn, run_id, attempt, offset, text)?,
        RunAct::End(outcome) => {
            end(turn, run_id, attempt, outcome)?;
            seq = Some(turn.state().seq());
        }
    }
    turn.ok(from, r#ref, seq, None);
    Ok(())
}

/// The agent that a connection is of.
fn agent(turn: &Turn<'_>, from: &Address) -> Result<AgentId, Rejected> {
    let claims = &attached(turn, from)?.claims;
    let forbidden = || Rejected::new(Code::Forbidden, "this is for agents, not for people");
    match claims.role {
        Role::Agent => AgentId::new(claims.user_id.as_str()).map_err(|_| forbidden()),
        Role::Member | Role::Admin | Role::Owner => Err(forbidden()),
    }
}

fn write(
    turn: &mut Turn<'_>,
    run_id: &RunId,
    attempt: u32,
    offset: u64,
    text: String,
) -> Result<(), Rejected> {
    let run = turn.state().run(run_id).cloned();
    let so_far = run.map_or(0, |run| turn.live.reply(&run).len());
    if offset != so_far as u64 {
        let detail = format!("{so_far} bytes came before");
        return Err(Rejected::new(Code::Conflict, detail));
    }
    if text.len() > MAX_TEXT_BYTES {
        let detail = format!("a piece has at most {MAX_TEXT_BYTES} bytes");
        return Err(Rejected::new(Code::TooLarge, detail));
    }
    if so_far + text.len() > MAX_REPLY_BYTES {
        let detail = format!("a reply has at most {MAX_REPLY_BYTES} bytes");
        return Err(Rejected::new(Code::TooLarge, detail));
    }
    runs::text(turn, run_id, attempt, offset, text);
    Ok(())
}

fn end(
    turn: &mut Turn<'_>,
    run_id: &RunId,
    attempt: u32,
    outcome: OutsideOutcome,
) -> Result<(), Rejected> {
    let outcome = match outcome {
        OutsideOutcome::Completed {} => Outcome::Completed { usage: None },
        OutsideOutcome::Failed { detail } => {
            if detail.trim().is_empty() || detail.chars().count() > MAX_FAILURE_CHARS {
                let detail = format!("a failure is told in 1 to {MAX_FAILURE_CHARS} characters");
                return Err(Rejected::new(Code::ValidationFailed, detail));
            }
            let code = failure::AGENT_FAILED.to_owned();
            Outcome::Failed { code, detail, retry_after_ms: None, usage: None }
        }
    };
    runs::ended(turn, run_id, attempt, RunEnd::Said(outcome));
    Ok(())
}
