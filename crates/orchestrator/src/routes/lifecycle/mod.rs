//! Lifecycle: archive, restore and delete, and what controllers and apps report of a group's coming
//! and going.
//!
//! Owns how a call answers for its task. The work itself is in [`crate::flows`].

pub(crate) mod adopt;
pub(crate) mod archive;
pub(crate) mod cleanup;
pub(crate) mod delete;
pub(crate) mod restore;

use std::time::Duration;

use convene_hop::RawRequest;
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

/// How long a call waits for its task: as long as it may, or as its `Prefer` header wants it (RFC 7240):
/// `respond-async` not at all, `wait=N` for N seconds at most.
fn patience(request: &RawRequest, most: Duration) -> Duration {
    let Some(header) = request.header("prefer") else { return most };
    let mut patience = most;
    for preference in header.split([',', ';']).map(str::trim) {
        if preference.eq_ignore_ascii_case("respond-async") {
            return Duration::ZERO;
        }
        if let Some((name, value)) = preference.split_once('=')
            && name.trim().eq_ignore_ascii_case("wait")
            && let Ok(secs) = value.trim().trim_matches('"').parse()
        {
            patience = most.min(Duration::from_secs(secs));
        }
    }
    patience
}

/// Waits for a task and answers with what became of it, or with 202 and the task itself.
async fn answer(shared: &Shared, task_id: &TaskId, patience: Duration) -> Result<Answer, Problem> {
    let task = shared.wait_for(task_id, patience).await?.task;
    match (task.status, &task.result) {
        (TaskStatus::Done, Some(result)) => Answer::json(result),
        (TaskStatus::Done, None) => Ok(Answer::no_content()),
        (TaskStatus::Failed, _) => Err(task.problem.unwrap_or_else(|| Code::Internal.into())),
        (TaskStatus::Running, _) => Answer::accepted(&task),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, Method};

    use super::*;

    #[test]
    fn a_caller_may_prefer_to_wait_less_and_never_more() {
        let most = Duration::from_secs(30);
        for (prefer, secs) in [
            (None, 30),
            (Some("respond-async"), 0),
            (Some("Respond-Async, wait=10"), 0),
            (Some("wait=10"), 10),
            (Some("return=minimal; wait=\"5\""), 5),
            (Some("wait=31"), 30),
            (Some("wait=soon"), 30),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(prefer) = prefer {
                headers.insert("prefer", HeaderValue::from_static(prefer));
            }
            let (method, path) = (Method::POST, "/".to_owned());
            let request = RawRequest { method, path, headers, body: Default::default() };
            assert_eq!(patience(&request, most), Duration::from_secs(secs), "{prefer:?}");
        }
    }
}
