//! A model provider on loopback, streamed, with faults by request. It speaks OpenAI's chat
//! completions, Anthropic's messages and Google's Gemini, and refuses what those would refuse.
//!
//! What it does follows from the model's name in the request, so that one server serves many
//! agents. It records every request and knows how many answers are still being streamed. It never
//! reaches out and knows nothing of Convene.

mod anthropic;
mod gemini;
mod openai;

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
    /// Streams the text, then these calls of tools as (name, arguments), the arguments in pieces.
    Call {
        /// The text.
        text: String,
        /// The calls.
        calls: Vec<(String, String)>,
    },
    /// The same answer, of which the service says that it read so many tokens, or says nothing. Only
    /// OpenAI's completions can be silent.
    Metered {
        /// Tokens read.
        input_tokens: Option<u64>,
        /// The answer.
        answer: Box<Script>,
    },
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
    /// One call of a tool, without a word.
    ///
    /// # Panics
    /// Never: a value is always text.
    #[must_use]
    pub fn call(tool: &str, arguments: &Value) -> Self {
        Self::Call { text: String::new(), calls: vec![(tool.to_owned(), arguments.to_string())] }
    }

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

    /// The messages of OpenAI's form as (role, content); a content that is not text is shown as JSON.
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

    /// The URL without `/v1/messages` or `/v1beta/models`, as the configuration of an agent on one of
    /// the other APIs has it.
    #[must_use]
    pub fn root_url(&self) -> String {
        format!("http://{}", self.address)
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

/// Whose API a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    OpenAi,
    Anthropic,
    Gemini,
}

/// A piece of an answer.
enum Piece<'a> {
    /// What comes before the first text.
    Start,
    /// Text.
    Text(&'a str),
    /// A call of a tool, the `nth`.
    Call { nth: usize, name: &'a str, arguments: &'a str },
    /// The end, for a reason in OpenAI's words; so many words were written.
    End { reason: &'a str, words: usize },
}

impl Wire {
    /// The API that a path belongs to, and the model that the request names.
    fn of(uri: &Uri, body: &Value) -> Option<(Self, String)> {
        let named = || body["model"].as_str().unwrap_or_default().to_owned();
        match uri.path() {
            "/v1/chat/completions" => Some((Self::OpenAi, named())),
            "/v1/messages" => Some((Self::Anthropic, named())),
            path => {
                let (model, method) = path.strip_prefix("/v1beta/models/")?.split_once(':')?;
                let streams = method == "streamGenerateContent" && uri.query() == Some("alt=sse");
                streams.then(|| (Self::Gemini, model.to_owned()))
            }
        }
    }

    /// Whether the real service would take a request.
    fn check(self, headers: &HeaderMap, body: &Value) -> Result<(), String> {
        match self {
            Self::OpenAi => openai::check(body),
            Self::Anthropic => anthropic::check(headers, body),
            Self::Gemini => gemini::check(body),
        }
    }

    fn lines(self, request: &Asked, piece: &Piece<'_>) -> Vec<String> {
        match self {
            Self::OpenAi => openai::lines(request, piece),
            Self::Anthropic => anthropic::lines(request, piece),
            Self::Gemini => gemini::lines(piece),
        }
    }

    /// What the last message says.
    fn last_text(self, body: &Value) -> String {
        let last = |messages: &Value| messages.as_array().and_then(|all| all.last()).cloned();
        let text = match self {
            Self::OpenAi => last(&body["messages"]).map(|last| last["content"].clone()),
            Self::Anthropic => {
                last(&body["messages"]).map(|last| last["content"][0]["text"].clone())
            }
            Self::Gemini => last(&body["contents"]).map(|last| last["parts"][0]["text"].clone()),
        };
        text.and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
    }

    fn error(self, message: &str) -> String {
        match self {
            Self::OpenAi => error_body(message),
            Self::Anthropic => {
                let error = json!({"type": "api_error", "message": message});
                json!({"type": "error", "error": error}).to_string()
            }
            Self::Gemini => {
                json!({"error": {"code": 500, "message": message, "status": "INTERNAL"}})
                    .to_string()
            }
        }
    }
}

/// Tokens that a request has, as the service says where no script says otherwise.
const INPUT_TOKENS: u64 = 10;

/// What of a request its answer depends on.
struct Asked {
    wire: Wire,
    model: String,
    usage: bool,
    input_tokens: u64,
}

impl Asked {
    fn all<'a>(&self, pieces: impl IntoIterator<Item = Piece<'a>>) -> Vec<String> {
        pieces.into_iter().flat_map(|piece| self.wire.lines(self, &piece)).collect()
    }

    /// All lines of an answer that breaks off after its texts.
    fn begun(&self, texts: &[String]) -> Vec<String> {
        let texts = texts.iter().map(|text| Piece::Text(text));
        self.all([Piece::Start].into_iter().chain(texts))
    }

    /// All lines of an answer that ends as it should.
    fn whole(&self, texts: &[String], reason: &str) -> Vec<String> {
        let mut lines = self.begun(texts);
        lines.extend(self.all([Piece::End { reason, words: texts.len() }]));
        lines
    }

    fn with_calls(&self, text: &str, calls: &[(String, String)]) -> Vec<String> {
        let texts: Vec<_> = text.split_inclusive(' ').map(str::to_owned).collect();
        let mut lines = self.begun(&texts);
        let calls = calls.iter().enumerate();
        lines.extend(self.all(calls.map(|(nth, (name, arguments))| Piece::Call {
            nth,
            name,
            arguments,
        })));
        lines.extend(self.all([Piece::End { reason: "tool_calls", words: texts.len() }]));
        lines
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
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let wire = Wire::of(&uri, &body).filter(|_| method == Method::POST);
    let script = {
        let mut inner = shared.inner();
        inner.requests.push(Recorded {
            method: method.clone(),
            uri: uri.clone(),
            headers: headers.clone(),
            body: body.clone(),
        });
        wire.as_ref().and_then(|(_, model)| {
            let next = inner.next.get_mut(model).and_then(VecDeque::pop_front);
            next.or_else(|| inner.always.get(model).cloned())
        })
    };
    if method == Method::GET {
        return models(uri.path(), &headers);
    }
    let Some((wire, model)) = wire else {
        return answer(404, &[], error_body("There is nothing here"));
    };
    if let Err(why) = wire.check(&headers, &body) {
        return answer(400, &[], wire.error(&why));
    }
    let mut script =
        script.unwrap_or_else(|| Script::Say(format!("You said: {}", wire.last_text(&body))));
    let mut usage = wire != Wire::OpenAi || body["stream_options"]["include_usage"] == true;
    let mut read = INPUT_TOKENS;
    if let Script::Metered { input_tokens, answer } = script {
        usage &= input_tokens.is_some();
        read = input_tokens.unwrap_or(INPUT_TOKENS);
        script = *answer;
    }
    perform(script, &Asked { wire, model, usage, input_tokens: read }, open).await
}

/// The list of models of the API that a path belongs to.
fn models(path: &str, headers: &HeaderMap) -> Response {
    let list = match path {
        "/v1/models" if headers.contains_key("x-api-key") => {
            json!({"data": [{"type": "model", "id": "claude-test"}], "has_more": false})
        }
        "/v1/models" => json!({"object": "list", "data": [{"id": "one"}, {"id": "two"}]}),
        "/v1beta/models" => json!({"models": [
            {"name": "models/gemini-test", "supportedGenerationMethods": ["generateContent"]},
            {"name": "models/embedding-test", "supportedGenerationMethods": ["embedContent"]},
        ]}),
        _ => return answer(404, &[], error_body("There is nothing here")),
    };
    answer(200, &[], list.to_string())
}

async fn perform(script: Script, asked: &Asked, open: Open) -> Response {
    let pause = Duration::ZERO;
    match script {
        Script::Say(text) => {
            let words: Vec<_> = text.split_inclusive(' ').map(str::to_owned).collect();
            stream_answer(paced(asked.whole(&words, "stop"), pause), End::Proper, open)
        }
        Script::Call { text, calls } => {
            stream_answer(paced(asked.with_calls(&text, &calls), pause), End::Proper, open)
        }
        Script::Slow { chunks, pause } => {
            stream_answer(paced(asked.whole(&chunks, "stop"), pause), End::Proper, open)
        }
        Script::Comments { count, pause, text } => {
            let waiting = vec![": PROCESSING\n\n".to_owned(); count];
            let lines = paced(asked.whole(&[text], "stop"), Duration::ZERO);
            stream_answer(paced(waiting, pause).chain(lines), End::Proper, open)
        }
        Script::Silent => {
            // The answer's headers never come; the caller's hanging up ends this.
            let _open = open;
            std::future::pending().await
        }
        Script::SilentAfter(texts) => {
            stream_answer(paced(asked.begun(&texts), pause), End::Never, open)
        }
        Script::Cut(texts) => stream_answer(paced(asked.begun(&texts), pause), End::Proper, open),
        Script::Abort(texts) => stream_answer(paced(asked.begun(&texts), pause), End::Abort, open),
        Script::Malformed(texts) => {
            let mut lines = asked.begun(&texts);
            lines.push("data: {\"choices\":[{\"delta\"\n\n".to_owned());
            stream_answer(paced(lines, pause), End::Never, open)
        }
        Script::ErrorChunk { chunks: texts, message } => {
            let mut lines = asked.begun(&texts);
            let name = if asked.wire == Wire::Anthropic { "event: error\n" } else { "" };
            lines.push(format!("{name}data: {}\n\n", asked.wire.error(&message)));
            stream_answer(paced(lines, pause), End::Proper, open)
        }
        Script::Nothing(reason) => {
            stream_answer(paced(asked.whole(&[], &reason), pause), End::Proper, open)
        }
        Script::Status { status, headers, body } => answer(status, &headers, body),
        // It was taken off before.
        Script::Metered { .. } => answer(500, &[], error_body("One meter is enough")),
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
