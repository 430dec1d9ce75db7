//! Makes a run again that ended without a whole reply, as a new run for the same message; whoever
//! wants it answers for it.

use convene_model::{
    Code, Ref, RunId,
    event::{Decision, WakeReason},
};

use crate::{
    Address,
    commands::{may_run, person, wake},
    controller::{Rejected, Turn},
    triggers,
};

pub(crate) fn retry(
    turn: &mut Turn<'_>,
    from: &Address,
    r#ref: &Ref,
    run_id: &RunId,
) -> Result<(), Rejected> {
    let user_id = person(turn, from)?.user_id.clone();
    let Some((remembered, broken)) = turn.state().broken(run_id) else {
        return Err(Rejected::new(Code::NotRetryable, ""));
    };
    let (message_id, message_seq) = (remembered.message.message_id.clone(), remembered.seq);
    if broken.retried {
        turn.ok(from, r#ref, None, Some(message_id));
        return Ok(());
    }
    let agent_id = broken.agent_id.clone();
    may_run(turn, &agent_id, Code::NotRetryable)?;
    let run_id = triggers::run_id(turn.next_seq(), 0);
    let decision = Decision::Accepted { reason: WakeReason::Retry, run_id };
    let seq = wake(turn, &message_id, message_seq, &agent_id, decision, Some(user_id));
    turn.ok(from, r#ref, Some(seq), Some(message_id));
    Ok(())
}
