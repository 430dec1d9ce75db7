//! The one way of tools to services: what may be reached, how much is read, what is counted.
//!
//! Every request passes here, of HTTP tools and to MCP servers, each hop of a redirect too: the
//! workspace's list of hosts is checked here, the addresses behind the names by the transport.
//! Redirects are followed within their origin only, so that a header with a secret goes nowhere
//! else.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use convene_model::agents::ToolStatus;
use futures_util::StreamExt;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use url::Url;

use super::redact::Redaction;
use crate::{BodyStream, Transport, TransportError, TransportErrorKind, hosts::NamedHost};

/// Redirects that are followed in one call.
pub(crate) const MAX_REDIRECTS: usize = 3;

/// Why a call failed. The detail is one sentence for people and the model, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ToolFailure {
    /// A stable word for the model.
    pub(crate) code: &'static str,
    pub(crate) detail: String,
    pub(crate) status: ToolStatus,
    /// What the service said beside it, for the model.
    pub(crate) body: Option<String>,
}

impl ToolFailure {
    pub(crate) fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), status: ToolStatus::Failed, body: None }
    }

    pub(crate) fn timeout(seconds: f32) -> Self {
        let detail = format!("It took longer than {seconds} seconds.");
        Self { status: ToolStatus::Timeout, ..Self::new("timeout", detail) }
    }
}

/// The way out of one attempt.
#[derive(Clone)]
pub(crate) struct Outbound {
    transport: Arc<dyn Transport>,
    /// The hosts that the workspace allows; any where absent.
    hosts: Option<Arc<[NamedHost]>>,
    redaction: Arc<Redaction>,
    bytes: Arc<AtomicU64>,
}

/// A whole answer, as far as it was read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Whether there was more than was read.
    pub(crate) cut: bool,
}

impl Outbound {
    /// A way to `hosts`; an entry that is no host allows nothing.
    pub(crate) fn new(
        transport: Arc<dyn Transport>,
        hosts: Option<&[String]>,
        redaction: Redaction,
    ) -> Self {
        let parse =
            |hosts: &[String]| hosts.iter().filter_map(|host| NamedHost::parse(host)).collect();
        Self {
            transport,
            hosts: hosts.map(parse),
            redaction: Arc::new(redaction),
            bytes: Arc::default(),
        }
    }

    /// What went out and came in so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A text that came back, without the attempt's secrets.
    pub(crate) fn redacted(&self, text: &str) -> String {
        self.redaction.apply(text)
    }

    /// Sends a request and returns the answer, whatever its status, as soon as its headers are
    /// there. What is read of the body is counted.
    ///
    /// # Errors
    /// [`ToolFailure`] where the address is not allowed or nothing came.
    pub(crate) async fn open(
        &self,
        request: Request<Bytes>,
    ) -> Result<Response<BodyStream>, ToolFailure> {
        let url = Url::parse(&request.uri().to_string())
            .map_err(|_| ToolFailure::new("invalid_address", "The address is no URL."))?;
        self.check(&url)?;
        self.count(size_of(request.headers()) + request.body().len() + url.as_str().len());
        let response = self.transport.send(request).await.map_err(|error| of_transport(&error))?;
        self.count(size_of(response.headers()));
        let bytes = Arc::clone(&self.bytes);
        Ok(response.map(|body| {
            body.inspect(move |chunk| {
                if let Ok(chunk) = chunk {
                    bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                }
            })
            .boxed()
        }))
    }

    /// Sends a request and reads at most `limit` bytes of its answer. A GET or HEAD follows
    /// redirects.
    ///
    /// # Errors
    /// [`ToolFailure`] where the address is not allowed, a redirect leads elsewhere, or the answer
    /// broke off.
    pub(crate) async fn fetch(
        &self,
        request: Request<Bytes>,
        limit: u64,
    ) -> Result<Answer, ToolFailure> {
        let (mut head, body) = request.into_parts();
        let follows = head.method == Method::GET || head.method == Method::HEAD;
        let mut hops = 0;
        loop {
            let response = self.open(Request::from_parts(head.clone(), body.clone())).await?;
            if follows && is_redirect(response.status()) {
                hops += 1;
                if hops > MAX_REDIRECTS {
                    let why = format!("The service redirects more than {MAX_REDIRECTS} times.");
                    return Err(ToolFailure::new("redirect", why));
                }
                head.uri = target(&head.uri.to_string(), response.headers())?;
                continue;
            }
            let (parts, stream) = response.into_parts();
            let (body, cut) = read(stream, limit).await?;
            return Ok(Answer { status: parts.status, headers: parts.headers, body, cut });
        }
    }

    fn check(&self, url: &Url) -> Result<(), ToolFailure> {
        let refused = |why: String| Err(ToolFailure::new("address_not_allowed", why));
        if !matches!(url.scheme(), "http" | "https") {
            return refused("Only http and https addresses are allowed.".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refused("An address may not have a user in it.".to_owned());
        }
        let Some(hosts) = &self.hosts else { return Ok(()) };
        if hosts.iter().any(|host| host.matches(url)) {
            return Ok(());
        }
        let host = url.host_str().unwrap_or_default();
        refused(format!("The workspace does not allow its tools to reach \"{host}\"."))
    }

    fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Reads at most `limit` bytes, and whether there was more.
pub(crate) async fn read(
    mut stream: BodyStream,
    limit: u64,
) -> Result<(Vec<u8>, bool), ToolFailure> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut body = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| of_transport(&error))?;
        let room = limit - body.len();
        if chunk.len() > room {
            body.extend_from_slice(&chunk[..room]);
            return Ok((body, true));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, false))
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads, within its origin.
fn target(from: &str, headers: &HeaderMap) -> Result<http::Uri, ToolFailure> {
    let refused = |why: &str| ToolFailure::new("redirect", why);
    let location = headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
    let location =
        location.ok_or_else(|| refused("The service redirects without saying where to."))?;
    let from = Url::parse(from).map_err(|_| refused("The address is no URL."))?;
    let to = from.join(location).map_err(|_| refused("The service redirects to no address."))?;
    if to.origin() != from.origin() {
        return Err(refused("The service redirects to another place, which is not followed."));
    }
    to.as_str().parse().map_err(|_| refused("The service redirects to no address."))
}

/// Bytes of headers as they are sent.
fn size_of(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

pub(crate) fn of_transport(error: &TransportError) -> ToolFailure {
    let failed = |code| ToolFailure::new(code, error.detail.clone());
    match error.kind {
        TransportErrorKind::NotAllowed => failed("address_not_allowed"),
        TransportErrorKind::Unreachable => failed("unreachable"),
        TransportErrorKind::Silent => {
            ToolFailure { status: ToolStatus::Timeout, ..failed("timeout") }
        }
        TransportErrorKind::Cut => failed("cut"),
        TransportErrorKind::TooLong => failed("too_long"),
    }
}
