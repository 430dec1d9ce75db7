//! The Agents Worker, the fourth hop of the chain: runs one attempt of an agent for each request
//! and streams its reply.
//!
//! Owns the check of agent-access tokens, the resolution of agents, the prompt, the model providers
//! and the tools. It is stateless beside a short-lived cache and the ids of used tokens; it keeps no
//! group, no secret and no connection between requests. Network, clock, timer and randomness are
//! the host's and are passed in, so that the same code runs natively and on wasm.

mod arithmetic;
mod continuation;
mod conversation;
mod dialogue;
mod event_stream;
mod failure;
mod host;
mod hosts;
mod invoke;
mod mcp;
mod metering;
mod probe;
mod problem;
mod prompt;
mod providers;
mod reply;
mod resolve;
mod sse;
mod summarize;
mod tools;
mod turn;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use convene_model::{keys::Jwks, limits::MAX_REMEMBERED_JTIS, replay::ReplayGuard};

pub use host::{
    Backend, BackendError, BodyStream, Clock, Config, Jti, Limits, PROBE_PATH, RESOLVE_PATH, Sleep,
    Transport, TransportError, TransportErrorKind,
};
pub use hosts::NamedHost;
pub use resolve::{MAX_CACHED_AGENTS, RESOLVE_TTL};

/// What the routes share.
pub(crate) struct Worker {
    config: Config,
    used_tokens: ReplayGuard,
    agents: resolve::Cache,
    listings: mcp::Listings,
}

/// The routes: `POST /invoke`, `POST /summarize`, `POST /probe`, `GET /.well-known/jwks.json`,
/// `GET /healthz`.
pub fn router(config: Config) -> Router {
    let worker = Worker {
        config,
        used_tokens: ReplayGuard::new(MAX_REMEMBERED_JTIS),
        agents: resolve::Cache::default(),
        listings: mcp::Listings::default(),
    };
    Router::new()
        .route("/invoke", post(invoke::invoke))
        .route("/summarize", post(summarize::summarize))
        .route(PROBE_PATH, post(probe::probe))
        .route("/.well-known/jwks.json", get(jwks))
        .route("/healthz", get(healthz))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .with_state(Arc::new(worker))
}

async fn jwks(State(worker): State<Arc<Worker>>) -> Json<Jwks> {
    Json(worker.config.signing.published())
}

async fn healthz() -> &'static str {
    "ok"
}
