//! Bearer tokens of API clients: `cvt_` and 256 random bits, kept as a digest.

use convene_db::{DbError, Row, Statement, params};
use convene_model::{Code, Timestamp, UserId};

use super::{
    accounts::User,
    caller::{Caller, Credential},
    sessions::SESSION_TTL,
    signing_in::{Proven, guarded},
    tokens,
    touches::Holder,
};
use crate::{
    changes::Change,
    state::{AppState, fresh_id},
    ui::view::TokenView,
    validate,
    web::{failure::Answer, rows},
};

/// What every bearer token begins with, so that a leaked one is recognised.
pub(crate) const PREFIX: &str = "cvt_";
/// Tokens of one person at a time.
pub(crate) const MAX_TOKENS_PER_USER: u64 = 100;

/// Makes a token that a person named; it holds until it is deleted.
pub(crate) async fn make(
    state: &AppState,
    user: &UserId,
    name: &str,
) -> Answer<(TokenView, String)> {
    let name = validate::name("name", name)?;
    insert(state, user, name, None, None).await
}

/// Makes the token of a program that signed in; it lasts as long as a session does.
pub(super) async fn make_for_sign_in(state: &AppState, proven: &Proven) -> Answer<String> {
    let (user, expires) = (&proven.user.user_id, state.now() + SESSION_TTL);
    let name = "Signed in".to_owned();
    let (_, token) = insert(state, user, name, Some(expires), Some(proven)).await?;
    Ok(token)
}

async fn insert(
    state: &AppState,
    user: &UserId,
    name: String,
    expires_at: Option<Timestamp>,
    proven: Option<&Proven>,
) -> Answer<(TokenView, String)> {
    const SWEEP: &str = "DELETE FROM api_tokens WHERE user_id = $1 AND expires_at <= $2";
    const INSERT: &str = "INSERT INTO api_tokens
        (token_id, token_hash, user_id, name, created_at, expires_at)
        SELECT $1, $2, $3, $4, CAST($5 AS BIGINT), CAST($6 AS BIGINT)
        WHERE (SELECT count(*) FROM api_tokens WHERE user_id = $3) < $7";
    let now = state.now();
    let token = format!("{PREFIX}{}", tokens::fresh()?);
    let token_id = fresh_id(now);
    let insert = Statement::new(
        INSERT,
        params![
            &token_id,
            tokens::digest(&token),
            user.as_str(),
            &name,
            now.millis(),
            expires_at.map(Timestamp::millis),
            MAX_TOKENS_PER_USER
        ],
    );
    let sweep = Statement::new(SWEEP, params![user.as_str(), now.millis()]);
    let mut batch: Vec<_> = proven.map(Proven::guard).into_iter().chain([sweep]).collect();
    let last = batch.len();
    batch.push(insert.expect_rows());
    match state.db.batch(batch).await {
        Err(DbError::Unmet { index }) if index == last => {
            let sentence = format!("There are {MAX_TOKENS_PER_USER} tokens already.");
            return Err(validate::invalid("name", sentence).into());
        }
        other => guarded(other)?,
    };
    Ok((TokenView { token_id, name, created_at: now, last_used_at: None }, token))
}

/// Whose token it is; its last use is noted.
pub(crate) async fn find(state: &AppState, token: &str) -> Answer<Option<Caller>> {
    const FIND: &str = "SELECT u.user_id, u.email, u.name, t.token_id, t.last_used_at, t.expires_at
        FROM api_tokens t JOIN users u ON u.user_id = t.user_id
        WHERE t.token_hash = $1 AND (t.expires_at IS NULL OR t.expires_at > $2)";
    if !token.starts_with(PREFIX) {
        return Ok(None);
    }
    let now = state.now();
    let params = params![tokens::digest(token), now.millis()];
    let found = state.db.query(Statement::new(FIND, params)).await?;
    let Some(row) = found.first() else { return Ok(None) };
    let user = User::from_row(row)?;
    let token_id: String = row.get("token_id")?;
    let noted = rows::maybe_time(row, "last_used_at")?;
    state.touches.note(state, Holder::Person, &token_id, noted, now);
    let expires_at = rows::maybe_time(row, "expires_at")?;
    Ok(Some(Caller { user, credential: Credential::Bearer { token_id }, expires_at }))
}

/// A person's tokens, newest first.
pub(crate) async fn list(state: &AppState, user: &UserId) -> Answer<Vec<TokenView>> {
    const SQL: &str = "SELECT token_id, name, created_at, last_used_at FROM api_tokens
        WHERE user_id = $1 AND (expires_at IS NULL OR expires_at > $2)
        ORDER BY created_at DESC, token_id DESC";
    let params = params![user.as_str(), state.now().millis()];
    let found = state.db.query(Statement::new(SQL, params)).await?;
    Ok(found.iter().map(view).collect::<Result<_, _>>()?)
}

/// What is told of a token, whoever's it is.
pub(crate) fn view(row: &Row) -> Result<TokenView, DbError> {
    Ok(TokenView {
        token_id: row.get("token_id")?,
        name: row.get("name")?,
        created_at: rows::time(row, "created_at")?,
        last_used_at: rows::maybe_time(row, "last_used_at")?,
    })
}

/// Deletes one of a person's tokens, and ends what was opened with it.
pub(crate) async fn delete(state: &AppState, user: &UserId, token_id: &str) -> Answer<()> {
    const SQL: &str = "DELETE FROM api_tokens WHERE user_id = $1 AND token_id = $2";
    let params = params![user.as_str(), token_id];
    let batch = vec![Statement::new(SQL, params).expect_rows()];
    match state.commit(batch, &[Change::User(user.clone())]).await {
        Ok(_) => Ok(()),
        Err(DbError::Unmet { .. }) => Err(Code::NotFound.into()),
        Err(error) => Err(error.into()),
    }
}
