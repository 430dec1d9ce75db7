//! What the Orchestrator may ask of the controllers, each call with its service token.

mod archive;

use axum::{
    Json, Router,
    extract::{Path, RawQuery, State},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use convene_group_controller::Input;
use convene_hop::{ApiError, LinkUpgrade, RawRequest, json, method_not_allowed, not_found, query};
use convene_model::{
    Code, GroupId, MessageId, Problem,
    claims::{OrchestratorClaims, service},
    event::GroupConfig,
    history::HistoryQuery,
    infra::{InitRequest, Initialized, RevokeRequest},
    keys::TrustedKeys,
    limits::MAX_PAGE,
    token,
};
use http::{StatusCode, header};
use serde::Serialize;

use super::Controllers;

/// The header that carries the agent-access token of the run that a call is made for.
const RUN_TOKEN_HEADER: &str = "x-run-token";

pub(super) fn router(controllers: Controllers) -> Router {
    Router::new()
        .route("/groups/{id}/init", post(init))
        .route("/groups/{id}/config", put(configure))
        .route("/groups/{id}/revoke", post(revoke))
        .route("/groups/{id}/history", get(history))
        .route("/groups/{id}/messages/{message_id}", get(message))
        .route("/groups/{id}/messages/{message_id}/why", get(why))
        .route("/groups/{id}/search", post(search))
        .route("/groups/{id}/ws", get(connect))
        .merge(archive::routes())
        .route("/.well-known/jwks.json", get(jwks))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(controllers)
}

async fn init(
    State(controllers): State<Controllers>,
    Path(id): Path<String>,
    request: RawRequest,
) -> Result<Json<Initialized>, ApiError> {
    let claims = authorize(&controllers, &id, &request)?;
    let body: InitRequest = json(&request.body)?;
    if claims.epoch != body.epoch {
        return Err(Problem::new(Code::StaleEpoch).into());
    }
    let head = controllers.init(&claims.group_id, body).await?;
    Ok(Json(Initialized { epoch: head.epoch, head: head.seq, history: head.history }))
}

async fn configure(
    State(controllers): State<Controllers>,
    Path(id): Path<String>,
    request: RawRequest,
) -> Result<StatusCode, ApiError> {
    let group_id = authorize_current(&controllers, &id, &request).await?;
    let body: GroupConfig = json(&request.body)?;
    controllers.call(&group_id, Input::Configure(body)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn revoke(
    State(controllers): State<Controllers>,
    Path(id): Path<String>,
    request: RawRequest,
) -> Result<StatusCode, ApiError> {
    let group_id = authorize_current(&controllers, &id, &request).await?;
    let body: RevokeRequest = json(&request.body)?;
    controllers.call(&group_id, Input::Revoke(body.user_id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn history(
    State(controllers): State<Controllers>,
    Path(id): Path<String>,
    RawQuery(raw): RawQuery,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let claims = authorize_user(&controllers, &id, &request).await?;
    let query: HistoryQuery = query(raw.as_deref())?;
    if let Err(limit) = query.page_size() {
        let detail = format!("limit is {limit}, but must be 1 to {MAX_PAGE}");
        return Err(Problem::new(Code::InvalidRequest).detail(detail).into());
    }
    if query.around.is_some() && (query.before.is_some() || query.after.is_some()) {
        let detail = "around goes with neither before nor after";
        return Err(Problem::new(Code::InvalidRequest).detail(detail).into());
    }
    let found = controllers.history(&claims.group_id, query).await?;
    leaves(&controllers, &claims, &found)
}

async fn message(
    State(controllers): State<Controllers>,
    Path((id, message_id)): Path<(String, String)>,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let claims = authorize_user(&controllers, &id, &request).await?;
    let message_id = MessageId::new(message_id).map_err(|_| Code::MessageNotFound)?;
    let found = controllers.message(&claims.group_id, message_id).await?;
    leaves(&controllers, &claims, &found)
}

async fn why(
    State(controllers): State<Controllers>,
    Path((id, message_id)): Path<(String, String)>,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let claims = authorize_user(&controllers, &id, &request).await?;
    let message_id = MessageId::new(message_id).map_err(|_| Code::MessageNotFound)?;
    let found = controllers.why(&claims.group_id, message_id).await?;
    leaves(&controllers, &claims, &found)
}

async fn search(
    State(controllers): State<Controllers>,
    Path(id): Path<String>,
    request: RawRequest,
) -> Result<Response, ApiError> {
    if let Some(run) = request.header(RUN_TOKEN_HEADER) {
        let group_id = authorize_run(&controllers, &id, &request, run).await?;
        // What an agent finds stays inside.
        return Ok(Json(controllers.search(&group_id, json(&request.body)?).await?).into_response());
    }
    let claims = authorize_user(&controllers, &id, &request).await?;
    let found = controllers.search(&claims.group_id, json(&request.body)?).await?;
    leaves(&controllers, &claims, &found)
}

async fn connect(
    State(controllers): State<Controllers>,
    Path(id): Path<String>,
    upgrade: Result<LinkUpgrade, ApiError>,
    request: RawRequest,
) -> Response {
    let opened = async {
        let claims = authorize_user(&controllers, &id, &request).await?;
        let upgrade = upgrade?;
        let link = controllers.open(&claims.group_id).await?;
        Ok::<_, ApiError>(upgrade.accept(link))
    };
    opened.await.unwrap_or_else(IntoResponse::into_response)
}

async fn jwks(State(controllers): State<Controllers>) -> Response {
    Json(controllers.shared.config.signer.keys().published()).into_response()
}

/// An answer with what was read for a person; its bytes leave the group.
fn leaves(
    controllers: &Controllers,
    claims: &OrchestratorClaims,
    found: &impl Serialize,
) -> Result<Response, ApiError> {
    let body = serde_json::to_vec(found).map_err(|error| super::internal("answering", &error))?;
    controllers.shared.usage.read_out(&claims.group_id, claims.epoch, body.len() as u64);
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Verifies the service token and that it is for this group.
fn authorize(
    controllers: &Controllers,
    id: &str,
    request: &RawRequest,
) -> Result<OrchestratorClaims, ApiError> {
    let config = &controllers.shared.config;
    let token = token::authorize::<OrchestratorClaims>(
        &config.orchestrator_keys,
        service::CONTROLLERS,
        request.line(),
        config.signer.now(),
        None,
    )?;
    if token.claims.group_id.as_str() != id {
        return Err(Problem::new(Code::Forbidden).detail("the token is for another group").into());
    }
    Ok(token.claims)
}

/// Verifies the service token and that it is of the group's epoch.
async fn authorize_current(
    controllers: &Controllers,
    id: &str,
    request: &RawRequest,
) -> Result<GroupId, ApiError> {
    let claims = authorize(controllers, id, request)?;
    let head = controllers.head(&claims.group_id).await?;
    if head.epoch != claims.epoch {
        return Err(Code::StaleEpoch.into());
    }
    Ok(claims.group_id)
}

/// Verifies the service token and the token of a run of this group beside it, which is one of ours.
async fn authorize_run(
    controllers: &Controllers,
    id: &str,
    request: &RawRequest,
    run: &str,
) -> Result<GroupId, ApiError> {
    let group_id = authorize_current(controllers, id, request).await?;
    let signer = &controllers.shared.config.signer;
    let own = TrustedKeys::of(service::CONTROLLERS, &signer.keys().published())
        .map_err(|_| Code::Internal)?;
    let run = token::verify_run(&own, run, signer.now())?;
    if run.group_id != group_id {
        return Err(Problem::new(Code::Forbidden).detail("the run is of another group").into());
    }
    Ok(group_id)
}

/// Verifies the service token and the user's routing token beside it.
async fn authorize_user(
    controllers: &Controllers,
    id: &str,
    request: &RawRequest,
) -> Result<OrchestratorClaims, ApiError> {
    let claims = authorize(controllers, id, request)?;
    let config = &controllers.shared.config;
    let routing = request.header("x-routing-token").unwrap_or_default();
    let access = token::verify_routing(&config.orchestrator_keys, routing, config.signer.now())?;
    let head = controllers.admit(&claims.group_id, access).await?;
    if head.epoch != claims.epoch {
        return Err(Code::StaleEpoch.into());
    }
    Ok(claims)
}
