//! Who takes part in a group.

use convene_db::{DbError, Statement, params};
use convene_model::{Code, Problem, UserId};

use super::store::{Group, insert_member, is_activated};
use crate::{
    changes::Change,
    identity::caller::Caller,
    reading,
    state::AppState,
    ui::view::Person,
    validate,
    web::{failure::Answer, rows},
    workspaces::orgs,
};

/// People named in one answer.
pub(super) const MAX_PEOPLE: u64 = 5000;

/// The members of a private group, or everybody in the workspace of an open one.
pub(crate) async fn list(state: &AppState, group: &Group) -> Answer<Vec<Person>> {
    const OPEN: &str = "SELECT u.user_id, u.name FROM org_members m
        JOIN users u ON u.user_id = m.user_id
        WHERE m.org_id = $1 ORDER BY m.joined_at, u.user_id LIMIT $2";
    const PRIVATE: &str = "SELECT u.user_id, u.name FROM group_members m
        JOIN users u ON u.user_id = m.user_id
        WHERE m.group_id = $1 ORDER BY m.added_at, u.user_id LIMIT $2";
    let statement = if group.item.is_private {
        Statement::new(PRIVATE, params![group.id().as_str(), MAX_PEOPLE])
    } else {
        Statement::new(OPEN, params![group.org().as_str(), MAX_PEOPLE])
    };
    let mut people = Vec::new();
    for row in state.db.query(statement).await? {
        people.push(Person { user_id: rows::id(&row, "user_id")?, name: row.get("name")? });
    }
    Ok(people)
}

/// Adds somebody of the workspace to a private group; any member may. Adding twice is success.
pub(super) async fn add(state: &AppState, group: &Group, user: &UserId) -> Answer<()> {
    must_be_private(group)?;
    let now = state.now();
    let batch = vec![
        insert_member(group.id(), group.org(), user, now),
        reading::caught_up(group.org(), Some(group.id()), user, now),
        orgs::reconfigured(group.org()),
    ];
    match state.commit(batch, &[Change::User(user.clone())]).await {
        Ok(_) | Err(DbError::Unique { .. }) => Ok(()),
        Err(DbError::Unmet { .. }) => Err(Code::NotFound.into()),
        Err(error) => Err(error.into()),
    }
}

/// Takes somebody out of a private group: oneself, or whoever manages the group takes others.
pub(super) async fn remove(
    state: &AppState,
    group: &Group,
    caller: &Caller,
    user: &UserId,
) -> Answer<()> {
    const LOCK: &str =
        "UPDATE chat_groups SET title = title WHERE group_id = $1 AND is_private = 1";
    const IS_MEMBER: &str =
        "SELECT user_id FROM group_members WHERE group_id = $1 AND user_id = $2";
    const REMOVE: &str = "DELETE FROM group_members WHERE group_id = $1 AND user_id = $2
        AND (SELECT count(*) FROM group_members WHERE group_id = $1) > 1";
    must_be_private(group)?;
    if user != caller.id() && !group.is_managed_by(caller.id()) {
        let detail = "Only the group's maker and owners and admins of the workspace may do this.";
        return Err(Problem::new(Code::Forbidden).detail(detail).into());
    }
    let both = || params![group.id().as_str(), user.as_str()];
    let batch = vec![
        Statement::new(LOCK, params![group.id().as_str()]).expect_rows(),
        Statement::new(IS_MEMBER, both()).expect_rows(),
        Statement::new(REMOVE, both()).expect_rows(),
        orgs::reconfigured(group.org()),
    ];
    match state.commit(batch, &[Change::User(user.clone())]).await {
        Ok(_) => {}
        Err(DbError::Unmet { index: 1 }) => return Err(Code::NotFound.into()),
        Err(DbError::Unmet { index: 2 }) => {
            let detail =
                "The last member cannot leave a private group: nobody could open it again.";
            return Err(Problem::new(Code::Conflict).detail(detail).into());
        }
        Err(error) => return Err(error.into()),
    }
    if is_activated(&*state.db, group.id()).await? {
        state.rooms.revoke(group.id(), user);
    }
    Ok(())
}

fn must_be_private(group: &Group) -> Result<(), Problem> {
    if group.item.is_private {
        return Ok(());
    }
    Err(validate::invalid("user_id", "Everybody in the workspace takes part in an open group."))
}
