//! Where somebody is signed in: the sessions of browsers, and the tokens that programs were given for a
//! password. Tokens that people made by hand and named are not among them: they are no signing in.

use convene_db::{DbError, Statement, params};
use convene_model::Code;

use super::{
    caller::{Caller, Credential},
    own_account::end_others,
};
use crate::{
    changes::Change,
    state::AppState,
    ui::view::SessionView,
    web::{failure::Answer, rows},
};

/// Sessions and tokens that are listed at most, those used last first.
pub const MAX_LISTED: u64 = 100;

/// Characters of a session's digest that are its id. They tell nothing of the session's token, of which the
/// digest is one of 256 random bits.
const ID_CHARS: usize = 16;

/// Where the caller is signed in; what the call came with first, then by when it was used last.
pub(crate) async fn list(state: &AppState, caller: &Caller) -> Answer<Vec<SessionView>> {
    const SESSIONS: &str = "SELECT token_hash, device, created_at, last_used_at FROM sessions
        WHERE user_id = $1 AND expires_at > $2
        ORDER BY COALESCE(last_used_at, created_at) DESC LIMIT $3";
    const PROGRAMS: &str = "SELECT token_id, created_at, last_used_at FROM api_tokens
        WHERE user_id = $1 AND expires_at > $2
        ORDER BY COALESCE(last_used_at, created_at) DESC LIMIT $3";
    let (own_digest, own_token) = match &caller.credential {
        Credential::Session { digest } => (digest.as_str(), ""),
        Credential::Bearer { token_id } => ("", token_id.as_str()),
    };
    let held = || params![caller.id().as_str(), state.now().millis(), MAX_LISTED];
    let mut all = Vec::new();
    for row in state.db.query(Statement::new(SESSIONS, held())).await? {
        let digest: String = row.get("token_hash")?;
        all.push(SessionView {
            is_current: digest == own_digest,
            session_id: digest.chars().take(ID_CHARS).collect(),
            device: row.get("device")?,
            is_program: false,
            created_at: rows::time(&row, "created_at")?,
            last_used_at: rows::maybe_time(&row, "last_used_at")?,
        });
    }
    for row in state.db.query(Statement::new(PROGRAMS, held())).await? {
        let token_id: String = row.get("token_id")?;
        all.push(SessionView {
            is_current: token_id == own_token,
            session_id: token_id,
            device: String::new(),
            is_program: true,
            created_at: rows::time(&row, "created_at")?,
            last_used_at: rows::maybe_time(&row, "last_used_at")?,
        });
    }
    let last = |view: &SessionView| view.last_used_at.unwrap_or(view.created_at);
    all.sort_by_key(|view| (!view.is_current, std::cmp::Reverse(last(view))));
    all.truncate(MAX_LISTED as usize);
    Ok(all)
}

/// Ends one of them, and what was opened with it.
pub(super) async fn end(state: &AppState, caller: &Caller, session_id: &str) -> Answer<()> {
    const SESSION: &str =
        "DELETE FROM sessions WHERE user_id = $1 AND substr(token_hash, 1, 16) = $2
        RETURNING token_hash";
    const PROGRAM: &str = "DELETE FROM api_tokens
        WHERE user_id = $1 AND expires_at IS NOT NULL AND token_id = $2 RETURNING token_id";
    let params = || params![caller.id().as_str(), session_id];
    for sql in [SESSION, PROGRAM] {
        let batch = vec![Statement::new(sql, params()).expect_rows()];
        match state.commit(batch, &[Change::User(caller.id().clone())]).await {
            Ok(_) => return Ok(()),
            Err(DbError::Unmet { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Code::NotFound.into())
}

/// Ends all of them but for what the call came with; how many.
pub(super) async fn end_all_others(state: &AppState, caller: &Caller) -> Answer<usize> {
    let batch = end_others(caller).into();
    let done = state.commit(batch, &[Change::User(caller.id().clone())]).await?;
    Ok(done.iter().take(2).map(Vec::len).sum())
}
