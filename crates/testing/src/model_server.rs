//! A model provider on loopback: OpenAI's chat completions, streamed, with faults by request.
//!
//! What it does follows from the model's name in the request, so that one server serves many
//! agents. It records every request and knows how many answers are still being streamed. It never
//! reaches out and knows nothing of Convene.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// What the server does with a request.
#[derive(Debug, Clone)]
pub enum Script {
    /// Streams the text, one chunk per word, all at once.
    Say(String),
    /// Streams exactly these chunks, each after a pause.
    Slow {
        /// The chunks' texts.
        chunks: Vec<String>,
        /// The pause before each.
        pause: Duration,
    },
    /// Accepts the request and never answers.
    Silent,
    /// Streams the chunks and then says nothing, the connection open.
    SilentAfter(Vec<String>),
    /// Streams comments for a while, as services do that queue a request, then the text.
    Comments {
        /// How many comments.
        count: usize,
        /// The pause before each.
        pause: Duration,
        /// The text.
        text: String,
    },
    /// Streams the chunks and ends the body properly, without a finish reason and without `[DONE]`.
    Cut(Vec<String>),
    /// Streams the chunks and breaks the connection.
    Abort(Vec<String>),
    /// Streams the chunks and then one that is not JSON.
    Malformed(Vec<String>),
    /// Streams the chunks and then an error in place of a chunk.
    ErrorChunk {
        /// The chunks' texts.
        chunks: Vec<String>,
        /// The error's message.
        message: String,
    },
    /// Ends without a word, for this reason (`stop`, `length`, `content_filter`).
    Nothing(String),
    /// Answers with a status, headers and a body instead of a stream.
    Status {
        /// The status.
        status: u16,
        /// Headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
}

impl Script {
    /// 429 with `retry-after`.
    #[must_use]
    pub fn rate_limited(retry_after: &str) -> Self {
        Self::Status {
            status: 429,
            headers: vec![("retry-after".to_owned(), retry_after.to_owned())],
            body: error_body("Rate limit reached for requests"),
        }
    }

    /// An error in OpenAI's form.
    #[must_use]
    pub fn error(status: u16, message: &str) -> Self {
        Self::Status { status, headers: Vec::new(), body: error_body(message) }
    }
}

fn error_body(message: &str) -> String {
    json!({"error": {"message": message, "type": "test", "param": null, "code": null}}).to_string()
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The method.
    pub method: Method,
    /// The path and query.
    pub uri: Uri,
    /// The headers, `authorization` among them.
    pub headers: HeaderMap,
    /// The body; `null` when it is not JSON.
    pub body: Value,
}

impl Recorded {
    /// The value of a header, where it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The messages as (role, content); a content that is not text is shown as JSON.
    #[must_use]
    pub fn messages(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let messages = self.body["messages"].as_array().cloned().unwrap_or_default();
        messages.iter().map(|message| (text(&message["role"]), text(&message["content"]))).collect()
    }
}

/// A running server; it stops when it is dropped.
#[derive(Debug)]
pub struct ModelServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    open: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What is done for a model's requests, whenever they come.
    always: BTreeMap<String, Script>,
    /// What is done for the next ones, first come first served.
    next: BTreeMap<String, VecDeque<Script>>,
    requests: Vec<Recorded>,
}

impl ModelServer {
    /// Starts a server on a free port of loopback.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { inner: Mutex::default(), open: watch::Sender::new(0) });
        let router = Router::new().fallback(serve).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            // Ends with the task only.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, shared, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL without `/chat/completions`, as an agent's configuration has it.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// What is done for every request for `model` that has no other script. Without any, a model
    /// says `You said: ` and the last message's content.
    pub fn always(&self, model: &str, script: Script) {
        self.inner().always.insert(model.to_owned(), script);
    }

    /// What is done for the next request for `model`; several are used up in order.
    pub fn next(&self, model: &str, script: Script) {
        self.inner().next.entry(model.to_owned()).or_default().push_back(script);
    }

    /// The requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.inner().requests.clone()
    }

    /// How many answers are under way.
    #[must_use]
    pub fn open_answers(&self) -> usize {
        *self.shared.open.borrow()
    }

    /// Waits until `count` answers are under way.
    pub async fn wait_for_open_answers(&self, count: usize) {
        let mut open = self.shared.open.subscribe();
        // The sender lives as long as `self`.
        let _ = open.wait_for(|open| *open == count).await;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner()
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts an answer as long as it lives.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.open.send_modify(|open| *open += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let open = Open::new(&shared);
    let known = method == Method::POST && uri.path() == "/v1/chat/completions";
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    let script = {
        let mut inner = shared.inner();
        inner.requests.push(Recorded { method, uri, headers, body: body.clone() });
        let next = inner.next.get_mut(&model).and_then(VecDeque::pop_front);
        next.or_else(|| inner.always.get(&model).cloned())
    };
    if !known {
        return answer(404, &[], error_body("There is nothing here"));
    }
    if body["stream"] != true {
        return answer(400, &[], error_body("This server only streams"));
    }
    let usage = body["stream_options"]["include_usage"] == true;
    let script = script.unwrap_or_else(|| {
        let last = body["messages"].as_array().and_then(|messages| messages.last());
        let text = last.and_then(|last| last["content"].as_str()).unwrap_or_default();
        Script::Say(format!("You said: {text}"))
    });
    perform(script, &model, usage, open).await
}

async fn perform(script: Script, model: &str, usage: bool, open: Open) -> Response {
    let chunks = |texts: Vec<String>| texts.into_iter().map(|text| delta(model, &text)).collect();
    let pause = Duration::ZERO;
    match script {
        Script::Say(text) => {
            let words = text.split_inclusive(' ').map(str::to_owned).collect();
            let lines = complete(model, words, "stop", usage);
            stream_answer(paced(lines, pause), End::Proper, open)
        }
        Script::Slow { chunks, pause } => {
            stream_answer(paced(complete(model, chunks, "stop", usage), pause), End::Proper, open)
        }
        Script::Comments { count, pause, text } => {
            let waiting = vec![": PROCESSING\n\n".to_owned(); count];
            let lines = complete(model, vec![text], "stop", usage);
            let lines = paced(waiting, pause).chain(paced(lines, Duration::ZERO));
            stream_answer(lines, End::Proper, open)
        }
        Script::Silent => {
            // The answer's headers never come; the caller's hanging up ends this.
            let _open = open;
            std::future::pending().await
        }
        Script::SilentAfter(texts) => stream_answer(paced(chunks(texts), pause), End::Never, open),
        Script::Cut(texts) => stream_answer(paced(chunks(texts), pause), End::Proper, open),
        Script::Abort(texts) => stream_answer(paced(chunks(texts), pause), End::Abort, open),
        Script::Malformed(texts) => {
            let mut lines: Vec<String> = chunks(texts);
            lines.push("data: {\"choices\":[{\"delta\"\n\n".to_owned());
            stream_answer(paced(lines, pause), End::Never, open)
        }
        Script::ErrorChunk { chunks: texts, message } => {
            let mut lines: Vec<String> = chunks(texts);
            lines.push(format!("data: {}\n\n", error_body(&message)));
            stream_answer(paced(lines, pause), End::Proper, open)
        }
        Script::Nothing(reason) => {
            let lines = complete(model, Vec::new(), &reason, usage);
            stream_answer(paced(lines, pause), End::Proper, open)
        }
        Script::Status { status, headers, body } => answer(status, &headers, body),
    }
}

fn answer(status: u16, headers: &[(String, String)], body: String) -> Response {
    let mut response = body.into_response();
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) =
            (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()))
        {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// How a stream ends.
enum End {
    Proper,
    Never,
    Abort,
}

fn stream_answer(
    lines: impl Stream<Item = String> + Send + 'static,
    end: End,
    open: Open,
) -> Response {
    let lines = lines.map(|line| Ok::<_, std::io::Error>(Bytes::from(line)));
    let body = match end {
        End::Proper => lines.boxed(),
        End::Never => lines.chain(stream::pending()).boxed(),
        End::Abort => {
            let broken = async {
                // Lets what was written leave before the connection goes.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(std::io::ErrorKind::ConnectionAborted.into())
            };
            lines.chain(stream::once(broken)).boxed()
        }
    };
    let body = body.map(move |line| {
        let _counted = &open;
        line
    });
    let mut response = Body::from_stream(body).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

fn paced(lines: Vec<String>, pause: Duration) -> impl Stream<Item = String> + Send + 'static {
    stream::iter(lines).then(move |line| async move {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        line
    })
}

/// All lines of an answer that ends as it should.
fn complete(model: &str, texts: Vec<String>, reason: &str, usage: bool) -> Vec<String> {
    let words = texts.len();
    let mut lines = vec![chunk(model, &json!({"role": "assistant", "content": ""}), None)];
    lines.extend(texts.iter().map(|text| delta(model, text)));
    lines.push(chunk(model, &json!({}), Some(reason)));
    if usage {
        let usage = json!({
            "id": "chatcmpl-test", "object": "chat.completion.chunk", "created": 0,
            "model": model, "choices": [],
            "usage": {"prompt_tokens": 10, "completion_tokens": words, "total_tokens": 10 + words},
        });
        lines.push(format!("data: {usage}\n\n"));
    }
    lines.push("data: [DONE]\n\n".to_owned());
    lines
}

fn delta(model: &str, text: &str) -> String {
    chunk(model, &json!({"content": text}), None)
}

fn chunk(model: &str, delta: &Value, reason: Option<&str>) -> String {
    let chunk = json!({
        "id": "chatcmpl-test", "object": "chat.completion.chunk", "created": 0, "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    });
    format!("data: {chunk}\n\n")
}
