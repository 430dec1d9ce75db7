//! Compares each organization's count with its groups. They differ only if something outside the
//! Orchestrator has changed the directory; then the count follows the groups.

use std::sync::Arc;

use convene_db::DbError;

use crate::Shared;

/// Organizations that are repaired in one round.
const PER_ROUND: usize = 64;

pub(super) async fn run(shared: &Arc<Shared>) -> Result<u64, DbError> {
    let mut repaired = 0;
    for org_id in shared.directory.drifted(PER_ROUND).await? {
        if shared.directory.recount(&org_id).await? {
            tracing::error!(org_id, "an organization's count was not that of its groups");
            repaired += 1;
        }
    }
    Ok(repaired)
}
