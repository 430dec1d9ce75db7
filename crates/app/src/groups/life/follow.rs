//! Follows groups whose lives others change: those on their way into the archive or back, whose process
//! may be gone, and those that were archived by themselves or by an operator.

use std::{collections::HashSet, time::Duration};

use convene_db::{Statement, params};
use convene_model::{Code, GroupId, OrgId, infra::GroupStatus};

use super::{in_transit, stands};
use crate::{
    state::AppState,
    ui::view::GroupLife,
    web::{
        failure::{Answer, Failure},
        rows,
    },
};

/// How often it is looked where such groups stand.
pub(crate) const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// Groups that are asked for at a time.
pub(super) const AT_ONCE: u64 = 100;

/// How often it is looked at most which groups of a workspace are archived.
pub(crate) const FRESH_FOR: Duration = Duration::from_secs(10);
/// Workspaces of which it is remembered that this was done.
pub(crate) const MAX_FRESH: u64 = 10_000;

/// Looks which groups of a workspace are archived, for somebody who is shown its list: beside the
/// caller, and not again for a while. What has changed is told to the event streams.
pub(crate) fn freshen(state: &AppState, org: &OrgId) {
    let entry = state.fresh.entry(org.clone()).or_insert(());
    if !entry.is_fresh() {
        return;
    }
    let (state, org) = (state.clone(), org.clone());
    tokio::spawn(async move {
        if let Err(Failure(problem)) = compare(&state, &org).await {
            let code = problem.code.as_str();
            tracing::debug!(org_id = %org, code, "which groups are archived is not known");
        }
    });
}

async fn compare(state: &AppState, org: &OrgId) -> Answer<()> {
    const SQL: &str = "SELECT group_id, status FROM chat_groups
        WHERE org_id = $1 AND activated_at IS NOT NULL AND deleted_at IS NULL";
    let mut archived = HashSet::new();
    let mut after = None;
    loop {
        let page = state.orchestrator.archived(org, after.as_ref()).await?;
        archived.extend(page.groups.into_iter().map(|record| record.group_id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    for row in state.db.query(Statement::new(SQL, params![org.as_str()])).await? {
        let group: GroupId = rows::id(&row, "group_id")?;
        let known = rows::life(&row, "status")? == GroupLife::Archived;
        if known != archived.contains(&group) {
            look_at(state, &group, org).await;
        }
    }
    Ok(())
}

/// Looks until the process stops.
pub(crate) async fn follow(state: AppState) {
    while !state.hub.is_stopping() {
        tokio::time::sleep(FOLLOW_EVERY).await;
        match in_transit(&*state.db).await {
            Ok(groups) => {
                for (group, org) in groups {
                    look_at(&state, &group, &org).await;
                }
            }
            Err(error) => tracing::warn!(%error, "groups in transit cannot be looked for"),
        }
    }
}

async fn look_at(state: &AppState, group: &GroupId, org: &OrgId) {
    let status = match state.orchestrator.record(group, org).await {
        Ok(record) => record.group_status,
        Err(problem) if problem.code == Code::GroupDeleted => GroupStatus::Deleted,
        Err(problem) => {
            let code = problem.code.as_str();
            return tracing::debug!(group_id = %group, code, "where a group stands is not known");
        }
    };
    if let Err(error) = stands(&*state.db, &state.bell, group, status, state.now()).await {
        tracing::warn!(%error, group_id = %group, "where a group stands was not noted");
    }
}
