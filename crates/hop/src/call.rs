//! The next hop as a caller sees it.

use axum::{Router, body::Body, response::Response};
use bytes::Bytes;
use convene_model::{Code, Problem, limits::MAX_BODY_BYTES};
use http::{Request, StatusCode};
use tokio::sync::oneshot;
use tower::ServiceExt;

use url::Url;

use crate::{GroupLink, Links, http_hop::HttpHop, link::LinkOffer, request::read_body, trace};

/// The next hop: its router, called in memory, or its addresses, called over HTTP. It verifies each
/// call's token all the same.
#[derive(Clone)]
pub struct Hop(Kind);

#[derive(Clone)]
enum Kind {
    InProcess(Router),
    Http(HttpHop),
}

/// The next hop could not be asked or its answer could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the next hop cannot be reached: {why}")]
pub struct HopError {
    why: String,
    may_have_arrived: bool,
}

impl HopError {
    /// Why there is no answer to a request that may have arrived.
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), may_have_arrived: true }
    }

    /// Why a request was not sent at all.
    pub(crate) fn unsent(why: impl Into<String>) -> Self {
        Self { why: why.into(), may_have_arrived: false }
    }

    /// Whether the request may have arrived all the same.
    #[must_use]
    pub const fn may_have_arrived(&self) -> bool {
        self.may_have_arrived
    }
}

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
        Self(Kind::InProcess(router))
    }

    /// A hop of several equal processes at `http(s)://host[:port]` each, taken in turn; one that
    /// cannot be connected to is passed over. Upstreams are kept in `links`.
    ///
    /// The addresses are an operator's, so any of them is allowed; redirects are not followed.
    ///
    /// # Errors
    /// [`HopError`] when there is no address, an address is more than scheme, host and port, or the
    /// HTTP client cannot be set up.
    pub fn http(bases: &[Url], links: Links) -> Result<Self, HopError> {
        HttpHop::new(bases, links).map(|hop| Self(Kind::Http(hop)))
    }

    /// Sends a request and returns the answer, whatever its status. Its body is streamed.
    ///
    /// # Errors
    /// [`HopError`] when there is no answer. Over HTTP the request may have arrived all the same.
    pub async fn send(&self, mut request: Request<Bytes>) -> Result<Response, HopError> {
        trace::carry(request.headers_mut());
        match &self.0 {
            Kind::InProcess(router) => in_memory(router, request).await,
            Kind::Http(hop) => hop.send(request).await,
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
        let body = match read_body(response.into_body(), limit).await {
            Ok(body) => body,
            Err(problem) if problem.code == Code::TooLarge => return Err(problem),
            // Nothing is wrong with the request: the next hop went away over its answer.
            Err(_) => return Err(unavailable("the next hop's answer broke off".to_owned())),
        };
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
        trace::carry(request.headers_mut());
        let router = match &self.0 {
            Kind::InProcess(router) => router,
            Kind::Http(hop) => return hop.connect(request).await,
        };
        let (offer, offered) = oneshot::channel();
        request.extensions_mut().insert(LinkOffer::new(offer));
        let response = in_memory(router, request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return offered.await.map_err(|_| {
                HopError::new("the upgrade came without an upstream".to_owned()).into()
            });
        }
        Err(refusal(response).await)
    }
}

async fn in_memory(router: &Router, request: Request<Bytes>) -> Result<Response, HopError> {
    match router.clone().oneshot(request.map(Body::from)).await {
        Ok(response) => Ok(response),
        Err(never) => match never {},
    }
}

/// Why an answer that is no 101 refuses the upstream.
pub(crate) async fn refusal(response: Response) -> ConnectError {
    let status = response.status();
    let body = read_body(response.into_body(), MAX_BODY_BYTES).await.unwrap_or_default();
    match serde_json::from_slice(&body) {
        Ok(problem) => ConnectError::Refused(problem),
        Err(_) => HopError::new(format!("the next hop answered {status}")).into(),
    }
}

impl std::fmt::Debug for Hop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Kind::InProcess(_) => f.write_str("Hop(in process)"),
            Kind::Http(hop) => write!(f, "Hop({hop:?})"),
        }
    }
}
