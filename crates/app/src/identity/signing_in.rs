//! Signing up, in and out, the same for pages and programs.

use axum::response::Response;
use convene_db::{DbError, Statement, params};
use convene_model::{Code, Problem, UserId};
use http::header;
use zeroize::Zeroizing;

use super::{
    accounts::{self, User},
    bearer,
    caller::{Caller, Credential},
    devices,
    sessions::{self, SESSION_TTL},
};
use crate::{
    state::{AppState, fresh_id},
    validate,
    web::{
        client::limit_key,
        cookies,
        extract::Site,
        failure::{Answer, Failure},
    },
};

/// What somebody signs up with.
pub(crate) struct NewAccount {
    pub(crate) email: String,
    pub(crate) name: String,
    pub(crate) password: Zeroizing<String>,
}

/// Somebody who has just proved who they are, by a password.
pub(crate) struct Proven {
    pub(crate) user: User,
    /// The hash of the password.
    password_hash: String,
}

impl Proven {
    /// For the batch that signs them in, as its first statement: meets a row while the password is still
    /// theirs. Else somebody who knew the former one could be let in while it is changed.
    pub(super) fn guard(&self) -> Statement {
        const SQL: &str = "SELECT user_id FROM users WHERE user_id = $1 AND password_hash = $2";
        let params = params![self.user.user_id.as_str(), &self.password_hash];
        Statement::new(SQL, params).expect_rows()
    }
}

/// What becomes of the batch that signs somebody in.
///
/// # Errors
/// As for a wrong password where the guard was not met.
pub(super) fn guarded<T>(batch: Result<T, DbError>) -> Answer<T> {
    match batch {
        Err(DbError::Unmet { index: 0 }) => Err(wrong()),
        other => Ok(other?),
    }
}

fn wrong() -> Failure {
    Problem::new(Code::Unauthorized).detail("The mail address or the password is wrong.").into()
}

/// Makes an account.
pub(crate) async fn sign_up(state: &AppState, site: &Site, new: NewAccount) -> Answer<Proven> {
    let name = validate::name("name", &new.name)?;
    let email = validate::email("email", &new.email)?;
    validate::new_password("password", &new.password)?;
    let now = state.now();
    state.limits.sign_up_by_address.take(&limit_key(site.client), now)?;
    let hash = state.passwords.hash(new.password).await?;
    let user_id = UserId::new(fresh_id(now)).map_err(|_| Problem::new(Code::Internal))?;
    let user = User { user_id, email, name };
    match accounts::insert(&*state.db, &user, &hash, now).await {
        Ok(()) => Ok(Proven { user, password_hash: hash }),
        Err(DbError::Unique { .. }) => Err(Problem::new(Code::AlreadyExists)
            .detail("There is an account with this mail address. Sign in instead.")
            .with("field", "email")
            .into()),
        Err(error) => Err(error.into()),
    }
}

/// Checks a mail address and a password.
///
/// A wrong password and an unknown address cost the same work and look the same.
pub(crate) async fn sign_in(
    state: &AppState,
    site: &Site,
    email: &str,
    password: Zeroizing<String>,
) -> Answer<Proven> {
    let now = state.now();
    // An address of no form has no account either; it is cut so that the limiter stays small.
    let key: String = email.trim().to_lowercase().chars().take(validate::MAX_EMAIL_BYTES).collect();
    state.limits.sign_in_by_address.take(&limit_key(site.client), now)?;
    state.limits.sign_in_by_email.take(&key, now)?;
    let (user, hash) = accounts::with_hash(&*state.db, &key).await?.unzip();
    let holds = state.passwords.verify(password, hash.clone()).await?;
    match user.zip(hash).filter(|_| holds) {
        Some((user, password_hash)) => {
            state.limits.sign_in_by_email.forgive(&key);
            Ok(Proven { user, password_hash })
        }
        None => Err(wrong()),
    }
}

/// Begins a session and sets its cookie; the cookie behind anonymous forms is taken away.
pub(crate) async fn with_session(
    state: &AppState,
    site: &Site,
    proven: &Proven,
    mut response: Response,
) -> Answer<Response> {
    let device = devices::describe(site.user_agent.as_ref());
    let token = sessions::begin(state, proven, &device).await?;
    let age = SESSION_TTL.as_secs();
    let headers = response.headers_mut();
    headers
        .append(header::SET_COOKIE, cookies::set(cookies::SESSION, &token, Some(age), site.secure));
    headers.append(header::SET_COOKIE, cookies::clear(cookies::FORM, site.secure));
    Ok(response)
}

/// Ends the session, or deletes the bearer token, that the request came with.
pub(crate) async fn sign_out(
    state: &AppState,
    site: &Site,
    caller: &Caller,
    mut response: Response,
) -> Answer<Response> {
    match &caller.credential {
        Credential::Session { digest } => sessions::end(state, caller.id(), digest).await?,
        Credential::Bearer { token_id } => bearer::delete(state, caller.id(), token_id).await?,
    }
    response
        .headers_mut()
        .append(header::SET_COOKIE, cookies::clear(cookies::SESSION, site.secure));
    Ok(response)
}
