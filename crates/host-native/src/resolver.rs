//! The Agents Worker's way to the App's resolver.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use convene_agents_worker::{ResolveError, Resolver};
use convene_hop::{Hop, read_body};
use convene_model::limits::MAX_BODY_BYTES;
use http::{Request, Response};

/// The App as the Agents Worker reaches it. The App is made after the worker, since it stands
/// before it in the chain.
#[derive(Clone, Default)]
pub(crate) struct AppResolver {
    app: Arc<OnceLock<Hop>>,
}

impl AppResolver {
    /// Says where the App is; the first word holds.
    pub(crate) fn set(&self, app: Hop) {
        let _ = self.app.set(app);
    }
}

#[async_trait]
impl Resolver for AppResolver {
    async fn resolve(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ResolveError> {
        let app = self.app.get().ok_or_else(|| ResolveError("the app is not up yet".into()))?;
        let response = app.send(request).await.map_err(|error| ResolveError(error.to_string()))?;
        let (parts, body) = response.into_parts();
        let body = read_body(body, MAX_BODY_BYTES)
            .await
            .map_err(|problem| ResolveError(problem.code.as_str().to_owned()))?;
        Ok(Response::from_parts(parts, body))
    }
}
