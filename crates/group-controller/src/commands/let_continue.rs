//! Lets an agent answer a message where a bound had stopped it: the chain of messages has its rounds
//! anew from there, and whoever lets it go on answers for the run.

use convene_model::{
    AgentId, Code, MessageId, Ref,
    event::{Decision, WakeReason},
};

use crate::{
    Address,
    commands::{may_run, person, wake},
    controller::{Rejected, Turn},
    triggers,
};

pub(crate) fn let_continue(
    turn: &mut Turn<'_>,
    from: &Address,
    r#ref: &Ref,
    message_id: &MessageId,
    agent_id: &AgentId,
) -> Result<(), Rejected> {
    let user_id = person(turn, from)?.user_id.clone();
    let refused = |detail| Rejected::new(Code::NotContinuable, detail);
    let remembered = turn.state().remembered(message_id);
    let remembered = remembered.ok_or_else(|| refused("the message is gone or too old"))?;
    let stopped = remembered.stopped.iter().find(|stopped| stopped.agent_id == *agent_id);
    let stopped = stopped.ok_or_else(|| refused("nothing stopped the agent there"))?;
    if stopped.continued {
        turn.ok(from, r#ref, None, Some(message_id.clone()));
        return Ok(());
    }
    let message_seq = remembered.seq;
    may_run(turn, agent_id, Code::NotContinuable)?;
    let run_id = triggers::run_id(turn.next_seq(), 0);
    let decision = Decision::Accepted { reason: WakeReason::Continue, run_id };
    let seq = wake(turn, message_id, message_seq, agent_id, decision, Some(user_id));
    turn.ok(from, r#ref, Some(seq), Some(message_id.clone()));
    Ok(())
}
