//! Who belongs to a workspace, as what, and what follows when that changes.

use convene_db::{DbError, Statement, params};
use convene_model::{Code, GroupId, OrgId, Problem, Role, UserId};
use serde_json::json;

use super::{
    audit::{self, Action},
    orgs,
};
use crate::{
    changes::Change,
    identity::caller::Caller,
    secrets::store::{self as secrets, Owner},
    state::AppState,
    ui::view::{MemberView, OrgView},
    validate,
    web::{failure::Answer, rows},
};

/// Everybody in a workspace, in the order in which they joined.
pub(crate) async fn list(state: &AppState, org: &OrgId) -> Answer<Vec<MemberView>> {
    const SQL: &str = "SELECT u.user_id, u.name, u.email, m.role FROM org_members m
        JOIN users u ON u.user_id = m.user_id WHERE m.org_id = $1
        ORDER BY m.joined_at, u.user_id";
    let mut members = Vec::new();
    for row in state.db.query(Statement::new(SQL, params![org.as_str()])).await? {
        members.push(MemberView {
            user_id: rows::id(&row, "user_id")?,
            name: row.get("name")?,
            email: row.get("email")?,
            role: rows::role(&row, "role")?,
        });
    }
    Ok(members)
}

/// Whether somebody with role `actor` may make a `target` into something else, or remove them
/// (`to` is `None`). Owners may everything; admins everything that touches no owner.
const fn may_change(actor: Role, target: Role, to: Option<Role>) -> bool {
    match actor {
        Role::Owner => true,
        Role::Admin => !matches!(target, Role::Owner) && !matches!(to, Some(Role::Owner)),
        Role::Member | Role::Agent => false,
    }
}

async fn role_of(state: &AppState, org: &OrgId, user: &UserId) -> Answer<Role> {
    const SQL: &str = "SELECT role FROM org_members WHERE org_id = $1 AND user_id = $2";
    let params = params![org.as_str(), user.as_str()];
    let found = state.db.query(Statement::new(SQL, params)).await?;
    match found.first() {
        Some(row) => Ok(rows::role(row, "role")?),
        None => Err(Code::NotFound.into()),
    }
}

/// Gives a member another role. Tokens that carry the old one become void.
pub(crate) async fn change_role(
    state: &AppState,
    org: &OrgView,
    caller: &Caller,
    target: &UserId,
    to: Role,
) -> Answer<()> {
    // The role may have changed since it was read: then no row is met.
    const CHANGE: &str = "UPDATE org_members SET role = $3
        WHERE org_id = $1 AND user_id = $2 AND role = $4
        AND ($4 <> 'owner' OR $3 = 'owner'
            OR (SELECT count(*) FROM org_members WHERE org_id = $1 AND role = 'owner') > 1)";
    if to == Role::Agent {
        return Err(validate::invalid("role", "A person is owner, admin or member.").into());
    }
    let from = role_of(state, &org.org_id, target).await?;
    if !may_change(org.role, from, Some(to)) {
        return Err(forbidden());
    }
    if from == to {
        return Ok(());
    }
    let (id, now) = (&org.org_id, state.now());
    let change = params![id.as_str(), target.as_str(), to.as_str(), from.as_str()];
    let detail = json!({"from": from, "to": to});
    let mut batch = vec![
        orgs::lock(id),
        Statement::new(CHANGE, change).expect_rows(),
        audit::record(id, caller.id(), Action::RoleChanged, target.as_str(), &detail, now),
    ];
    if !to.manages() {
        batch.push(void_invites(id, target));
    }
    run(state, batch, from, target).await?;
    for group in activated_groups_of(state, id, target).await? {
        state.rooms.revoke(&group, target);
    }
    Ok(())
}

/// Removes a member, or lets one leave; open invites of theirs become void.
pub(crate) async fn remove(
    state: &AppState,
    org: &OrgView,
    caller: &Caller,
    target: &UserId,
) -> Answer<()> {
    const REMOVE: &str = "DELETE FROM org_members
        WHERE org_id = $1 AND user_id = $2 AND role = $3
        AND ($3 <> 'owner'
            OR (SELECT count(*) FROM org_members WHERE org_id = $1 AND role = 'owner') > 1)";
    const GROUPS: &str = "SELECT group_id FROM chat_groups g WHERE org_id = $1 AND (is_private = 0
        OR EXISTS (SELECT 1 FROM group_members m WHERE m.group_id = g.group_id AND m.user_id = $2))";
    const LEAVE: &str = "DELETE FROM group_members WHERE user_id = $2
        AND group_id IN (SELECT group_id FROM chat_groups WHERE org_id = $1)";
    let role = role_of(state, &org.org_id, target).await?;
    if target != caller.id() && !may_change(org.role, role, None) {
        return Err(forbidden());
    }
    let (id, now) = (&org.org_id, state.now());
    let both = || params![id.as_str(), target.as_str()];
    let remove = params![id.as_str(), target.as_str(), role.as_str()];
    let mut batch = vec![
        orgs::lock(id),
        Statement::new(REMOVE, remove).expect_rows(),
        Statement::new(GROUPS, both()),
        Statement::new(LEAVE, both()),
        void_invites(id, target),
        audit::record(id, caller.id(), Action::MemberRemoved, target.as_str(), &json!({}), now),
        orgs::reconfigured(id),
    ];
    batch.extend(secrets::erase_owned(id, &Owner::Personal { user_id: target.clone() }));
    let answers = run(state, batch, role, target).await?;
    let activated = activated_groups(state, id).await?;
    for row in &answers[2] {
        let group: GroupId = rows::id(row, "group_id")?;
        if activated.contains(&group) {
            state.rooms.revoke(&group, target);
        }
    }
    Ok(())
}

/// Somebody who may no longer invite cannot come back by a link of their own.
fn void_invites(org: &OrgId, creator: &UserId) -> Statement {
    const SQL: &str =
        "DELETE FROM invites WHERE org_id = $1 AND created_by = $2 AND used_at IS NULL";
    Statement::new(SQL, params![org.as_str(), creator.as_str()])
}

/// Runs a change of members whose second statement is the guarded one.
async fn run(
    state: &AppState,
    batch: Vec<Statement>,
    role: Role,
    target: &UserId,
) -> Answer<Vec<Vec<convene_db::Row>>> {
    match state.commit(batch, &[Change::User(target.clone())]).await {
        Ok(answers) => Ok(answers),
        Err(DbError::Unmet { index: 1 }) if role == Role::Owner => {
            let detail = "This is the last owner. Make somebody else an owner first.";
            Err(Problem::new(Code::Conflict).detail(detail).into())
        }
        Err(error) => Err(error.into()),
    }
}

fn forbidden() -> crate::web::failure::Failure {
    let detail = "Your role in the workspace does not allow this.";
    Problem::new(Code::Forbidden).detail(detail).into()
}

/// The groups of a workspace that the Orchestrator knows.
pub(crate) async fn activated_groups(state: &AppState, org: &OrgId) -> Answer<Vec<GroupId>> {
    const SQL: &str =
        "SELECT group_id FROM chat_groups WHERE org_id = $1 AND activated_at IS NOT NULL";
    let found = state.db.query(Statement::new(SQL, params![org.as_str()])).await?;
    Ok(found.iter().map(|row| rows::id(row, "group_id")).collect::<Result<_, _>>()?)
}

async fn activated_groups_of(state: &AppState, org: &OrgId, user: &UserId) -> Answer<Vec<GroupId>> {
    const SQL: &str = "SELECT group_id FROM chat_groups g
        WHERE org_id = $1 AND activated_at IS NOT NULL AND (is_private = 0
        OR EXISTS (SELECT 1 FROM group_members m WHERE m.group_id = g.group_id AND m.user_id = $2))";
    let params = params![org.as_str(), user.as_str()];
    let found = state.db.query(Statement::new(SQL, params)).await?;
    Ok(found.iter().map(|row| rows::id(row, "group_id")).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_may_everything_and_admins_everything_that_touches_no_owner() {
        use Role::{Admin, Agent, Member, Owner};
        let all = [None, Some(Member), Some(Admin), Some(Owner)];
        for target in [Member, Admin, Owner] {
            for to in all {
                assert!(may_change(Owner, target, to));
                assert_eq!(may_change(Admin, target, to), target != Owner && to != Some(Owner));
                assert!(!may_change(Member, target, to) && !may_change(Agent, target, to));
            }
        }
    }
}
