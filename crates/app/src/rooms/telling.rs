//! Telling a group's controller what it needs to know of a group that has changed.
//!
//! Whoever made the change waits for it, so that what is posted afterwards is decided by it. Never
//! decides what a group is: that is read from the workspace each time.

use std::sync::Arc;

use convene_model::{Code, GroupId, Problem};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use super::{
    GroupDescription,
    shared::{Shared, jittered},
    tuning::{RECONNECT_MAX, TELL_ATTEMPTS},
};

/// Begins to tell; the future is whether the group knows.
pub(super) fn tell(
    shared: &Arc<Shared>,
    group: &GroupId,
) -> impl Future<Output = Result<(), Problem>> + use<> {
    let (first, told) = oneshot::channel();
    let deadline = Instant::now() + shared.tuning.tell_patience;
    tokio::spawn(until_told(Arc::clone(shared), group.clone(), first));
    async move {
        let detail = "It is saved. The group does not answer, and is told as soon as it does.";
        let late = || Problem::new(Code::GroupControllerUnavailable).detail(detail);
        match timeout_at(deadline, told).await {
            Ok(Ok(Err(problem))) if may_pass(problem.code) => Err(late()),
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(late()),
        }
    }
}

async fn until_told(
    shared: Arc<Shared>,
    group: GroupId,
    first: oneshot::Sender<Result<(), Problem>>,
) {
    let (mut first, mut pause) = (Some(first), shared.tuning.reconnect_first);
    for _ in 0..TELL_ATTEMPTS {
        let answer = match once(&shared, &group).await {
            // What is not in service is told when it is opened.
            Err(problem) if is_not_in_service(problem.code) => Ok(()),
            answer => answer,
        };
        let again = match &answer {
            Ok(()) => false,
            Err(problem) => {
                tracing::warn!(
                    %group, code = problem.code.as_str(), detail = problem.detail,
                    "a group could not be told of its new configuration"
                );
                may_pass(problem.code)
            }
        };
        if let Some(first) = first.take() {
            // Nobody waits any more when it took too long.
            let _ = first.send(answer);
        }
        if !again {
            return;
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(RECONNECT_MAX);
    }
}

async fn once(shared: &Shared, group: &GroupId) -> Result<(), Problem> {
    let GroupDescription { org_id, config } = shared.config.groups.describe(group).await?;
    shared.config.orchestrator.configure(group, &org_id, &config).await
}

const fn is_not_in_service(code: Code) -> bool {
    matches!(
        code,
        Code::GroupNotFound | Code::GroupArchived | Code::GroupDeleted | Code::OrgBlocked
    )
}

/// Whether another attempt may do better.
const fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::GroupControllerUnavailable
            | Code::Overloaded
            | Code::Internal
            | Code::RateLimited
    )
}
