//! An MCP server on loopback over streamable HTTP, of either generation of the protocol.
//!
//! It is strict where the revisions are: sessions, headers and metadata that are missing are
//! refused. What it offers can be changed while it runs. It records every request.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// 2025-11-25: `initialize`, with a session.
    Sessions,
    /// 2025-03-26: `initialize`, without a session.
    Handshake,
    /// 2026-07-28: neither.
    Stateless,
}

/// How a server behaves.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// What it speaks.
    pub generation: Generation,
    /// Whether it answers with events instead of JSON.
    pub events: bool,
    /// Tools in one page of the list.
    pub page: usize,
    /// The tools, as the protocol has them.
    pub tools: Vec<Value>,
    /// The results of calls by tool; `null` never comes.
    pub results: Value,
    /// A header that every request must have, with its value.
    pub wants: Option<(&'static str, &'static str)>,
    /// Sessions that it forgets as soon as they are made.
    pub forgets: usize,
}

impl Behaviour {
    /// A server with these tools, each of which says `done`.
    #[must_use]
    pub fn new(generation: Generation, tools: Vec<Value>) -> Self {
        Self {
            generation,
            events: false,
            page: 100,
            tools,
            results: json!({}),
            wants: None,
            forgets: 0,
        }
    }
}

/// A tool as the protocol has it.
#[must_use]
pub fn tool(name: &str, read_only: bool) -> Value {
    json!({
        "name": name,
        "description": format!("Does {name}."),
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
        "annotations": {"readOnlyHint": read_only},
    })
}

/// A running server; it stops when it is dropped.
#[derive(Debug)]
pub struct McpTestServer {
    address: SocketAddr,
    shared: Arc<Mutex<Inner>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Inner {
    behaviour: Behaviour,
    /// The sessions that are open.
    sessions: Vec<String>,
    made: usize,
    /// The methods of the requests, and the parameters of calls.
    requests: Vec<(String, Value)>,
}

impl McpTestServer {
    /// Starts a server on a free port of loopback.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(behaviour: Behaviour) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let inner = Inner { behaviour, sessions: Vec::new(), made: 0, requests: Vec::new() };
        let shared = Arc::new(Mutex::new(inner));
        let router = Router::new().fallback(serve).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            // Ends with the task only.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, shared, task })
    }

    /// The endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Changes what it does from now on.
    pub fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut lock(&self.shared).behaviour);
    }

    /// Sessions that are open.
    #[must_use]
    pub fn sessions(&self) -> usize {
        lock(&self.shared).sessions.len()
    }

    /// The methods of all requests so far.
    #[must_use]
    pub fn methods(&self) -> Vec<String> {
        lock(&self.shared).requests.iter().map(|(method, _)| method.clone()).collect()
    }

    /// The calls of tools so far: name and arguments.
    #[must_use]
    pub fn calls(&self) -> Vec<(String, Value)> {
        let inner = lock(&self.shared);
        let calls = inner.requests.iter().filter(|(method, _)| method == "tools/call");
        calls
            .map(|(_, params)| {
                let name = params["name"].as_str().unwrap_or_default().to_owned();
                (name, params["arguments"].clone())
            })
            .collect()
    }
}

impl Drop for McpTestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(shared: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(
    State(shared): State<Arc<Mutex<Inner>>>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let answer = {
        let mut inner = lock(&shared);
        if let Some((name, value)) = inner.behaviour.wants
            && header(name) != Some(value)
        {
            return (StatusCode::UNAUTHORIZED, format!("not {:?}", header(name))).into_response();
        }
        if method == Method::DELETE {
            let session = header("mcp-session-id").unwrap_or_default().to_owned();
            inner.sessions.retain(|one| *one != session);
            return StatusCode::OK.into_response();
        }
        if method != Method::POST {
            return StatusCode::METHOD_NOT_ALLOWED.into_response();
        }
        let Ok(message) = serde_json::from_slice::<Value>(&body) else {
            return refusal(StatusCode::BAD_REQUEST, &Value::Null, -32700, "Parse error");
        };
        inner.answer(&headers, &message)
    };
    match answer {
        Answer::Is(response) => response,
        Answer::Never => std::future::pending().await,
    }
}

enum Answer {
    Is(Response),
    Never,
}

impl Inner {
    fn answer(&mut self, headers: &HeaderMap, message: &Value) -> Answer {
        let method = message["method"].as_str().unwrap_or_default().to_owned();
        let (id, params) = (&message["id"], &message["params"]);
        self.requests.push((method.clone(), params.clone()));
        let refused = |status, code, why: &str| Answer::Is(refusal(status, id, code, why));
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let accept = header("accept").unwrap_or_default();
        if !accept.contains("application/json") || !accept.contains("text/event-stream") {
            return refused(StatusCode::NOT_ACCEPTABLE, -32000, "Not Acceptable");
        }
        if self.behaviour.generation == Generation::Stateless {
            let version = &params["_meta"]["io.modelcontextprotocol/protocolVersion"];
            let capabilities = &params["_meta"]["io.modelcontextprotocol/clientCapabilities"];
            if version != "2026-07-28" || !capabilities.is_object() {
                return refused(StatusCode::BAD_REQUEST, -32602, "_meta is incomplete");
            }
            let named = method != "tools/call" || header("mcp-name") == params["name"].as_str();
            let described = header("mcp-method") == Some(&method)
                && header("mcp-protocol-version") == Some("2026-07-28");
            if !named || !described {
                return refused(StatusCode::BAD_REQUEST, -32020, "Header mismatch");
            }
        } else {
            match method.as_str() {
                "initialize" => return self.initialize(id),
                "server/discover" => {
                    return refused(StatusCode::BAD_REQUEST, -32000, "Bad Request: no session");
                }
                _ => {}
            }
            if self.behaviour.generation == Generation::Sessions {
                let Some(session) = header("mcp-session-id") else {
                    return refused(StatusCode::BAD_REQUEST, -32000, "Missing session ID");
                };
                if !self.sessions.iter().any(|one| one == session) {
                    return refused(StatusCode::NOT_FOUND, -32001, "Session not found");
                }
            }
            if method.starts_with("notifications/") {
                return Answer::Is(StatusCode::ACCEPTED.into_response());
            }
        }
        let result = match method.as_str() {
            "server/discover" => json!({
                "resultType": "complete",
                "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {}},
                "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "test", "version": "1"}},
            }),
            "tools/list" => self.list(params),
            "tools/call" => {
                let name = params["name"].as_str().unwrap_or_default();
                if !self.behaviour.tools.iter().any(|tool| tool["name"] == name) {
                    return refused(StatusCode::OK, -32602, "Unknown tool");
                }
                match self.behaviour.results.get(name) {
                    Some(Value::Null) => return Answer::Never,
                    Some(result) => result.clone(),
                    None => json!({"content": [{"type": "text", "text": "done"}]}),
                }
            }
            _ => return refused(StatusCode::NOT_FOUND, -32601, "Method not found"),
        };
        Answer::Is(self.say(&json!({"jsonrpc": "2.0", "id": id, "result": result}), &[]))
    }

    fn initialize(&mut self, id: &Value) -> Answer {
        let version = match self.behaviour.generation {
            Generation::Sessions => "2025-11-25",
            Generation::Handshake | Generation::Stateless => "2025-03-26",
        };
        let result = json!({
            "protocolVersion": version,
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "test", "version": "1"},
        });
        let message = json!({"jsonrpc": "2.0", "id": id, "result": result});
        if self.behaviour.generation != Generation::Sessions {
            return Answer::Is(self.say(&message, &[]));
        }
        self.made += 1;
        let session = format!("session-{}", self.made);
        if self.behaviour.forgets > 0 {
            self.behaviour.forgets -= 1;
        } else {
            self.sessions.push(session.clone());
        }
        Answer::Is(self.say(&message, &[("mcp-session-id", session)]))
    }

    fn list(&self, params: &Value) -> Value {
        let from = params["cursor"].as_str().and_then(|at| at.parse().ok()).unwrap_or(0_usize);
        let to = (from + self.behaviour.page).min(self.behaviour.tools.len());
        let mut result = json!({"tools": self.behaviour.tools[from..to]});
        if to < self.behaviour.tools.len() {
            result["nextCursor"] = to.to_string().into();
        }
        result
    }

    fn say(&self, message: &Value, headers: &[(&'static str, String)]) -> Response {
        let mut response = if self.behaviour.events {
            // A word beside the answer, and a question that wants no answer from us.
            let note = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}});
            let text =
                format!("event: message\ndata: {note}\n\nevent: message\ndata: {message}\n\n");
            ([(header::CONTENT_TYPE, "text/event-stream")], text).into_response()
        } else {
            ([(header::CONTENT_TYPE, "application/json")], message.to_string()).into_response()
        };
        for (name, value) in headers {
            if let Ok(value) = value.parse() {
                response.headers_mut().insert(*name, value);
            }
        }
        response
    }
}

fn refusal(status: StatusCode, id: &Value, code: i64, message: &str) -> Response {
    let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}});
    (status, [(header::CONTENT_TYPE, "application/json")], error.to_string()).into_response()
}
