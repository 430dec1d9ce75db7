//! What people change about their own account: what they are called, and their password.

use convene_db::{Statement, params};
use convene_model::{Code, OrgId, Problem, UserId};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    accounts,
    caller::{Caller, Credential},
};
use crate::{
    changes::Change,
    state::AppState,
    ui::view::Me,
    validate,
    web::{
        client::limit_key,
        extract::Site,
        failure::{Answer, Failure},
        rows,
    },
    workspaces::{
        audit::{self, Action},
        orgs,
    },
};

/// Gives the caller another display name. Everybody who shares a workspace hears of it, and runs that
/// begin from now on know them by it.
pub(super) async fn rename(state: &AppState, caller: &Caller, name: &str) -> Answer<Me> {
    const RENAME: &str = "UPDATE users SET name = $2 WHERE user_id = $1";
    let name = validate::name("name", name)?;
    let me = Me { name: name.clone(), ..caller.me() };
    if name == caller.user.name {
        return Ok(me);
    }
    let (id, now) = (caller.id(), state.now());
    let mut batch = vec![Statement::new(RENAME, params![id.as_str(), &name]).expect_rows()];
    let detail = json!({"from": caller.user.name, "to": name});
    for org in orgs_of(state, id).await? {
        batch.push(audit::record(&org, id, Action::MemberRenamed, id.as_str(), &detail, now));
        batch.push(orgs::reconfigured(&org));
    }
    state.commit(batch, &[Change::Person(id.clone())]).await?;
    Ok(me)
}

/// Gives the caller another password, and ends all their sessions and the tokens of programs that signed in
/// with the old one, but for what the call came with. Tokens that they made by hand and named stay. Returns
/// how many were ended.
///
/// A wrong password counts as a failed attempt to sign in: whoever has found an open session guesses no
/// faster than at the door.
pub(super) async fn change_password(
    state: &AppState,
    site: &Site,
    caller: &Caller,
    current: Zeroizing<String>,
    new: Zeroizing<String>,
) -> Answer<usize> {
    const PASSWORD: &str =
        "UPDATE users SET password_hash = $3 WHERE user_id = $1 AND password_hash = $2";
    validate::new_password("new_password", &new)?;
    let (id, email, now) = (caller.id(), &caller.user.email, state.now());
    state.limits.sign_in_by_address.take(&limit_key(site.client), now)?;
    state.limits.sign_in_by_email.take(email, now)?;
    let Some((_, hash)) = accounts::with_hash(&*state.db, email).await? else {
        return Err(Code::Unauthorized.into());
    };
    if !state.passwords.verify(current.clone(), Some(hash.clone())).await? {
        return Err(wrong("current_password", "This is not your password."));
    }
    state.limits.sign_in_by_email.forgive(email);
    if *new == *current {
        return Err(wrong("new_password", "This is the password that you have already."));
    }
    let new_hash = state.passwords.hash(new).await?;
    let mut batch =
        vec![Statement::new(PASSWORD, params![id.as_str(), hash, new_hash]).expect_rows()];
    batch.extend(end_others(caller));
    for org in orgs_of(state, id).await? {
        let action = Action::PasswordChanged;
        batch.push(audit::record(&org, id, action, id.as_str(), &json!({}), now));
    }
    let done = state.commit(batch, &[Change::User(id.clone())]).await?;
    Ok(done[1].len() + done[2].len())
}

/// The statements that end what a person is signed in with, but for what the call came with; each answers
/// with the rows that it ended.
pub(super) fn end_others(caller: &Caller) -> [Statement; 2] {
    const SESSIONS: &str =
        "DELETE FROM sessions WHERE user_id = $1 AND token_hash <> $2 RETURNING token_hash";
    const PROGRAMS: &str = "DELETE FROM api_tokens
        WHERE user_id = $1 AND expires_at IS NOT NULL AND token_id <> $2 RETURNING token_id";
    let (digest, token_id) = match &caller.credential {
        Credential::Session { digest } => (digest.as_str(), ""),
        Credential::Bearer { token_id } => ("", token_id.as_str()),
    };
    let id = caller.id().as_str();
    [Statement::new(SESSIONS, params![id, digest]), Statement::new(PROGRAMS, params![id, token_id])]
}

async fn orgs_of(state: &AppState, user: &UserId) -> Answer<Vec<OrgId>> {
    const SQL: &str = "SELECT org_id FROM org_members WHERE user_id = $1";
    let found = state.db.query(Statement::new(SQL, params![user.as_str()])).await?;
    Ok(found.iter().map(|row| rows::id(row, "org_id")).collect::<Result<_, _>>()?)
}

fn wrong(field: &str, sentence: &str) -> Failure {
    let problem: Problem = validate::invalid(field, sentence);
    problem.into()
}
