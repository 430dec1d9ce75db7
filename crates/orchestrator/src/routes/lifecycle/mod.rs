//! Lifecycle: archive, restore and delete, and what controllers and apps report of a group's coming
//! and going.
//!
//! Owns how a call answers for its task. The work itself is in [`crate::flows`].

pub(crate) mod archive;
pub(crate) mod cleanup;
pub(crate) mod delete;
pub(crate) mod restore;

use convene_model::{Code, Problem, TaskId, tasks::TaskStatus};

use crate::{Shared, idempotency::Answer};

/// Characters of a reason at most.
pub(crate) const MAX_REASON_CHARS: usize = 200;

/// How often a record is read again when another step was faster.
const MAX_LOOKS: usize = 4;

/// That a reason is not too long.
///
/// # Errors
/// [`Code::ValidationFailed`].
pub(crate) fn check_reason(reason: &str) -> Result<(), Problem> {
    if reason.chars().count() <= MAX_REASON_CHARS {
        return Ok(());
    }
    Err(Problem::new(Code::ValidationFailed)
        .detail(format!("a reason has at most {MAX_REASON_CHARS} characters")))
}

/// Waits for a task and answers with what became of it, or with 202 and the task itself.
async fn answer(shared: &Shared, task_id: &TaskId) -> Result<Answer, Problem> {
    let task = shared.wait_for(task_id, shared.times.call_waits).await?.task;
    match (task.status, &task.result) {
        (TaskStatus::Done, Some(result)) => Answer::json(result),
        (TaskStatus::Done, None) => Ok(Answer::no_content()),
        (TaskStatus::Failed, _) => Err(task.problem.unwrap_or_else(|| Code::Internal.into())),
        (TaskStatus::Running, _) => Answer::accepted(&task),
    }
}
