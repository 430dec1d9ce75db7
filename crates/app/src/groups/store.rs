//! Groups in the database, always through the eyes of somebody.

use convene_db::{Database, DbError, Row, Statement, params};
use convene_model::{Code, GroupId, OrgId, Problem, Role, Timestamp, UserId};

use crate::{
    identity::caller::Caller,
    state::AppState,
    ui::view::GroupItem,
    web::{failure::Answer, rows},
};

/// A group as somebody with access sees it.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// What lists show.
    pub(crate) item: GroupItem,
    /// Whether all agents are paused.
    pub(crate) paused: bool,
    /// Who made it.
    pub(crate) created_by: UserId,
    /// What the reader is in it.
    pub(crate) role: Role,
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

fn item(row: &Row) -> Result<GroupItem, DbError> {
    Ok(GroupItem {
        group_id: rows::id(row, "group_id")?,
        org_id: rows::id(row, "org_id")?,
        title: row.get("title")?,
        is_private: row.get("is_private")?,
        created_at: rows::time(row, "created_at")?,
    })
}

/// The group, if the user may see it.
pub(crate) async fn find(
    db: &dyn Database,
    group: &GroupId,
    user: &UserId,
) -> Result<Option<Group>, DbError> {
    const SQL: &str = "SELECT g.group_id, g.org_id, g.title, g.is_private, g.created_at, g.paused,
        g.created_by, m.role FROM chat_groups g
        JOIN org_members m ON m.org_id = g.org_id AND m.user_id = $2
        WHERE g.group_id = $1 AND (g.is_private = 0 OR EXISTS (SELECT 1 FROM group_members p
            WHERE p.group_id = g.group_id AND p.user_id = $2))";
    let params = params![group.as_str(), user.as_str()];
    let found = db.query(Statement::new(SQL, params)).await?;
    let Some(row) = found.first() else { return Ok(None) };
    Ok(Some(Group {
        item: item(row)?,
        paused: row.get("paused")?,
        created_by: rows::id(row, "created_by")?,
        role: rows::role(row, "role")?,
    }))
}

/// The group; to somebody without access it does not exist.
pub(crate) async fn enter(state: &AppState, group: &GroupId, caller: &Caller) -> Answer<Group> {
    let found = find(&*state.db, group, caller.id()).await?;
    found.ok_or_else(|| Code::GroupNotFound.into())
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
    const SQL: &str = "SELECT g.group_id, g.org_id, g.title, g.is_private, g.created_at
        FROM chat_groups g JOIN org_members m ON m.org_id = g.org_id AND m.user_id = $2
        WHERE g.org_id = $1 AND (g.is_private = 0 OR EXISTS (SELECT 1 FROM group_members p
            WHERE p.group_id = g.group_id AND p.user_id = $2))
        ORDER BY g.created_at, g.group_id";
    let params = params![org.as_str(), user.as_str()];
    let found = state.db.query(Statement::new(SQL, params)).await?;
    Ok(found.iter().map(item).collect::<Result<_, _>>()?)
}

/// What of a group is changed; what is absent stays.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) title: Option<String>,
    /// Private or open.
    pub(crate) access: Option<Access>,
}

/// Who may see a group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody in the workspace.
    Open,
    /// Only these.
    Private(Vec<UserId>),
}

/// Changes title or access; whoever loses access is shown out.
pub(crate) async fn change(state: &AppState, group: &Group, change: Change) -> Answer<()> {
    const TITLE: &str = "UPDATE chat_groups SET title = $2 WHERE group_id = $1";
    const ACCESS: &str =
        "UPDATE chat_groups SET is_private = $2 WHERE group_id = $1 AND is_private <> $2";
    const FORGET: &str = "DELETE FROM group_members WHERE group_id = $1";
    const OUTSIDE: &str = "SELECT user_id FROM org_members m WHERE org_id = $1
        AND NOT EXISTS (SELECT 1 FROM group_members p
            WHERE p.group_id = $2 AND p.user_id = m.user_id)";
    let id = group.id().as_str();
    let mut batch = Vec::new();
    if let Some(title) = &change.title {
        batch.push(Statement::new(TITLE, params![id, title]).expect_rows());
    }
    let mut made_private = false;
    match &change.access {
        Some(Access::Open) if group.item.is_private => {
            batch.push(Statement::new(ACCESS, params![id, false]).expect_rows());
            batch.push(Statement::new(FORGET, params![id]));
        }
        Some(Access::Private(members)) if !group.item.is_private => {
            made_private = true;
            batch.push(Statement::new(ACCESS, params![id, true]).expect_rows());
            batch.push(Statement::new(FORGET, params![id]));
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
    let first_member = batch.len();
    let answers = match state.db.batch(batch).await {
        Ok(answers) => answers,
        Err(DbError::Unmet { index }) if made_private && index > 1 && index < first_member => {
            return Err(members_unknown().into());
        }
        Err(error) => return Err(error.into()),
    };
    if made_private && is_activated(&*state.db, group.id()).await? {
        for row in answers.last().into_iter().flatten() {
            state.rooms.revoke(group.id(), &rows::id(row, "user_id")?);
        }
    }
    Ok(())
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
