//! The next hop as a caller sees it.

use axum::{Router, body::Body, response::Response};
use bytes::Bytes;
use convene_model::{Code, Problem, limits::MAX_BODY_BYTES};
use http::{Request, StatusCode};
use tokio::sync::oneshot;
use tower::ServiceExt;

use crate::{GroupLink, link::LinkOffer, request::read_body};

/// The next hop: its router, called in memory. It verifies each call's token all the same.
#[derive(Clone)]
pub struct Hop {
    router: Router,
}

/// The next hop could not be asked or its answer could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the next hop cannot be reached: {0}")]
pub struct HopError(pub String);

/// Why an upstream was not opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The next hop refused.
    #[error("the next hop refused the upstream: {}", .0.code.as_str())]
    Refused(Problem),
    /// The next hop did not answer as it should.
    #[error(transparent)]
    Unavailable(#[from] HopError),
}

impl Hop {
    /// A hop in the same process.
    #[must_use]
    pub fn in_process(router: Router) -> Self {
        Self { router }
    }

    /// Sends a request and returns the answer, whatever its status.
    ///
    /// # Errors
    /// [`HopError`] when there is no answer.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response, HopError> {
        let request = request.map(Body::from);
        match self.router.clone().oneshot(request).await {
            Ok(response) => Ok(response),
            Err(never) => match never {},
        }
    }

    /// Sends a request and reads the answer's body: the body of a success, the problem otherwise.
    ///
    /// # Errors
    /// The next hop's problem, or [`Code::Unavailable`] when there is none to be read.
    pub async fn call(&self, request: Request<Bytes>, limit: usize) -> Result<Bytes, Problem> {
        let unavailable = |why: String| Problem::new(Code::Unavailable).detail(why);
        let response = self.send(request).await.map_err(|error| unavailable(error.to_string()))?;
        let status = response.status();
        let body = read_body(response.into_body(), limit).await?;
        if status.is_success() {
            return Ok(body);
        }
        Err(serde_json::from_slice(&body)
            .unwrap_or_else(|_| unavailable(format!("the next hop answered {status}"))))
    }

    /// Opens an upstream with a request that asks for an upgrade.
    ///
    /// # Errors
    /// [`ConnectError`] with the next hop's problem, or that it did not answer.
    pub async fn connect(&self, mut request: Request<Bytes>) -> Result<GroupLink, ConnectError> {
        let (offer, offered) = oneshot::channel();
        request.extensions_mut().insert(LinkOffer::new(offer));
        let response = self.send(request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return offered
                .await
                .map_err(|_| HopError("the upgrade came without an upstream".to_owned()).into());
        }
        let status = response.status();
        let body = read_body(response.into_body(), MAX_BODY_BYTES).await.unwrap_or_default();
        Err(match serde_json::from_slice(&body) {
            Ok(problem) => ConnectError::Refused(problem),
            Err(_) => HopError(format!("the next hop answered {status}")).into(),
        })
    }
}

impl std::fmt::Debug for Hop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hop(in process)")
    }
}
