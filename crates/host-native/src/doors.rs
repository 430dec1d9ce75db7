//! The doors of a process: where it listens, what every door answers beside its service's own
//! routes, and whether what the service needs is there.
//!
//! `/healthz` says that the process answers, `/readyz` that its dependencies do too; the keys of
//! others are looked up before a request reaches the service.

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::State,
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use convene_hop::{ApiError, Hop, Links, method_not_allowed};
use convene_model::{Code, Problem, signing_keys::SigningKeys};
use http::Request;
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::CliError,
    jwks::{self, KeyRing},
};

/// How long a dependency may take to answer `/readyz`.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(2);

type Check = dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync;

/// What a service needs, each by name.
#[derive(Clone, Default)]
pub(crate) struct Readiness {
    checks: Vec<(String, Arc<Check>)>,
}

impl Readiness {
    /// Adds a dependency and how to find out whether it is there.
    pub(crate) fn needs<F>(
        mut self,
        name: impl Into<String>,
        check: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let check: Arc<Check> = Arc::new(move || Box::pin(check()));
        self.checks.push((name.into(), check));
        self
    }

    /// Adds another service, which is there when its own `path` answers with success.
    pub(crate) fn needs_hop(self, name: impl Into<String>, hop: Hop, path: &'static str) -> Self {
        self.needs(name, move || {
            let hop = hop.clone();
            async move {
                let request = Request::get(path).body(Bytes::new());
                let Ok(request) = request else { return false };
                hop.send(request).await.is_ok_and(|response| response.status().is_success())
            }
        })
    }

    /// Adds the published keys of others.
    pub(crate) fn needs_keys(mut self, ring: &KeyRing) -> Self {
        for source in ring.sources() {
            let (name, source) = (format!("keys of {}", source.issuer()), Arc::clone(source));
            self = self.needs(name, move || std::future::ready(source.is_known()));
        }
        self
    }

    async fn answer(&self) -> Response {
        let mut found = Map::new();
        let mut ready = true;
        for (name, check) in &self.checks {
            let there = tokio::time::timeout(READY_TIMEOUT, check()).await.unwrap_or(false);
            ready &= there;
            found.insert(name.clone(), json!(if there { "ok" } else { "unavailable" }));
        }
        let checks = Value::Object(found);
        if ready {
            return Json(json!({"status": "ready", "checks": checks})).into_response();
        }
        ApiError(Problem::new(Code::Unavailable).with("checks", checks)).into_response()
    }
}

/// A service's routes with what every door has beside them.
pub(crate) fn door(
    service: Router,
    keys: SigningKeys,
    ring: KeyRing,
    readiness: Readiness,
    links: Links,
) -> Router {
    let ready = get(|State(readiness): State<Readiness>| async move { readiness.answer().await });
    let door = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", ready)
        .route("/.well-known/jwks.json", get(move || std::future::ready(Json(keys.published()))))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback_service(service)
        .layer(Extension(links))
        .with_state(readiness);
    if ring.sources().is_empty() {
        return door;
    }
    door.layer(middleware::from_fn_with_state(ring, jwks::look_up_keys))
}

pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, CliError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}").into())
}

/// Serves until the process stops, then lets open requests end.
pub(crate) fn spawn_server(
    listener: TcpListener,
    router: Router,
    stopping: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        use axum::serve::ListenerExt;
        let listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection cannot be set to no-delay");
            }
        });
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let served = axum::serve(listener, service)
            .with_graceful_shutdown(async move { stopping.cancelled().await })
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "a server ended");
        }
    })
}
