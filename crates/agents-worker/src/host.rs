//! What the worker needs of its host: keys, time, randomness, the way to the App and to providers.
//!
//! Owns the ports and the limits. Never implements one: a native host and a wasm host differ here.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use convene_model::{Timestamp, keys::TrustedKeys, signing_keys::SigningKeys};
use futures_util::{future::BoxFuture, stream::BoxStream};
use http::{Request, Response};

/// Reads the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
/// Draws a unique id for a token (a random UUID).
pub type Jti = Arc<dyn Fn() -> String + Send + Sync>;
/// Returns a future that is ready after the given time.
pub type Sleep = Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>;

/// Where the App asks whether something works.
pub const PROBE_PATH: &str = "/probe";
/// Where the App resolves agents.
pub const RESOLVE_PATH: &str = "/internal/resolve";

/// What [`crate::router`] is made of.
#[derive(Clone)]
pub struct Config {
    /// Signs `worker+jwt`; its issuer is `agents`.
    pub signing: SigningKeys,
    /// Verifies agent-access tokens: the keys of the issuer `controllers`.
    pub controllers: TrustedKeys,
    /// Verifies the App's tokens: the keys of the issuer `app`.
    pub app_keys: TrustedKeys,
    /// The time.
    pub clock: Clock,
    /// Ids of the tokens that the worker signs.
    pub jti: Jti,
    /// The timer.
    pub sleep: Sleep,
    /// The way to the App.
    pub app: Arc<dyn Backend>,
    /// The way to the Orchestrator.
    pub orchestrator: Arc<dyn Backend>,
    /// The way to model providers and to the services that tools use.
    pub transport: Arc<dyn Transport>,
    /// Times that an operator may set.
    pub limits: Limits,
}

/// Times that an operator may set; the defaults are the documented ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a provider may send nothing, before its first byte and between two.
    pub provider_silent: Duration,
    /// After how long without an event a comment is sent, so that nothing between takes the stream
    /// for dead.
    pub heartbeat: Duration,
    /// How long the App may take to resolve an agent, and the Orchestrator to search a group.
    pub resolve_timeout: Duration,
    /// The demo model's pause after each word.
    pub demo_pace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            provider_silent: Duration::from_secs(60),
            heartbeat: Duration::from_secs(10),
            resolve_timeout: Duration::from_secs(10),
            demo_pace: Duration::from_millis(30),
        }
    }
}

/// The way to another service of ours.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Sends a complete request (method, path, `authorization`, body) and returns the answer,
    /// whatever its status.
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, BackendError>;
}

/// The service could not be asked. The text is for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the service cannot be asked: {0}")]
pub struct BackendError(pub String);

/// The body of an answer, as its bytes arrive. After an error nothing follows.
pub type BodyStream = BoxStream<'static, Result<Bytes, TransportError>>;

/// Streaming HTTP to model providers and to the services that tools use.
///
/// Dropping the future or the body cancels the request. Redirects are not followed, and where the
/// host can, addresses that the operator did not allow are refused before anything is sent.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends a request to an absolute `http` or `https` URL and returns the answer, whatever its
    /// status, as soon as its headers are there.
    async fn send(&self, request: Request<Bytes>) -> Result<Response<BodyStream>, TransportError>;
}

/// Why there is no answer, or no more of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct TransportError {
    /// What kind of failure.
    pub kind: TransportErrorKind,
    /// One sentence for people: the host at most, never a path, a header or a body.
    pub detail: String,
}

impl TransportError {
    /// An error of `kind`; `detail` is one sentence for people, without secrets.
    #[must_use]
    pub fn new(kind: TransportErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

/// The kinds of [`TransportError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportErrorKind {
    /// The operator's configuration does not allow the address.
    NotAllowed,
    /// No connection came about.
    Unreachable,
    /// Nothing came for too long.
    Silent,
    /// The connection broke.
    Cut,
    /// More came than a reply can need.
    TooLong,
}
