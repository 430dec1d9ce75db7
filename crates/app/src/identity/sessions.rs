//! Sessions of browsers: a random token in a cookie, its digest in a row.

use std::time::Duration;

use convene_db::{Statement, params};
use convene_model::UserId;

use super::{
    accounts::User,
    caller::{Caller, Credential},
    signing_in::{Proven, guarded},
    tokens,
    touches::Holder,
};
use crate::{
    changes::Change,
    state::AppState,
    web::{failure::Answer, rows},
};

/// How long a session lasts.
pub const SESSION_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Begins a session on a device and returns its token; the user's sessions that have ended are swept away.
pub(super) async fn begin(state: &AppState, proven: &Proven, device: &str) -> Answer<String> {
    const SWEEP: &str = "DELETE FROM sessions WHERE user_id = $1 AND expires_at <= $2";
    const INSERT: &str =
        "INSERT INTO sessions (token_hash, user_id, created_at, expires_at, device, last_used_at)
        VALUES ($1, $2, $3, $4, $5, $3)";
    let now = state.now();
    let token = tokens::fresh()?;
    let digest = tokens::digest(&token);
    let expires = (now + SESSION_TTL).millis();
    let user = proven.user.user_id.as_str();
    let batch = vec![
        proven.guard(),
        Statement::new(SWEEP, params![user, now.millis()]),
        Statement::new(INSERT, params![digest, user, now.millis(), expires, device]),
    ];
    guarded(state.db.batch(batch).await)?;
    Ok(token)
}

/// Whose session a cookie's token is; its last use is noted.
pub(crate) async fn find(state: &AppState, token: &str) -> Answer<Option<Caller>> {
    const SQL: &str = "SELECT u.user_id, u.email, u.name, s.expires_at, s.last_used_at
        FROM sessions s JOIN users u ON u.user_id = s.user_id
        WHERE s.token_hash = $1 AND s.expires_at > $2";
    let digest = tokens::digest(token);
    let now = state.now();
    let found = state.db.query(Statement::new(SQL, params![&digest, now.millis()])).await?;
    let Some(row) = found.first() else { return Ok(None) };
    let user = User::from_row(row)?;
    let noted = rows::maybe_time(row, "last_used_at")?;
    state.touches.note(state, Holder::Browser, &digest, noted, now);
    let expires_at = rows::maybe_time(row, "expires_at")?;
    Ok(Some(Caller { user, credential: Credential::Session { digest }, expires_at }))
}

/// Ends a session, and what was opened with it.
pub(crate) async fn end(state: &AppState, user: &UserId, digest: &str) -> Answer<()> {
    const SQL: &str = "DELETE FROM sessions WHERE token_hash = $1";
    let batch = vec![Statement::new(SQL, params![digest])];
    state.commit(batch, &[Change::User(user.clone())]).await?;
    Ok(())
}
