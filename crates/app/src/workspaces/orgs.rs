//! Workspaces themselves, and what a person is in one.

use convene_db::{Statement, params};
use convene_model::{Code, OrgId, Problem, Role, UserId};

use serde_json::json;

use super::audit::{self, Action};
use crate::{
    agents,
    identity::caller::Caller,
    state::{AppState, fresh_id},
    ui::view::OrgView,
    validate,
    web::{failure::Answer, rows},
};

/// Makes a workspace; who makes it owns it, and it begins with one agent on the demo model.
pub(crate) async fn make(state: &AppState, maker: &UserId, name: &str) -> Answer<OrgView> {
    const ORG: &str = "INSERT INTO orgs (org_id, name, created_at) VALUES ($1, $2, $3)";
    const OWNER: &str =
        "INSERT INTO org_members (org_id, user_id, role, joined_at) VALUES ($1, $2, $3, $4)";
    let name = validate::name("name", name)?;
    let now = state.now();
    let org_id = OrgId::new(fresh_id(now)).map_err(|_| Problem::new(Code::Internal))?;
    let owner = params![org_id.as_str(), maker.as_str(), Role::Owner.as_str(), now.millis()];
    state
        .db
        .batch(vec![
            Statement::new(ORG, params![org_id.as_str(), &name, now.millis()]),
            Statement::new(OWNER, owner),
            agents::first_agent(&org_id, now),
        ])
        .await?;
    Ok(OrgView { org_id, name, role: Role::Owner })
}

/// Gives a workspace another name.
pub(crate) async fn rename(
    state: &AppState,
    org: OrgView,
    by: &UserId,
    name: &str,
) -> Answer<OrgView> {
    const SQL: &str = "UPDATE orgs SET name = $2 WHERE org_id = $1";
    let name = validate::name("name", name)?;
    let (id, detail) = (&org.org_id, json!({"from": org.name, "to": name}));
    let batch = vec![
        Statement::new(SQL, params![id.as_str(), &name]).expect_rows(),
        audit::record(id, by, Action::OrgRenamed, id.as_str(), &detail, state.now()),
    ];
    state.db.batch(batch).await?;
    Ok(OrgView { name, ..org })
}

/// The workspaces of a person, oldest membership first.
pub(crate) async fn of_user(state: &AppState, user: &UserId) -> Answer<Vec<OrgView>> {
    const SQL: &str = "SELECT o.org_id, o.name, m.role FROM org_members m
        JOIN orgs o ON o.org_id = m.org_id WHERE m.user_id = $1 ORDER BY m.joined_at, o.org_id";
    let mut orgs = Vec::new();
    for row in state.db.query(Statement::new(SQL, params![user.as_str()])).await? {
        orgs.push(view(&row)?);
    }
    Ok(orgs)
}

/// The workspace as one of its members sees it; to everybody else it does not exist.
pub(crate) async fn enter(state: &AppState, org: &OrgId, caller: &Caller) -> Answer<OrgView> {
    const SQL: &str = "SELECT o.org_id, o.name, m.role FROM org_members m
        JOIN orgs o ON o.org_id = m.org_id WHERE m.org_id = $1 AND m.user_id = $2";
    let params = params![org.as_str(), caller.id().as_str()];
    let found = state.db.query(Statement::new(SQL, params)).await?;
    match found.first() {
        Some(row) => Ok(view(row)?),
        None => Err(Code::NotFound.into()),
    }
}

/// Like [`enter`], for what only owners and admins may do.
pub(crate) async fn manage(state: &AppState, org: &OrgId, caller: &Caller) -> Answer<OrgView> {
    let org = enter(state, org, caller).await?;
    if !org.role.manages() {
        let detail = "Only owners and admins of the workspace may do this.";
        return Err(Problem::new(Code::Forbidden).detail(detail).into());
    }
    Ok(org)
}

/// The statement that makes changes of one workspace's members wait for each other: it locks the
/// workspace's row to the end of the batch, where a database does not lock as a whole.
pub(crate) fn lock(org: &OrgId) -> Statement {
    const SQL: &str = "UPDATE orgs SET changes = changes + 1 WHERE org_id = $1";
    Statement::new(SQL, params![org.as_str()]).expect_rows()
}

/// The statement that says that something changed which a run could see: what was resolved before
/// does not hold any more. It belongs into the batch of the change.
pub(crate) fn reconfigured(org: &OrgId) -> Statement {
    const SQL: &str = "UPDATE orgs SET configuration = configuration + 1 WHERE org_id = $1";
    Statement::new(SQL, params![org.as_str()])
}

fn view(row: &convene_db::Row) -> Result<OrgView, convene_db::DbError> {
    Ok(OrgView {
        org_id: rows::id(row, "org_id")?,
        name: row.get("name")?,
        role: rows::role(row, "role")?,
    })
}
