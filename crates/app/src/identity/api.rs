//! `/api/auth/…`, `/api/me` and `/api/tokens`.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use convene_hop::ApiJson;
use convene_model::OrgId;
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    bearer,
    caller::Caller,
    own_account, signed_in,
    signing_in::{self, NewAccount, Proven},
};
use crate::{
    state::AppState,
    ui::view::{Me, OrgView, SessionView, TokenView},
    web::{
        extract::{Ids, Site},
        failure::Answer,
    },
    workspaces::{invites, orgs},
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SignUp {
    email: String,
    name: String,
    #[schemars(with = "String")]
    password: Zeroizing<String>,
    /// The token of an invite to accept at once.
    #[serde(default)]
    invite: Option<String>,
    /// Whether to answer with a bearer token instead of a session's cookie.
    #[serde(default)]
    bearer: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SignIn {
    email: String,
    #[schemars(with = "String")]
    password: Zeroizing<String>,
    /// Whether to answer with a bearer token instead of a session's cookie.
    #[serde(default)]
    bearer: bool,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct SignedIn {
    user: Me,
    #[serde(skip_serializing_if = "Option::is_none")]
    org_id: Option<OrgId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

pub(super) async fn sign_up(
    State(state): State<AppState>,
    site: Site,
    ApiJson(body): ApiJson<SignUp>,
) -> Answer<Response> {
    let SignUp { email, name, password, invite, bearer } = body;
    // A dead link is told before an account is made that would belong nowhere.
    if let Some(token) = &invite {
        invites::open(&state, token).await?;
    }
    let proven = signing_in::sign_up(&state, &site, NewAccount { email, name, password }).await?;
    let org_id = match &invite {
        // Somebody else may have been faster in between; the account stands all the same.
        Some(token) => invites::accept(&state, token, &proven.user.user_id).await.ok(),
        None => None,
    };
    answer(&state, &site, StatusCode::CREATED, &proven, org_id, bearer).await
}

pub(super) async fn sign_in(
    State(state): State<AppState>,
    site: Site,
    ApiJson(body): ApiJson<SignIn>,
) -> Answer<Response> {
    let proven = signing_in::sign_in(&state, &site, &body.email, body.password).await?;
    answer(&state, &site, StatusCode::OK, &proven, None, body.bearer).await
}

async fn answer(
    state: &AppState,
    site: &Site,
    status: StatusCode,
    proven: &Proven,
    org_id: Option<OrgId>,
    bearer: bool,
) -> Answer<Response> {
    let user = proven.user.clone();
    let user = Me { id: user.user_id, name: user.name, email: user.email };
    if bearer {
        // A program keeps the token, so nobody would ever use a session beside it.
        let token = Some(bearer::make_for_sign_in(state, proven).await?);
        return Ok((status, Json(SignedIn { user, org_id, token })).into_response());
    }
    let response = (status, Json(SignedIn { user, org_id, token: None })).into_response();
    signing_in::with_session(state, site, proven, response).await
}

pub(super) async fn sign_out(
    State(state): State<AppState>,
    site: Site,
    caller: Caller,
) -> Answer<Response> {
    signing_in::sign_out(&state, &site, &caller, StatusCode::NO_CONTENT.into_response()).await
}

#[derive(Serialize, JsonSchema)]
pub(super) struct WhoAmI {
    user: Me,
    orgs: Vec<OrgView>,
    /// The session's CSRF token; absent for a bearer, who needs none.
    #[serde(skip_serializing_if = "String::is_empty")]
    csrf: String,
}

pub(super) async fn me(State(state): State<AppState>, caller: Caller) -> Answer<Json<WhoAmI>> {
    let orgs = orgs::of_user(&state, caller.id()).await?;
    Ok(Json(WhoAmI { user: caller.me(), orgs, csrf: state.csrf.of_session(&caller) }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MeChange {
    /// What others see: 1 to 60 characters on one line.
    name: String,
}

pub(super) async fn change_me(
    State(state): State<AppState>,
    caller: Caller,
    ApiJson(body): ApiJson<MeChange>,
) -> Answer<Json<Me>> {
    Ok(Json(own_account::rename(&state, &caller, &body.name).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PasswordChange {
    #[schemars(with = "String")]
    current_password: Zeroizing<String>,
    /// 10 to 1000 characters, whatever they are.
    #[schemars(with = "String")]
    new_password: Zeroizing<String>,
}

/// What was signed out.
#[derive(Serialize, JsonSchema)]
pub(super) struct Ended {
    /// How many sessions, and tokens of programs that had signed in.
    ended: usize,
}

pub(super) async fn change_password(
    State(state): State<AppState>,
    site: Site,
    caller: Caller,
    ApiJson(body): ApiJson<PasswordChange>,
) -> Answer<Json<Ended>> {
    let PasswordChange { current_password, new_password } = body;
    let ended =
        own_account::change_password(&state, &site, &caller, current_password, new_password)
            .await?;
    Ok(Json(Ended { ended }))
}

pub(super) async fn sessions(
    State(state): State<AppState>,
    caller: Caller,
) -> Answer<Json<Vec<SessionView>>> {
    Ok(Json(signed_in::list(&state, &caller).await?))
}

pub(super) async fn end_other_sessions(
    State(state): State<AppState>,
    caller: Caller,
) -> Answer<Json<Ended>> {
    Ok(Json(Ended { ended: signed_in::end_all_others(&state, &caller).await? }))
}

pub(super) async fn end_session(
    State(state): State<AppState>,
    caller: Caller,
    Ids(session_id): Ids<String>,
) -> Answer<StatusCode> {
    signed_in::end(&state, &caller, &session_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn tokens(
    State(state): State<AppState>,
    caller: Caller,
) -> Answer<Json<Vec<TokenView>>> {
    Ok(Json(bearer::list(&state, caller.id()).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    name: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct MadeToken {
    #[serde(flatten)]
    view: TokenView,
    /// The token itself, shown this once.
    token: String,
}

pub(super) async fn make_token(
    State(state): State<AppState>,
    caller: Caller,
    ApiJson(body): ApiJson<NewToken>,
) -> Answer<Response> {
    let (view, token) = bearer::make(&state, caller.id(), &body.name).await?;
    Ok((StatusCode::CREATED, Json(MadeToken { view, token })).into_response())
}

pub(super) async fn delete_token(
    State(state): State<AppState>,
    caller: Caller,
    Ids(token_id): Ids<String>,
) -> Answer<StatusCode> {
    bearer::delete(&state, caller.id(), &token_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
