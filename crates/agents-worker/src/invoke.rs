//! `POST /invoke`: runs one attempt of an agent and streams its events.
//!
//! Every check comes before anything is done: a refused request uses up no token, asks the App
//! nothing and calls no provider.

use std::sync::Arc;

use axum::{body::Body, extract::State, response::Response};
use bytes::Bytes;
use convene_model::{
    Code, Problem,
    agents::InvokeRequest,
    claims::{AgentAccessClaims, SCOPE_INVOKE, service},
    limits::MAX_INVOKE_BYTES,
    token::{self, Token, TokenError},
};
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::{Worker, problem::ApiError, sse, turn};

/// A call that passed every check.
pub(crate) struct Call {
    /// The token as it came, which goes to the App as `act`.
    pub(crate) token: String,
    /// What it says.
    pub(crate) claims: AgentAccessClaims,
    /// What is asked.
    pub(crate) request: InvokeRequest,
}

pub(crate) async fn invoke(
    State(worker): State<Arc<Worker>>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let call = accept(&worker, request).await?;
    let heartbeat = worker.config.limits.heartbeat;
    let sleep = Arc::clone(&worker.config.sleep);
    Ok(sse::response(turn::run(worker, call), heartbeat, sleep))
}

async fn accept(worker: &Worker, request: Request<Body>) -> Result<Call, ApiError> {
    accept_as(worker, request, SCOPE_INVOKE, |body| {
        serde_json::from_slice(body)
            .map_err(|error| Problem::new(Code::InvalidRequest).detail(error.to_string()))
    })
    .await
}

/// Checks a call with a token of this scope; `parse` makes the call of an agent of it that the token
/// must name.
pub(crate) async fn accept_as(
    worker: &Worker,
    request: Request<Body>,
    scope: &str,
    parse: impl FnOnce(&[u8]) -> Result<InvokeRequest, Problem>,
) -> Result<Call, ApiError> {
    let (head, body) = request.into_parts();
    let now = (worker.config.clock)();
    let text = token::bearer(authorization(&head.headers))?;
    let token: Token<AgentAccessClaims> =
        token::verify(&worker.config.controllers, service::AGENTS, text, now)?;
    if token.registered.iss != service::CONTROLLERS {
        return Err(TokenError::UnknownKey.into());
    }
    let body = read(body, MAX_INVOKE_BYTES).await?;
    if !token::same_secret(token.claims.bh.as_bytes(), token::body_hash(&body).as_bytes()) {
        return Err(TokenError::WrongRequest.into());
    }
    if token.claims.scope != scope {
        return Err(forbidden("the token's scope does not cover this call"));
    }
    let request = parse(&body)?;
    check_claims(&token.claims, &request)?;
    if !request.messages.iter().any(|message| message.message_id == request.trigger) {
        let why = "the trigger is not among the messages";
        return Err(Problem::new(Code::ValidationFailed).detail(why).into());
    }
    worker.used_tokens.use_up(&token.registered, now)?;
    Ok(Call { token: text.to_owned(), claims: token.claims, request })
}

/// The token names one attempt; a body that names another is refused.
fn check_claims(claims: &AgentAccessClaims, request: &InvokeRequest) -> Result<(), ApiError> {
    if claims.group_id != request.group_id {
        return Err(forbidden("the token is for another group"));
    }
    if claims.agent_id != request.agent_id {
        return Err(forbidden("the token is for another agent"));
    }
    if claims.run_id != request.run_id {
        return Err(forbidden("the token is for another run"));
    }
    if claims.attempt != request.attempt {
        return Err(forbidden("the token is for another attempt"));
    }
    Ok(())
}

fn forbidden(why: &str) -> ApiError {
    Problem::new(Code::Forbidden).detail(why).into()
}

pub(crate) fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()
}

/// A body of at most `limit` bytes.
pub(crate) async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Code::TooLarge.into()),
        Err(_) => Err(Problem::new(Code::InvalidRequest).detail("the body was cut").into()),
    }
}
