//! A run's call of the Agents Worker: one request, its answer streamed back into the group's
//! mailbox. Nothing stays open when it ends.

use std::{sync::Arc, time::Duration};

use axum::response::Response;
use bytes::{Buf, Bytes, BytesMut};
use convene_group_controller::{Input, Invocation, RunEnd};
use convene_hop::trace::{self, Span};
use convene_model::{
    Problem, RunId,
    agents::{InvokeEvent, failure},
    claims::{AgentAccessClaims, SCOPE_INVOKE, service},
    event::{ToolFinished, ToolStarted},
    limits::{MAX_BODY_BYTES, RUN_TOKEN_TTL},
    token::body_hash,
    trace::TraceParent,
};
use futures_util::StreamExt;
use http::{Request, StatusCode, header};
use tokio::{sync::mpsc, time::Instant};

use super::{Shared, actor::Mail};

/// How long a lost attempt waits before the run goes on, times the attempt: a worker that restarts
/// should not use all attempts up.
const AFTER_LOSS: Duration = Duration::from_millis(500);
/// How long an attempt waits for a worker that cannot be reached or takes no calls for now: one that starts
/// anew is there again by then.
const WORKER_PATIENCE: Duration = Duration::from_secs(10);
/// The first pause between two such calls; each is twice the one before, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two such calls.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of one server-sent event at most: calls that are handed over, with their continuation.
const MAX_SSE_EVENT: usize = 1024 * 1024;

/// Calls the Agents Worker and feeds what it says to the group.
pub(super) async fn run(
    shared: Arc<Shared>,
    invocation: Box<Invocation>,
    mailbox: mpsc::WeakSender<Box<Mail>>,
    trace: Option<TraceParent>,
) {
    let mut span = Span::after(service::CONTROLLERS, "run", trace);
    span.note("group.id", &invocation.request.group_id);
    span.note("run.id", &invocation.request.run_id);
    span.note("run.attempt", invocation.request.attempt);
    span.note("agent.id", &invocation.request.agent_id);
    let (run_id, attempt) = (invocation.request.run_id.clone(), invocation.request.attempt);
    let sink = Sink { run_id, attempt, mailbox };
    let streamed = stream(&shared, &invocation, &sink);
    let end = match trace::within(span.context(), streamed).await {
        Ok(end) => end,
        Err(Failure { detail, may_have_begun }) => {
            span.fail("the agents worker did not finish");
            tracing::warn!(
                group = %invocation.request.group_id, run = %sink.run_id, attempt, detail,
                "the agents worker did not finish an attempt"
            );
            tokio::time::sleep(AFTER_LOSS * attempt).await;
            RunEnd::Lost {
                code: failure::WORKER_UNAVAILABLE,
                detail: "The agents service could not be reached.".to_owned(),
                may_have_begun,
            }
        }
    };
    drop(span);
    let attempt = sink.attempt;
    sink.feed(Input::RunEnded { run_id: sink.run_id.clone(), attempt, end }).await;
}

struct Sink {
    run_id: RunId,
    attempt: u32,
    mailbox: mpsc::WeakSender<Box<Mail>>,
}

impl Sink {
    /// Tells the group what an attempt says before its end.
    async fn tell(&self, event: InvokeEvent) -> Result<(), Failure> {
        let (run_id, attempt) = (self.run_id.clone(), self.attempt);
        let input = match event {
            InvokeEvent::Delta { offset, text } => Input::RunText { run_id, attempt, offset, text },
            InvokeEvent::ToolStarted { call_id, tool, arguments } => {
                Input::ToolStarted(ToolStarted { run_id, attempt, call_id, tool, arguments })
            }
            InvokeEvent::ToolFinished { call_id, status, summary } => {
                Input::ToolFinished(ToolFinished { run_id, attempt, call_id, status, summary })
            }
            InvokeEvent::Finished(outcome) => {
                Input::RunEnded { run_id, attempt, end: RunEnd::Said(outcome) }
            }
        };
        if self.feed(input).await { Ok(()) } else { Err(Failure::within("the group is gone")) }
    }

    /// Whether the group still takes it.
    async fn feed(&self, input: Input) -> bool {
        let Some(mailbox) = self.mailbox.upgrade() else { return false };
        mailbox.send(Box::new(Mail::Run { input })).await.is_ok()
    }
}

/// An attempt that the Agents Worker did not finish.
struct Failure {
    detail: String,
    /// Whether the attempt may have begun: calls that it was to make were not made otherwise.
    may_have_begun: bool,
}

impl Failure {
    fn before(detail: impl ToString) -> Self {
        Self { detail: detail.to_string(), may_have_begun: false }
    }

    fn within(detail: impl ToString) -> Self {
        Self { detail: detail.to_string(), may_have_begun: true }
    }
}

/// Calls the worker, until one has taken the call or the time for it is over. What is called again has begun
/// nowhere: it met no connection, or was refused at the door.
async fn reach(shared: &Shared, invocation: &Invocation) -> Result<Response, Failure> {
    let body = serde_json::to_vec(&invocation.request).map_err(Failure::before)?;
    let body = Bytes::from(body);
    let until = Instant::now() + WORKER_PATIENCE;
    let mut pause = FIRST_PAUSE;
    loop {
        let why = match shared.config.agents.send(call(shared, invocation, &body)?).await {
            Ok(response) if response.status().is_success() => return Ok(response),
            Ok(response) => {
                let status = response.status();
                let body = axum::body::to_bytes(response.into_body(), MAX_BODY_BYTES).await;
                let problem =
                    body.ok().and_then(|body| serde_json::from_slice::<Problem>(&body).ok());
                // What stands between may have passed the call on before it said this.
                let Some(problem) = problem else {
                    return Err(Failure::within(format!("{status} instead of an answer")));
                };
                let code = problem.code.as_str();
                let refused =
                    Failure::before(format!("the agents worker answered {status} {code}"));
                if !is_passing(status) {
                    return Err(refused);
                }
                refused
            }
            Err(error) if error.may_have_arrived() => return Err(Failure::within(error)),
            Err(error) => Failure::before(error),
        };
        if Instant::now() + pause > until {
            return Err(why);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether a worker that refused a call may take it soon.
fn is_passing(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// The call of an attempt, with a token of its own.
fn call(shared: &Shared, invocation: &Invocation, body: &Bytes) -> Result<Request<Bytes>, Failure> {
    let request = &invocation.request;
    let now = shared.config.signer.now();
    let token = shared.config.signer.mint(
        service::AGENTS,
        AgentAccessClaims {
            group_id: request.group_id.clone(),
            org_id: invocation.org_id.clone(),
            agent_id: request.agent_id.clone(),
            run_id: request.run_id.clone(),
            attempt: request.attempt,
            scope: SCOPE_INVOKE.to_owned(),
            bh: body_hash(body),
            initiator: invocation.initiator.clone(),
            run_exp: (now + RUN_TOKEN_TTL).secs(),
        },
    );
    Request::post("/invoke")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.clone())
        .map_err(Failure::before)
}

async fn stream(shared: &Shared, invocation: &Invocation, sink: &Sink) -> Result<RunEnd, Failure> {
    let response = reach(shared, invocation).await?;
    let mut chunks = response.into_body().into_data_stream();
    let mut events = EventStream::default();
    while let Some(chunk) = chunks.next().await {
        events.push(&chunk.map_err(Failure::within)?);
        while let Some(data) = events.next_event().map_err(Failure::within)? {
            match serde_json::from_slice(&data).map_err(Failure::within)? {
                InvokeEvent::Finished(outcome) => return Ok(RunEnd::Said(outcome)),
                event => sink.tell(event).await?,
            }
        }
    }
    Ok(RunEnd::Lost {
        code: failure::WORKER_CUT,
        detail: "The agents service broke off.".to_owned(),
        may_have_begun: true,
    })
}

/// Server-sent events out of a byte stream: the `data` of each, comments skipped.
#[derive(Default)]
struct EventStream {
    buffer: BytesMut,
    /// How far the buffer was searched for the end of an event.
    searched: usize,
}

impl EventStream {
    fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    fn next_event(&mut self) -> Result<Option<Vec<u8>>, String> {
        loop {
            let from = self.searched.saturating_sub(1);
            let end = self.buffer[from..].windows(2).position(|two| two == b"\n\n");
            let Some(end) = end.map(|at| from + at) else {
                self.searched = self.buffer.len();
                if self.buffer.len() > MAX_SSE_EVENT {
                    return Err("an event of the agents worker is too large".to_owned());
                }
                return Ok(None);
            };
            let event = self.buffer.split_to(end);
            self.buffer.advance(2);
            self.searched = 0;
            let mut data = Vec::new();
            for line in event.as_ref().split(|byte: &u8| *byte == b'\n') {
                if let Some(rest) = line.strip_prefix(b"data:") {
                    if !data.is_empty() {
                        data.push(b'\n');
                    }
                    data.extend_from_slice(rest.strip_prefix(b" ").unwrap_or(rest));
                }
            }
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_the_bytes_are_cut() {
        let bytes = b": hello\n\ndata: one\n\ndata:two\ndata: three\n\nevent: x\nid: 3\n\ndata: f";
        for size in 1..bytes.len() {
            let mut stream = EventStream::default();
            let mut found = Vec::new();
            for chunk in bytes.chunks(size) {
                stream.push(chunk);
                while let Some(data) = stream.next_event().unwrap() {
                    found.push(String::from_utf8(data).unwrap());
                }
            }
            assert_eq!(found, ["one", "two\nthree"], "in chunks of {size}");
        }
    }

    #[test]
    fn an_event_without_an_end_is_refused_beyond_the_limit() {
        let mut stream = EventStream::default();
        stream.push(&vec![b'x'; MAX_SSE_EVENT]);
        assert_eq!(stream.next_event(), Ok(None));
        stream.push(b"x");
        assert!(stream.next_event().is_err());
    }
}
