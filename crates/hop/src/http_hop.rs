//! The next hop over HTTP: pooled connections to one or several equal processes, taken in turn.
//!
//! Owns time-outs and what happens when a process cannot be connected to. Repeats nothing that may
//! have arrived: whoever calls decides that, with a token of its own for each attempt.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{Request, StatusCode};
use reqwest::{Client, redirect};
use tokio::time::{Instant, timeout};
use tokio_websockets::{ClientBuilder, Limits};
use url::Url;

use crate::{
    ConnectError, GroupLink, HopError, Links,
    call::refusal,
    handshake::Asked,
    pump::{self, MAX_FRAME_FROM_GROUP, Pace},
};

/// How long a connection may take to come about, name look-up and TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an answer may take to begin: longer than what the next hop allows the one behind it.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an answer may pause once it has begun; streams send something more often than that.
pub const PAUSE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an unused connection is kept: shorter than what balancers and proxies keep theirs.
pub const KEPT_IDLE: Duration = Duration::from_secs(15);
/// How long an address that could not be connected to is passed over while others can.
pub const SET_ASIDE_FOR: Duration = Duration::from_secs(2);

/// One or several equal processes. Cheap to clone; clones share connections and turns.
#[derive(Clone)]
pub(crate) struct HttpHop(Arc<Inner>);

struct Inner {
    client: Client,
    bases: Vec<Base>,
    next: AtomicUsize,
    started: Instant,
    links: Links,
}

struct Base {
    /// `http(s)://host[:port]`, without a slash at the end.
    url: String,
    /// Until when it is passed over, in milliseconds since the hop was made.
    aside_until: AtomicU64,
}

impl HttpHop {
    pub(crate) fn new(bases: &[Url], links: Links) -> Result<Self, HopError> {
        if bases.is_empty() {
            return Err(HopError::unsent("it has no address"));
        }
        let bases = bases.iter().map(Base::new).collect::<Result<_, _>>()?;
        let client = Client::builder()
            .user_agent(concat!("convene/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(PAUSE_TIMEOUT)
            .pool_idle_timeout(KEPT_IDLE)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| HopError::unsent(with_causes(&error)))?;
        let next = AtomicUsize::new(0);
        Ok(Self(Arc::new(Inner { client, bases, next, started: Instant::now(), links })))
    }

    pub(crate) async fn send(&self, request: Request<Bytes>) -> Result<Response, HopError> {
        let response = self.execute(&request).await?;
        Ok(http::Response::from(response).map(Body::new))
    }

    pub(crate) async fn connect(
        &self,
        mut request: Request<Bytes>,
    ) -> Result<GroupLink, ConnectError> {
        let asked = Asked::put(request.headers_mut());
        let response = self.execute(&request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(http::Response::from(response).map(Body::new)).await);
        }
        if !asked.is_answered_by(response.headers()) {
            return Err(HopError::new("it upgrades to something else").into());
        }
        let upgraded = response.upgrade().await;
        let upgraded = upgraded.map_err(|error| HopError::new(with_causes(&error)))?;
        let limits = Limits::default().max_payload_len(Some(MAX_FRAME_FROM_GROUP));
        let socket = ClientBuilder::new().limits(limits).take_over(upgraded);
        let (theirs, ours) = GroupLink::pair();
        let links = &self.0.links;
        links.spawn(pump::carry(socket, ours, links.stop(), Pace::default()));
        Ok(theirs)
    }

    /// Sends a request to the process whose turn it is, or to the next that can be connected to:
    /// a request that met no connection has not arrived anywhere.
    async fn execute(&self, request: &Request<Bytes>) -> Result<reqwest::Response, HopError> {
        let mut last = HopError::unsent("it has no address");
        for base in self.turns() {
            let target = request.uri().path_and_query().map_or("/", |path| path.as_str());
            let url = Url::parse(&format!("{}{target}", base.url))
                .map_err(|error| HopError::unsent(error.to_string()))?;
            let mut outgoing = reqwest::Request::new(request.method().clone(), url);
            *outgoing.headers_mut() = request.headers().clone();
            if !request.body().is_empty() {
                *outgoing.body_mut() = Some(request.body().clone().into());
            }
            let answer = timeout(ANSWER_TIMEOUT, self.0.client.execute(outgoing));
            let answer = answer.await.map_err(|_| HopError::new("no answer in time"))?;
            match answer {
                Ok(response) => {
                    base.aside_until.store(0, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(error) if error.is_connect() => {
                    let until = self.0.started.elapsed() + SET_ASIDE_FOR;
                    base.aside_until.store(millis(until), Ordering::Relaxed);
                    tracing::debug!(url = base.url, error = with_causes(&error), "no connection");
                    last = HopError::unsent(format!("{}: {}", base.url, with_causes(&error)));
                }
                Err(error) => return Err(HopError::new(with_causes(&error))),
            }
        }
        Err(last)
    }

    /// All addresses, from the one whose turn it is; those that were set aside come last.
    fn turns(&self) -> impl Iterator<Item = &Base> {
        let inner = &self.0;
        let first = inner.next.fetch_add(1, Ordering::Relaxed);
        let now = millis(inner.started.elapsed());
        let of = move |index: usize| &inner.bases[first.wrapping_add(index) % inner.bases.len()];
        let is_aside = move |base: &&Base| base.aside_until.load(Ordering::Relaxed) > now;
        let usable = (0..inner.bases.len()).map(of).filter(move |base| !is_aside(base));
        let aside = (0..inner.bases.len()).map(of).filter(is_aside);
        // Looked at once: what is set aside by this very call is not asked again.
        usable.collect::<Vec<_>>().into_iter().chain(aside.collect::<Vec<_>>())
    }
}

impl Base {
    fn new(url: &Url) -> Result<Self, HopError> {
        let bare = matches!(url.scheme(), "http" | "https")
            && url.host().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none();
        if !bare {
            return Err(HopError::unsent(format!("{url} is not http(s)://host[:port]")));
        }
        let url = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { url, aside_until: AtomicU64::new(0) })
    }
}

impl fmt::Debug for HttpHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.bases.iter().map(|base| &base.url)).finish()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An error with what is behind it; the library's own words hide that.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
