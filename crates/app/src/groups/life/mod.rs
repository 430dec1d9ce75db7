//! Archive, restore and delete as people have them, and what the workspace knows of a group's life.
//!
//! The Orchestrator decides where a group stands. The workspace keeps what it said last, so that lists
//! need not ask for each group, and looks again where it matters: when a group is opened, when the
//! group itself says so (`rooms`), and while something is under way ([`follow`]).

pub(super) mod api;
pub(crate) mod follow;

use convene_db::{Database, DbError, Statement, params};
use convene_model::{
    Code, GroupId, OrgId, Problem, TaskId, Timestamp, UserId, infra::GroupStatus, tasks::Task,
};
use serde_json::{Value, json};

use super::store::{self, Group};
use crate::{
    changes::{self, Bell, Change},
    identity::caller::Caller,
    orchestrator::Begun,
    state::AppState,
    ui::view::GroupLife,
    web::failure::{Answer, Failure},
    workspaces::audit::{self, Action},
};

/// Takes a group out of service; it can be read from then on, and restored.
pub(super) async fn archive(
    state: &AppState,
    caller: &Caller,
    group: &Group,
) -> Answer<Option<Task>> {
    let reason = format!("archived by {}", caller.id());
    match state.orchestrator.archive(group.id(), group.org(), reason).await {
        Ok(Begun::Done(done)) => {
            let detail = json!({"messages": done.messages, "bytes": done.bytes});
            entered(state, caller, group, GroupLife::Archived, None, &detail).await?;
            Ok(None)
        }
        Ok(Begun::Running(task)) => {
            let detail = json!({"task_id": task.task_id});
            let task_id = Some(&task.task_id);
            entered(state, caller, group, GroupLife::Archiving, task_id, &detail).await?;
            Ok(Some(*task))
        }
        Err(problem) if problem.code == Code::GroupNotFound => {
            let detail = "Nobody has used this group yet: there is nothing to archive.";
            let problem = Problem::new(Code::GroupNotActive).detail(detail);
            Err(problem.with("group_status", "inactive").into())
        }
        Err(problem) => Err(refused(state, group, problem).await),
    }
}

/// Brings an archived group back into service.
pub(super) async fn restore(
    state: &AppState,
    caller: &Caller,
    group: &Group,
) -> Answer<Option<Task>> {
    match state.orchestrator.restore(group.id(), group.org()).await {
        Ok(Begun::Done(_)) => {
            entered(state, caller, group, GroupLife::Active, None, &json!({})).await?;
            Ok(None)
        }
        Ok(Begun::Running(task)) => {
            let detail = json!({"task_id": task.task_id});
            let task_id = Some(&task.task_id);
            entered(state, caller, group, GroupLife::Restoring, task_id, &detail).await?;
            Ok(Some(*task))
        }
        Err(problem) => Err(refused(state, group, problem).await),
    }
}

/// Deletes a group for good. Once the Orchestrator has taken it on nothing ends it, so that the
/// workspace forgets the group at once.
pub(super) async fn delete(state: &AppState, caller: &Caller, group: &Group) -> Answer<()> {
    match state.orchestrator.delete(group.id(), group.org()).await {
        Ok(()) => {}
        // Never used, or deleted already, which the workspace did not know.
        Err(problem) if matches!(problem.code, Code::GroupNotFound | Code::GroupDeleted) => {}
        Err(problem) => return Err(refused(state, group, problem).await),
    }
    let detail = json!({"title": group.item.title});
    let (action, now) = (Action::GroupDeleted, state.now());
    let entry = audit::record(group.org(), caller.id(), action, group.id().as_str(), &detail, now);
    bury(&*state.db, &state.bell, group.id(), now, Some(entry)).await?;
    Ok(())
}

/// How a task of a group stands; what it came to is noted.
pub(super) async fn task(state: &AppState, group: Group, task: &TaskId) -> Answer<Task> {
    let found = state.orchestrator.task(task, group.org()).await?;
    if found.group_id != *group.id() {
        return Err(Code::TaskNotFound.into());
    }
    if found.status != convene_model::tasks::TaskStatus::Running {
        look(state, group).await?;
    }
    Ok(found)
}

/// The group as it stands by the Orchestrator's word; when that cannot be had, as it was known last.
pub(super) async fn look(state: &AppState, mut group: Group) -> Answer<Group> {
    if !store::is_activated(&*state.db, group.id()).await? {
        return Ok(group);
    }
    match state.orchestrator.record(group.id(), group.org()).await {
        Ok(record) => {
            group.history_mode = record.history_mode;
            settle(state, group, record.group_status).await
        }
        Err(problem) if problem.code == Code::GroupDeleted => {
            settle(state, group, GroupStatus::Deleted).await
        }
        // Its activation is on the way.
        Err(problem) if problem.code == Code::GroupNotFound => Ok(group),
        Err(problem) => {
            let code = problem.code.as_str();
            tracing::warn!(group_id = %group.id(), code, "where a group stands is not known");
            Ok(group)
        }
    }
}

async fn settle(state: &AppState, mut group: Group, status: GroupStatus) -> Answer<Group> {
    let now = state.now();
    let Some(life) = life_of(status) else {
        bury(&*state.db, &state.bell, group.id(), now, None).await?;
        return Err(Code::GroupDeleted.into());
    };
    if note(&*state.db, &state.bell, group.id(), life, now).await? {
        group.item.status = life;
        group.item.status_at = Some(now);
    }
    Ok(group)
}

/// Where a group stands for people; `None` for one that is gone or about to be.
pub(super) const fn life_of(status: GroupStatus) -> Option<GroupLife> {
    match status {
        GroupStatus::Active | GroupStatus::Idle => Some(GroupLife::Active),
        GroupStatus::Archiving => Some(GroupLife::Archiving),
        GroupStatus::Archived => Some(GroupLife::Archived),
        GroupStatus::Restoring => Some(GroupLife::Restoring),
        GroupStatus::Deleting | GroupStatus::Deleted => None,
    }
}

/// What a refusal says of where the group stands is noted; the refusal itself is passed on.
async fn refused(state: &AppState, group: &Group, problem: Problem) -> Failure {
    let said = problem.extra.get("group_status").and_then(Value::as_str);
    if let Some(status) = said.and_then(GroupStatus::parse) {
        let noted = stands(&*state.db, &state.bell, group.id(), status, state.now()).await;
        if let Err(error) = noted {
            tracing::warn!(%error, group_id = %group.id(), "where a group stands was not noted");
        }
    }
    problem.into()
}

/// Notes what somebody did, with where the group stands since.
async fn entered(
    state: &AppState,
    caller: &Caller,
    group: &Group,
    life: GroupLife,
    task: Option<&TaskId>,
    detail: &Value,
) -> Result<(), DbError> {
    const SQL: &str = "UPDATE chat_groups SET task_id = $2 WHERE group_id = $1";
    let action = match life {
        GroupLife::Archiving | GroupLife::Archived => Action::GroupArchived,
        GroupLife::Restoring | GroupLife::Active => Action::GroupRestored,
    };
    let (id, now) = (group.id().as_str(), state.now());
    let task = task.map(|task| task.as_str().to_owned());
    let batch = vec![
        Statement::new(SQL, params![id, task]),
        audit::record(group.org(), caller.id(), action, id, detail, now),
    ];
    state.db.batch(batch).await?;
    note(&*state.db, &state.bell, group.id(), life, now).await?;
    Ok(())
}

/// Notes where a group stands by the Orchestrator's word.
pub(super) async fn stands(
    db: &dyn Database,
    bell: &Bell,
    group: &GroupId,
    status: GroupStatus,
    now: Timestamp,
) -> Result<(), DbError> {
    match life_of(status) {
        Some(life) => note(db, bell, group, life, now).await.map(drop),
        None => bury(db, bell, group, now, None).await,
    }
}

/// Notes where a group stands; false when that was known.
pub(super) async fn note(
    db: &dyn Database,
    bell: &Bell,
    group: &GroupId,
    life: GroupLife,
    now: Timestamp,
) -> Result<bool, DbError> {
    const SQL: &str = "UPDATE chat_groups SET status = $2, status_at = $3
        WHERE group_id = $1 AND status <> $2 AND deleted_at IS NULL";
    let params = params![group.as_str(), life.as_str(), now.millis()];
    let mut batch = vec![Statement::new(SQL, params).expect_rows()];
    changes::note(&mut batch, &Change::Group(group.clone()));
    match db.batch(batch).await {
        Ok(_) => {
            bell.ring();
            Ok(true)
        }
        Err(DbError::Unmet { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Forgets a group that is gone: what stays is that it was deleted, for those who could see it.
async fn bury(
    db: &dyn Database,
    bell: &Bell,
    group: &GroupId,
    now: Timestamp,
    entry: Option<Statement>,
) -> Result<(), DbError> {
    const TOMBSTONE: &str = "UPDATE chat_groups
        SET deleted_at = $2, title = '', status = 'active', status_at = NULL, task_id = NULL
        WHERE group_id = $1 AND deleted_at IS NULL";
    const FORGET: [&str; 6] = [
        "DELETE FROM group_agents WHERE group_id = $1",
        "DELETE FROM group_heads WHERE group_id = $1",
        "DELETE FROM read_marks WHERE group_id = $1",
        "DELETE FROM mentions WHERE group_id = $1",
        "DELETE FROM group_preferences WHERE group_id = $1",
        "DELETE FROM secret_grants WHERE group_id = $1",
    ];
    let id = group.as_str();
    let mut batch = vec![Statement::new(TOMBSTONE, params![id, now.millis()]).expect_rows()];
    batch.extend(FORGET.map(|sql| Statement::new(sql, params![id])));
    batch.extend(entry);
    changes::note(&mut batch, &Change::Group(group.clone()));
    match db.batch(batch).await {
        Ok(_) => bell.ring(),
        // Somebody was faster.
        Err(DbError::Unmet { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Whether a group that a user could see was deleted.
pub(super) async fn was_deleted(
    db: &dyn Database,
    group: &GroupId,
    user: &UserId,
) -> Result<bool, DbError> {
    const SQL: &str = "SELECT g.group_id FROM chat_groups g
        JOIN org_members m ON m.org_id = g.org_id AND m.user_id = $2
        WHERE g.group_id = $1 AND g.deleted_at IS NOT NULL AND (g.is_private = 0
            OR EXISTS (SELECT 1 FROM group_members s
                WHERE s.group_id = g.group_id AND s.user_id = $2))";
    let found = db.query(Statement::new(SQL, params![group.as_str(), user.as_str()])).await?;
    Ok(!found.is_empty())
}

/// The groups that something is being done to, with their workspaces.
async fn in_transit(db: &dyn Database) -> Result<Vec<(GroupId, OrgId)>, DbError> {
    const SQL: &str = "SELECT group_id, org_id FROM chat_groups
        WHERE status IN ('archiving', 'restoring') ORDER BY group_id LIMIT $1";
    let found = db.query(Statement::new(SQL, params![follow::AT_ONCE])).await?;
    let ids = found.iter().map(|row| {
        Ok((crate::web::rows::id(row, "group_id")?, crate::web::rows::id(row, "org_id")?))
    });
    ids.collect()
}
