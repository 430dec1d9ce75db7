//! Traces: how a hop takes part in one, and how it goes along to the next.
//!
//! Each hop begins a [`Span`] for what it is asked, and whatever it asks others meanwhile carries
//! that span's `traceparent` (W3C Trace Context). Who records spans is the host's: without a
//! [`Recorder`] nothing is begun, nothing is carried, and nothing costs anything.

use std::{
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::Request,
    middleware::{self, Next},
    response::Response,
};
use bytes::Bytes;
use convene_model::trace::{TRACEPARENT, TraceParent};
use http::{HeaderValue, header::HeaderMap};

/// Where spans go.
pub trait Recorder: Send + Sync + 'static {
    /// Begins a span of a service; `None` for a trace that is not recorded.
    fn begin(
        &self,
        service: &'static str,
        name: &str,
        origin: Origin,
    ) -> Option<Box<dyn Recording>>;
}

/// A span that is being recorded; it ends when it is dropped.
pub trait Recording: Send + Sync {
    /// What follows from it carries this.
    fn context(&self) -> TraceParent;
    /// Notes something down. Never a text that somebody wrote, never a secret.
    fn note(&mut self, key: &'static str, value: String);
    /// What it was for did not succeed.
    fn fail(&mut self, why: &str);
}

/// Where a span comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From people and their programs: the trace is theirs if they name one, but whether it is
    /// recorded is ours to say.
    Outside(Option<TraceParent>),
    /// From another hop, which has said whether it is recorded.
    Hop(TraceParent),
}

static RECORDER: OnceLock<Box<dyn Recorder>> = OnceLock::new();

tokio::task_local! {
    static CURRENT: TraceParent;
}

/// Lets spans of this process be recorded from now on. The first recorder holds.
pub fn record_with(recorder: Box<dyn Recorder>) {
    let _ = RECORDER.set(recorder);
}

/// A span, or nothing where it is not recorded. Ends when it is dropped.
#[derive(Default)]
pub struct Span(Option<Box<dyn Recording>>);

impl Span {
    /// Begins a span of a service.
    #[must_use]
    pub fn begin(service: &'static str, name: &str, origin: Origin) -> Self {
        Self(RECORDER.get().and_then(|recorder| recorder.begin(service, name, origin)))
    }

    /// Begins a span that follows from another one, if there is one.
    #[must_use]
    pub fn after(service: &'static str, name: &str, parent: Option<TraceParent>) -> Self {
        parent.map_or_else(Self::default, |parent| Self::begin(service, name, Origin::Hop(parent)))
    }

    /// What follows from it carries this.
    #[must_use]
    pub fn context(&self) -> Option<TraceParent> {
        self.0.as_ref().map(|recording| recording.context())
    }

    /// Notes something down. Never a text that somebody wrote, never a secret.
    pub fn note(&mut self, key: &'static str, value: impl ToString) {
        if let Some(recording) = &mut self.0 {
            recording.note(key, value.to_string());
        }
    }

    /// What it was for did not succeed.
    pub fn fail(&mut self, why: &str) {
        if let Some(recording) = &mut self.0 {
            recording.fail(why);
        }
    }
}

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Span").field(&self.context()).finish()
    }
}

/// What the task that asks is doing.
#[must_use]
pub fn current() -> Option<TraceParent> {
    CURRENT.try_with(|current| *current).ok()
}

/// Does something as part of a trace: whatever it asks of other hops carries `parent`.
pub async fn within<F: Future>(parent: Option<TraceParent>, work: F) -> F::Output {
    match parent {
        Some(parent) => CURRENT.scope(parent, work).await,
        None => work.await,
    }
}

/// Puts what the task is doing into a request's headers.
pub(crate) fn carry(headers: &mut HeaderMap) {
    if let Some(current) = current()
        && let Ok(value) = HeaderValue::try_from(current.to_string())
    {
        headers.insert(TRACEPARENT, value);
    }
}

/// A service's routes, whose requests from other hops are spans when they carry a trace.
pub fn of_hops(service: &'static str, router: Router) -> Router {
    if RECORDER.get().is_none() {
        return router;
    }
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let origin = parent(&request).map(Origin::Hop);
        answer(service, origin, request, next)
    }))
}

/// A service's routes for people, whose requests below `/api/` are spans.
pub fn of_people(service: &'static str, router: Router) -> Router {
    if RECORDER.get().is_none() {
        return router;
    }
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let is_api = request.uri().path().starts_with("/api/");
        let origin = is_api.then(|| Origin::Outside(parent(&request)));
        answer(service, origin, request, next)
    }))
}

fn parent(request: &Request) -> Option<TraceParent> {
    request.headers().get(TRACEPARENT)?.to_str().ok()?.parse().ok()
}

async fn answer(
    service: &'static str,
    origin: Option<Origin>,
    request: Request,
    next: Next,
) -> Response {
    let Some(origin) = origin else { return next.run(request).await };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut span = Span::begin(service, &format!("{method} {}", shape(&path)), origin);
    let Some(context) = span.context() else { return next.run(request).await };
    span.note("http.request.method", method);
    span.note("url.path", path);
    let response = CURRENT.scope(context, next.run(request)).await;
    span.note("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        span.fail(response.status().as_str());
    }
    response.map(|body| Body::new(Traced { body, context, _span: span }))
}

/// A path without what is particular to one request: spans of one kind have one name.
fn shape(path: &str) -> String {
    const KINDS: [&str; 6] = ["groups", "orgs", "messages", "runs", "tasks", "members"];
    let mut after = "";
    let parts = path.split('/').map(|part| {
        let shown = if KINDS.contains(&after) && !part.is_empty() { "{id}" } else { part };
        after = part;
        shown
    });
    parts.collect::<Vec<_>>().join("/")
}

/// A body that belongs to a span: the span ends with it, and what is asked over it is part of it.
struct Traced {
    body: Body,
    context: TraceParent,
    _span: Span,
}

impl HttpBody for Traced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let context = self.context;
        CURRENT.sync_scope(context, || Pin::new(&mut self.body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: TraceParent = TraceParent { trace_id: 1, span_id: 2, sampled: true };

    #[tokio::test]
    async fn what_is_asked_within_a_trace_carries_it_and_nothing_else_does() {
        let mut headers = HeaderMap::new();
        carry(&mut headers);
        assert!(headers.is_empty());
        within(Some(PARENT), async {
            carry(&mut headers);
            assert_eq!(current(), Some(PARENT));
        })
        .await;
        assert_eq!(headers[TRACEPARENT], PARENT.to_string().as_str());
        within(None, async { assert_eq!(current(), None) }).await;
    }

    #[test]
    fn spans_of_one_kind_have_one_name() {
        assert_eq!(shape("/api/groups/g1/messages"), "/api/groups/{id}/messages");
        assert_eq!(shape("/infra/groups"), "/infra/groups");
        assert_eq!(shape("/infra/orgs/o1/limits"), "/infra/orgs/{id}/limits");
        assert_eq!(shape("/invoke"), "/invoke");
    }

    #[test]
    fn without_a_recorder_there_is_no_span() {
        let mut span = Span::after("app", "post", Some(PARENT));
        span.note("group", "g1");
        assert_eq!(span.context(), None);
    }
}
