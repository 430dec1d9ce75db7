//! The public door: routes put together, guarded, and answered with the headers that every answer
//! has.

pub mod client;
pub(crate) mod cookies;
pub(crate) mod extract;
pub(crate) mod failure;
pub mod guard;
pub mod origin;
pub(crate) mod rows;

use axum::{
    Json, Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use convene_hop::api::Api;
use convene_model::keys::Jwks;
use http::{HeaderMap, HeaderValue, header};

use crate::{
    agents, env_profiles, events, groups, identity, mcp_servers, providers, reading, secrets,
    settings, state::AppState, tools, ui, usage, workspaces,
};

/// The policy of answers that are no pages: nothing may be loaded, nobody may frame them.
const CSP_OF_DATA: &str = "default-src 'none'; frame-ancestors 'none'";

/// All operations of the JSON API.
pub(crate) fn api() -> Api<AppState> {
    Api::new()
        .merge(identity::api())
        .merge(workspaces::api())
        .merge(usage::api())
        .merge(agents::api())
        .merge(providers::api())
        .merge(secrets::api())
        .merge(tools::api())
        .merge(mcp_servers::api())
        .merge(env_profiles::api())
        .merge(groups::api())
        .merge(reading::api())
        .merge(events::api())
}

/// All routes of the public door.
pub(crate) fn public_router(state: &AppState) -> Router {
    let guarded = Router::new()
        .merge(api().split().0)
        .merge(identity::routes())
        .merge(workspaces::routes())
        .merge(usage::routes())
        .merge(groups::routes())
        .merge(settings::routes())
        .fallback(failure::not_found)
        .method_not_allowed_fallback(failure::method_not_allowed)
        .layer(middleware::from_fn_with_state(state.clone(), guard::guard));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/.well-known/jwks.json", get(jwks))
        .method_not_allowed_fallback(failure::method_not_allowed)
        .merge(ui::assets::router())
        .merge(guarded)
        .layer(middleware::from_fn(failure::as_page))
        .layer(middleware::from_fn(with_headers))
        .with_state(state.clone())
}

/// The public halves of the keys that the App signs with.
async fn jwks(State(state): State<AppState>) -> Json<Jwks> {
    Json(state.signing_keys.published())
}

/// A page, never kept by anybody.
pub(crate) fn page(html: String) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Html(html)).into_response()
}

async fn with_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let html = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let policy = if html { ui::CSP } else { CSP_OF_DATA };
    put(headers, header::CONTENT_SECURITY_POLICY, policy);
    put(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(headers, header::X_FRAME_OPTIONS, "DENY");
    put(headers, header::REFERRER_POLICY, "same-origin");
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn put(headers: &mut HeaderMap, name: header::HeaderName, value: &'static str) {
    headers.insert(name, HeaderValue::from_static(value));
}
