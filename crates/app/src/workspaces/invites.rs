//! Invitations: single-use links that make somebody a member.

use std::time::Duration;

use convene_db::{DbError, Statement, params};
use convene_model::{Code, OrgId, Problem, Role, Timestamp, UserId};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::{
    audit::{self, Action},
    orgs,
};
use crate::{
    changes::Change,
    identity::tokens,
    reading,
    state::{AppState, fresh_id},
    ui::view::OrgView,
    web::{failure::Answer, rows},
};

/// How long a link is good for.
pub(crate) const INVITE_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Links in one answer.
const MAX_LISTED: u64 = 500;

/// A link that was just made: the only time that its token is seen.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Made {
    pub(crate) invite_id: String,
    pub(crate) url: String,
    pub(crate) token: String,
    pub(crate) expires_at: Timestamp,
}

/// A link that can be accepted.
pub(crate) struct Open {
    pub(crate) org_id: OrgId,
    pub(crate) org_name: String,
    pub(crate) invited_by: String,
}

/// The path of a link's page.
pub(crate) fn page_path(token: &str) -> String {
    let token: String = url::form_urlencoded::byte_serialize(token.as_bytes()).collect();
    format!("/invite/{token}")
}

/// Makes a link; `origin` is the site's.
pub(crate) async fn make(
    state: &AppState,
    org: &OrgView,
    by: &UserId,
    origin: &str,
) -> Answer<Made> {
    const SQL: &str = "INSERT INTO invites
        (invite_id, token_hash, org_id, role, created_by, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let now = state.now();
    let token = tokens::fresh()?;
    let invite_id = fresh_id(now);
    let expires_at = now + INVITE_TTL;
    let insert = params![
        &invite_id,
        tokens::digest(&token),
        org.org_id.as_str(),
        Role::Member.as_str(),
        by.as_str(),
        now.millis(),
        expires_at.millis()
    ];
    let detail = json!({"expires_at": expires_at});
    state
        .db
        .batch(vec![
            Statement::new(SQL, insert),
            audit::record(&org.org_id, by, Action::InviteMade, &invite_id, &detail, now),
        ])
        .await?;
    let url = format!("{origin}{}", page_path(&token));
    Ok(Made { invite_id, url, token, expires_at })
}

/// A link that can still be accepted, without its token.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Listed {
    pub(crate) invite_id: String,
    role: Role,
    pub(crate) created_by: UserId,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

/// The links of a workspace that can be accepted, newest first.
pub(crate) async fn list(state: &AppState, org: &OrgId) -> Answer<Vec<Listed>> {
    const SQL: &str = "SELECT invite_id, role, created_by, created_at, expires_at FROM invites
        WHERE org_id = $1 AND used_at IS NULL AND expires_at > $2
        ORDER BY created_at DESC, invite_id DESC LIMIT $3";
    let params = params![org.as_str(), state.now().millis(), MAX_LISTED];
    let mut listed = Vec::new();
    for row in state.db.query(Statement::new(SQL, params)).await? {
        listed.push(Listed {
            invite_id: row.get("invite_id")?,
            role: rows::role(&row, "role")?,
            created_by: rows::id(&row, "created_by")?,
            created_at: rows::time(&row, "created_at")?,
            expires_at: rows::time(&row, "expires_at")?,
        });
    }
    Ok(listed)
}

/// Takes an open link back; one that was used or has expired is nothing to take back.
pub(crate) async fn revoke(
    state: &AppState,
    org: &OrgView,
    by: &UserId,
    invite: &str,
) -> Answer<()> {
    const SQL: &str = "DELETE FROM invites WHERE org_id = $1 AND invite_id = $2
        AND used_at IS NULL AND expires_at > $3";
    let (id, now) = (&org.org_id, state.now());
    let params = params![id.as_str(), invite, now.millis()];
    let batch = vec![
        Statement::new(SQL, params).expect_rows(),
        audit::record(id, by, Action::InviteRevoked, invite, &json!({}), now),
    ];
    match state.db.batch(batch).await {
        Ok(_) => Ok(()),
        Err(DbError::Unmet { .. }) => Err(Code::NotFound.into()),
        Err(error) => Err(error.into()),
    }
}

/// What a link is for; one that was used, has expired or never was is gone.
pub(crate) async fn open(state: &AppState, token: &str) -> Answer<Open> {
    const SQL: &str = "SELECT o.org_id, o.name, u.name AS invited_by FROM invites i
        JOIN orgs o ON o.org_id = i.org_id JOIN users u ON u.user_id = i.created_by
        WHERE i.token_hash = $1 AND i.used_at IS NULL AND i.expires_at > $2";
    let params = params![tokens::digest(token), state.now().millis()];
    let found = state.db.query(Statement::new(SQL, params)).await?;
    let Some(row) = found.first() else { return Err(gone().into()) };
    Ok(Open {
        org_id: rows::id(row, "org_id")?,
        org_name: row.get("name")?,
        invited_by: row.get("invited_by")?,
    })
}

/// Whether somebody belongs to a workspace already.
pub(crate) async fn belongs(state: &AppState, org: &OrgId, user: &UserId) -> Answer<bool> {
    const SQL: &str = "SELECT role FROM org_members WHERE org_id = $1 AND user_id = $2";
    let params = params![org.as_str(), user.as_str()];
    Ok(!state.db.query(Statement::new(SQL, params)).await?.is_empty())
}

/// Uses a link up. Somebody who belongs to the workspace already leaves it as it is.
pub(crate) async fn accept(state: &AppState, token: &str, user: &UserId) -> Answer<OrgId> {
    const USE: &str = "UPDATE invites SET used_at = $3, used_by = $2
        WHERE token_hash = $1 AND used_at IS NULL AND expires_at > $3";
    const JOIN: &str = "INSERT INTO org_members (org_id, user_id, role, joined_at)
        SELECT org_id, $2, role, CAST($3 AS BIGINT) FROM invites WHERE token_hash = $1";
    let org = open(state, token).await?.org_id;
    if belongs(state, &org, user).await? {
        return Ok(org);
    }
    let now = state.now();
    let digest = tokens::digest(token);
    let three = || params![&digest, user.as_str(), now.millis()];
    let batch = vec![
        Statement::new(USE, three()).expect_rows(),
        Statement::new(JOIN, three()).expect_rows(),
        reading::caught_up(&org, None, user, now),
        orgs::reconfigured(&org),
        audit::record(&org, user, Action::InviteAccepted, user.as_str(), &json!({}), now),
    ];
    match state.commit(batch, &[Change::User(user.clone())]).await {
        Ok(_) => Ok(org),
        Err(DbError::Unmet { .. }) => Err(gone().into()),
        // They joined by another link in between; this one was rolled back and stays good.
        Err(DbError::Unique { .. }) => Ok(org),
        Err(error) => Err(error.into()),
    }
}

fn gone() -> Problem {
    Problem::new(Code::Gone).detail("The invitation was used, has expired or never was.")
}
