//! Groups in the database, always through the eyes of somebody.

use convene_db::{Database, DbError, Statement, params};
use convene_model::{
    Code, GroupId, OrgId, Problem, Role, TaskId, Timestamp, UserId, event::RevisionPolicy,
    infra::HistoryMode,
};
use serde_json::json;

use super::life;
use crate::{
    changes::Change as Changed,
    identity::caller::Caller,
    reading,
    state::AppState,
    ui::view::GroupItem,
    web::{failure::Answer, rows},
    workspaces::{
        audit::{self, Action},
        orgs,
    },
};

/// A group as somebody with access sees it.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// What lists show.
    pub(crate) item: GroupItem,
    /// Whether all agents are paused.
    pub(crate) paused: bool,
    /// What becomes of a text that an edit replaced.
    pub(crate) revisions: RevisionPolicy,
    /// How far agents may answer each other after a person, where the group says.
    pub(crate) max_rounds: Option<u32>,
    /// How long an agent that ran rests, in seconds, where the group says.
    pub(crate) cooldown_secs: Option<u64>,
    /// Who made it.
    pub(crate) created_by: UserId,
    /// What the reader is in it.
    pub(crate) role: Role,
    /// What is under way with it, or was last.
    pub(crate) task: Option<TaskId>,
    /// Where its history is kept: what the operator says of its workspace, until the Orchestrator was
    /// asked ([`life::look`]), since a group keeps the mode in which it was first activated.
    pub(crate) history_mode: HistoryMode,
}

impl Group {
    pub(crate) fn id(&self) -> &GroupId {
        &self.item.group_id
    }

    pub(crate) fn org(&self) -> &OrgId {
        &self.item.org_id
    }

    /// Whether `user` may change the group's title, access, members and agents: its maker, and
    /// whoever manages the workspace and has access.
    pub(crate) fn is_managed_by(&self, user: &UserId) -> bool {
        self.role.manages() || self.created_by == *user
    }
}

/// The group, if the user may see it.
pub(crate) async fn find(
    db: &dyn Database,
    group: &GroupId,
    user: &UserId,
) -> Result<Option<Group>, DbError> {
    let sql = format!("{} AND g.group_id = $1 AND m.user_id = $2", reading::SEEN);
    let params = params![group.as_str(), user.as_str()];
    let found = db.query(Statement::new(sql, params)).await?;
    let Some(row) = found.first() else { return Ok(None) };
    Ok(Some(Group {
        item: reading::item(row)?,
        paused: row.get("paused")?,
        revisions: rows::revisions(row, "revisions")?,
        max_rounds: row.get("max_rounds")?,
        cooldown_secs: row.get("cooldown_secs")?,
        created_by: rows::id(row, "created_by")?,
        role: rows::role(row, "role")?,
        task: row
            .get::<Option<String>>("task_id")?
            .map(|id| TaskId::new(id).map_err(|error| DbError::decode("task_id", error)))
            .transpose()?,
        history_mode: HistoryMode::Internal,
    }))
}

/// The group; to somebody without access it does not exist, and who had access to one that was deleted
/// learns that.
pub(crate) async fn enter(state: &AppState, group: &GroupId, caller: &Caller) -> Answer<Group> {
    if let Some(mut found) = find(&*state.db, group, caller.id()).await? {
        found.history_mode = state.rooms.history_mode(found.org());
        return Ok(found);
    }
    let was_there = life::was_deleted(&*state.db, group, caller.id()).await?;
    Err(if was_there { Code::GroupDeleted.into() } else { Code::GroupNotFound.into() })
}

/// Like [`enter`], for what only owners and admins of the workspace may do.
pub(crate) async fn govern(state: &AppState, group: &GroupId, caller: &Caller) -> Answer<Group> {
    let group = enter(state, group, caller).await?;
    if !group.role.manages() {
        let detail = "Only owners and admins of the workspace may do this.";
        return Err(Problem::new(Code::Forbidden).detail(detail).into());
    }
    Ok(group)
}

/// Like [`enter`], for what only the group's maker and managers of the workspace may do.
pub(crate) async fn manage(state: &AppState, group: &GroupId, caller: &Caller) -> Answer<Group> {
    let group = enter(state, group, caller).await?;
    if !group.is_managed_by(caller.id()) {
        let detail = "Only the group's maker and owners and admins of the workspace may do this.";
        return Err(Problem::new(Code::Forbidden).detail(detail).into());
    }
    Ok(group)
}

/// The groups of a workspace that a user may see, oldest first.
pub(crate) async fn list(state: &AppState, org: &OrgId, user: &UserId) -> Answer<Vec<GroupItem>> {
    Ok(reading::of_user(&*state.db, user, Some(org)).await?)
}

/// What of a group is changed; what is absent stays.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) title: Option<String>,
    /// Private or open.
    pub(crate) access: Option<Access>,
    /// What becomes of texts that edits replace.
    pub(crate) revisions: Option<RevisionPolicy>,
}

/// Who may see a group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody in the workspace.
    Open,
    /// Only these.
    Private(Vec<UserId>),
}

/// Changes title, access or policy; whoever loses access is shown out.
pub(crate) async fn change(
    state: &AppState,
    group: &Group,
    by: &UserId,
    change: Change,
) -> Answer<()> {
    const TITLE: &str = "UPDATE chat_groups SET title = $2 WHERE group_id = $1";
    const REVISIONS: &str =
        "UPDATE chat_groups SET revisions = $2, version = version + 1 WHERE group_id = $1";
    const ACCESS: &str =
        "UPDATE chat_groups SET is_private = $2 WHERE group_id = $1 AND is_private <> $2";
    // Whoever sees it from now on has nothing unread.
    const NEWCOMERS: &str = "INSERT INTO read_marks (user_id, group_id, up_to, nth, at)
        SELECT m.user_id, h.group_id, h.seq, h.nth, CAST($3 AS BIGINT)
        FROM org_members m JOIN group_heads h ON h.group_id = $1
        WHERE m.org_id = $2 AND NOT EXISTS (SELECT 1 FROM group_members p
            WHERE p.group_id = $1 AND p.user_id = m.user_id)
        ON CONFLICT (user_id, group_id) DO UPDATE
        SET up_to = excluded.up_to, nth = excluded.nth, at = excluded.at
        WHERE read_marks.up_to < excluded.up_to";
    const FORGET: &str = "DELETE FROM group_members WHERE group_id = $1";
    const OUTSIDE: &str = "SELECT user_id FROM org_members m WHERE org_id = $1
        AND NOT EXISTS (SELECT 1 FROM group_members p
            WHERE p.group_id = $2 AND p.user_id = m.user_id)";
    let id = group.id().as_str();
    let mut batch = Vec::new();
    if let Some(title) = &change.title {
        batch.push(Statement::new(TITLE, params![id, title]).expect_rows());
    }
    let revisions = change.revisions.filter(|revisions| *revisions != group.revisions);
    if let Some(revisions) = revisions {
        let detail = json!({"from": group.revisions, "to": revisions});
        let name = rows::revisions_name(revisions);
        batch.push(Statement::new(REVISIONS, params![id, name]).expect_rows());
        let (action, now) = (Action::RevisionsSet, state.now());
        batch.push(audit::record(group.org(), by, action, id, &detail, now));
    }
    let first_access = batch.len();
    let mut made_private = false;
    match &change.access {
        Some(Access::Open) if group.item.is_private => {
            batch.push(Statement::new(ACCESS, params![id, false]).expect_rows());
            let now = state.now().millis();
            batch.push(Statement::new(NEWCOMERS, params![id, group.org().as_str(), now]));
            batch.push(Statement::new(FORGET, params![id]));
            batch.push(orgs::reconfigured(group.org()));
        }
        Some(Access::Private(members)) if !group.item.is_private => {
            made_private = true;
            batch.push(Statement::new(ACCESS, params![id, true]).expect_rows());
            batch.push(Statement::new(FORGET, params![id]));
            batch.push(orgs::reconfigured(group.org()));
            for member in members {
                batch.push(insert_member(group.id(), group.org(), member, state.now()));
            }
            batch.push(Statement::new(OUTSIDE, params![group.org().as_str(), id]));
        }
        Some(Access::Open | Access::Private(_)) | None => {}
    }
    if batch.is_empty() {
        return Ok(());
    }
    let outside = batch.len() - 1;
    let changed = [Changed::Group(group.id().clone())];
    let answers = match state.commit(batch, &changed).await {
        Ok(answers) => answers,
        Err(DbError::Unmet { index })
            if made_private && index > first_access && index < outside =>
        {
            return Err(members_unknown().into());
        }
        Err(error) => return Err(error.into()),
    };
    if !is_activated(&*state.db, group.id()).await? {
        return Ok(());
    }
    let told = revisions.map(|_| state.rooms.reconfigure(group.id()));
    if made_private {
        for row in &answers[outside] {
            state.rooms.revoke(group.id(), &rows::id(row, "user_id")?);
        }
    }
    match told {
        Some(told) => Ok(told.await?),
        None => Ok(()),
    }
}

/// Adds a member to a private group; meets no row when they do not belong to the workspace.
pub(super) fn insert_member(
    group: &GroupId,
    org: &OrgId,
    user: &UserId,
    now: Timestamp,
) -> Statement {
    const SQL: &str = "INSERT INTO group_members (group_id, user_id, added_at)
        SELECT $1, user_id, CAST($4 AS BIGINT) FROM org_members
        WHERE org_id = $2 AND user_id = $3";
    let params = params![group.as_str(), org.as_str(), user.as_str(), now.millis()];
    Statement::new(SQL, params).expect_rows()
}

pub(super) fn members_unknown() -> Problem {
    crate::validate::invalid("member_ids", "Somebody of these does not belong to the workspace.")
}

/// Whether the Orchestrator knows a group, asked after a change: an activation that came in between
/// has its connections checked too.
pub(super) async fn is_activated(db: &dyn Database, group: &GroupId) -> Result<bool, DbError> {
    const SQL: &str =
        "SELECT group_id FROM chat_groups WHERE group_id = $1 AND activated_at IS NOT NULL";
    Ok(!db.query(Statement::new(SQL, params![group.as_str()])).await?.is_empty())
}
