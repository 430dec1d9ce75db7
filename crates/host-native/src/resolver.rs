//! The Agents Worker's way to the App and to the Orchestrator.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use convene_agents_worker::{Backend, BackendError};
use convene_hop::{Hop, read_body};
use convene_model::limits::MAX_BODY_BYTES;
use http::{Request, Response};

/// A service as the Agents Worker reaches it. Those that it calls are made after the worker, since
/// they stand before it in the chain.
#[derive(Clone, Default)]
pub(crate) struct LateBackend {
    hop: Arc<OnceLock<Hop>>,
}

/// Both services that the worker calls.
#[derive(Clone, Default)]
pub(crate) struct Backends {
    /// Resolves agents.
    pub(crate) app: LateBackend,
    /// Searches groups.
    pub(crate) orchestrator: LateBackend,
}

impl LateBackend {
    /// Says where the service is; the first word holds.
    pub(crate) fn set(&self, hop: Hop) {
        let _ = self.hop.set(hop);
    }
}

#[async_trait]
impl Backend for LateBackend {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, BackendError> {
        let hop = self.hop.get().ok_or_else(|| BackendError("it is not up yet".into()))?;
        let response = hop.send(request).await.map_err(|error| BackendError(error.to_string()))?;
        let (parts, body) = response.into_parts();
        let body = read_body(body, MAX_BODY_BYTES)
            .await
            .map_err(|problem| BackendError(problem.code.as_str().to_owned()))?;
        Ok(Response::from_parts(parts, body))
    }
}
