//! A client of MCP servers over streamable HTTP, of both generations of the protocol.
//!
//! Revisions up to 2025-11-25 begin with `initialize` and may have a session; 2026-07-28 has
//! neither: each request says everything itself. Which one a server speaks is asked once
//! (`server/discover`) and kept with its tools. Owns no connection between two calls and trusts
//! nothing that a server says: names, schemas and answers are bounded here.

mod listing;
mod wire;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use convene_model::agents::McpServer;
use futures_util::lock::Mutex;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use serde_json::{Map, Value, json};

pub(crate) use listing::{Listing, Listings, Offered};
use wire::{Answered, RpcError};

use crate::tools::{Outbound, ToolFailure, named_header};

/// The revision without `initialize`.
pub(crate) const MODERN: &str = "2026-07-28";
/// The newest revision that begins with `initialize`.
pub(crate) const LEGACY: &str = "2025-11-25";
/// Revisions that a server may choose in the answer to `initialize`.
const KNOWN_LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", LEGACY];
/// What a server says that knows the generation but not the revision.
const UNSUPPORTED_VERSION: [i64; 2] = [-32022, -32004];

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// How a server is spoken with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Era {
    /// Each request says everything itself.
    Modern,
    /// `initialize` first; the revision that the server chose.
    Legacy(String),
}

impl Era {
    /// The revision.
    pub(crate) fn revision(&self) -> &str {
        match self {
            Self::Modern => MODERN,
            Self::Legacy(revision) => revision,
        }
    }
}

/// A server as one attempt speaks with it.
pub(crate) struct Session {
    outbound: Outbound,
    server: Arc<McpServer>,
    state: Mutex<State>,
    ids: AtomicU64,
}

#[derive(Default)]
struct State {
    era: Option<Era>,
    /// Whether `initialize` is done, and the session that came of it.
    opened: Option<Option<HeaderValue>>,
    name: String,
    version: String,
}

impl Session {
    /// A session that opens itself when it is used; `era` is how the server was spoken with before.
    pub(crate) fn new(outbound: Outbound, server: Arc<McpServer>, era: Option<Era>) -> Self {
        let state = State { era, ..State::default() };
        Self { outbound, server, state: Mutex::new(state), ids: AtomicU64::new(1) }
    }

    pub(crate) fn server(&self) -> &Arc<McpServer> {
        &self.server
    }

    /// Asks for all tools.
    ///
    /// # Errors
    /// [`ToolFailure`] when the server does not answer as the protocol says.
    pub(crate) async fn list(&self) -> Result<Listing, ToolFailure> {
        let mut tools = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..listing::MAX_PAGES {
            let params = match &cursor {
                Some(cursor) => json!({"cursor": cursor}),
                None => json!({}),
            };
            let page = self.request("tools/list", params, None).await?;
            let listed = page["tools"].as_array().ok_or_else(|| {
                ToolFailure::new("mcp_error", "The MCP server's list of tools is malformed.")
            })?;
            tools.extend(listed.iter().map(Offered::read));
            let next = page["nextCursor"].as_str().map(str::to_owned);
            if next.is_none() || next == cursor || tools.len() > listing::MAX_TOOLS {
                break;
            }
            cursor = next;
        }
        tools.truncate(listing::MAX_TOOLS);
        let state = self.state.lock().await;
        Ok(Listing {
            name: state.name.clone(),
            version: state.version.clone(),
            era: state.era.clone().unwrap_or(Era::Modern),
            tools,
        })
    }

    /// Calls a tool and returns what it says.
    ///
    /// # Errors
    /// [`ToolFailure`], also when the tool says itself that it failed.
    pub(crate) async fn call(
        &self,
        tool: &Offered,
        arguments: &Map<String, Value>,
    ) -> Result<String, ToolFailure> {
        let params = json!({"name": tool.name, "arguments": arguments});
        let result = self.request("tools/call", params, Some((tool, arguments))).await?;
        if result["resultType"].as_str().is_some_and(|kind| kind != "complete") {
            let why = "The tool asks for input while it works, which agents cannot give.";
            return Err(ToolFailure::new("input_required", why));
        }
        let text = wire::text(&result);
        if result["isError"] == true {
            let mut failure = ToolFailure::new("tool_error", "The tool says that it failed.");
            failure.body = Some(text);
            return Err(failure);
        }
        Ok(text)
    }

    /// Ends the session, where there is one; whether that worked is of no interest.
    pub(crate) async fn close(&self) {
        let opened = self.state.lock().await.opened.take().flatten();
        let Some(session) = opened else { return };
        let Ok(mut request) = self.bare(Method::DELETE, Bytes::new()) else { return };
        request.headers_mut().insert(SESSION_ID, session);
        let _ = self.outbound.open(request).await;
    }

    /// One request and its result.
    async fn request(
        &self,
        method: &str,
        params: Value,
        call: Option<(&Offered, &Map<String, Value>)>,
    ) -> Result<Value, ToolFailure> {
        let mut renewed = false;
        loop {
            let (era, session) = self.open().await?;
            let answer = match &era {
                Era::Modern => self.send_modern(method, params.clone(), call).await,
                Era::Legacy(revision) => {
                    let mut headers = HeaderMap::new();
                    insert(&mut headers, PROTOCOL_VERSION, revision);
                    if let Some(session) = &session {
                        headers.insert(SESSION_ID, session.clone());
                    }
                    self.send(method, params.clone(), headers).await
                }
            };
            match answer? {
                Ok(result) => return Ok(result.value),
                // The server forgot the session; what it was asked, it has not done.
                Err(RpcError { status: Some(StatusCode::NOT_FOUND), .. })
                    if session.is_some() && !renewed =>
                {
                    self.state.lock().await.opened = None;
                    renewed = true;
                }
                Err(error) => return Err(self.told(&error)),
            }
        }
    }

    /// How the server is spoken with, and the session; finds both out when that is needed.
    async fn open(&self) -> Result<(Era, Option<HeaderValue>), ToolFailure> {
        let mut state = self.state.lock().await;
        if state.era.is_none() {
            self.discover(&mut state).await?;
        }
        let legacy = !matches!(state.era, Some(Era::Modern));
        if legacy && state.opened.is_none() {
            self.initialize(&mut state).await?;
        }
        let era = state.era.clone().unwrap_or(Era::Modern);
        Ok((era, state.opened.clone().flatten()))
    }

    /// Asks whether the server speaks the newer generation. Anything but a clear yes means that it
    /// does not, but for refused credentials, which no other generation would mend.
    async fn discover(&self, state: &mut State) -> Result<(), ToolFailure> {
        let answer = match self.send_modern("server/discover", json!({}), None).await {
            Err(failure) if failure.code == "mcp_error" => return Ok(()),
            answer => answer?,
        };
        match answer {
            Ok(answer) => {
                let versions = answer.value["supportedVersions"].as_array();
                if versions.is_some_and(|versions| versions.iter().any(|one| one == MODERN)) {
                    state.era = Some(Era::Modern);
                    let info = &answer.value["_meta"]["io.modelcontextprotocol/serverInfo"];
                    state.name = wire::short(&info["name"]);
                    state.version = wire::short(&info["version"]);
                }
                Ok(())
            }
            Err(error) if matches!(error.status.map(|status| status.as_u16()), Some(401 | 403)) => {
                Err(self.told(&error))
            }
            Err(error) if error.code.is_some_and(|code| UNSUPPORTED_VERSION.contains(&code)) => {
                let supported = error.data["supported"].as_array().cloned().unwrap_or_default();
                if supported.iter().any(|one| KNOWN_LEGACY.iter().any(|known| one == known)) {
                    return Ok(());
                }
                Err(self.told(&error))
            }
            Err(_) => Ok(()),
        }
    }

    async fn initialize(&self, state: &mut State) -> Result<(), ToolFailure> {
        let params = json!({
            "protocolVersion": LEGACY,
            "capabilities": {},
            "clientInfo": client_info(),
        });
        let answer = self.send("initialize", params, HeaderMap::new()).await?;
        let answer = answer.map_err(|error| self.told(&error))?;
        let revision = answer.value["protocolVersion"].as_str().unwrap_or_default().to_owned();
        if !KNOWN_LEGACY.contains(&revision.as_str()) {
            let why = "The MCP server speaks a revision of the protocol that is not known here.";
            return Err(ToolFailure::new("mcp_error", why));
        }
        let info = &answer.value["serverInfo"];
        state.name = wire::short(&info["name"]);
        state.version = wire::short(&info["version"]);
        let session = answer.headers.get(SESSION_ID).cloned();
        let mut headers = HeaderMap::new();
        insert(&mut headers, PROTOCOL_VERSION, &revision);
        if let Some(session) = &session {
            headers.insert(SESSION_ID, session.clone());
        }
        let note = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let mut request = self.bare(Method::POST, Bytes::from(note.to_string()))?;
        request.headers_mut().extend(headers);
        self.outbound.open(request).await?;
        state.era = Some(Era::Legacy(revision));
        state.opened = Some(session);
        Ok(())
    }

    async fn send_modern(
        &self,
        method: &str,
        mut params: Value,
        call: Option<(&Offered, &Map<String, Value>)>,
    ) -> Result<Result<Answered, RpcError>, ToolFailure> {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": client_info(),
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let mut headers = HeaderMap::new();
        insert(&mut headers, PROTOCOL_VERSION, MODERN);
        insert(&mut headers, METHOD, method);
        if let Some((tool, arguments)) = call {
            insert(&mut headers, NAME, &wire::header_text(&tool.name));
            for (name, value) in wire::mirrored(&tool.parameters, arguments) {
                headers.insert(name, value);
            }
        }
        self.send(method, params, headers).await
    }

    async fn send(
        &self,
        method: &str,
        params: Value,
        headers: HeaderMap,
    ) -> Result<Result<Answered, RpcError>, ToolFailure> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let mut request = self.bare(Method::POST, Bytes::from(body.to_string()))?;
        request.headers_mut().extend(headers.clone());
        let response = self.outbound.open(request).await?;
        let mut reading = wire::Reading::new(response, id);
        loop {
            match reading.next().await? {
                wire::Read::Answer(answer) => return Ok(answer),
                // Servers of the older generation may ask back; they are not left waiting.
                wire::Read::Asked { id, method } => {
                    let reply = if method == "ping" {
                        json!({"jsonrpc": "2.0", "id": id, "result": {}})
                    } else {
                        let error = json!({"code": -32601, "message": "Method not found"});
                        json!({"jsonrpc": "2.0", "id": id, "error": error})
                    };
                    let mut request = self.bare(Method::POST, Bytes::from(reply.to_string()))?;
                    request.headers_mut().extend(headers.clone());
                    self.outbound.open(request).await?;
                }
            }
        }
    }

    /// A request with what the configuration says, to the server's endpoint.
    fn bare(&self, method: Method, body: Bytes) -> Result<Request<Bytes>, ToolFailure> {
        let mut request = Request::builder()
            .method(method)
            .uri(self.server.url.as_str())
            .header(header::ACCEPT, "application/json, text/event-stream")
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|_| ToolFailure::new("invalid_address", "The server's address is no URL."))?;
        for header in &self.server.headers {
            let (name, value) = named_header(&header.name, &header.value)?;
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }

    /// An error as people and the model are told it.
    fn told(&self, error: &RpcError) -> ToolFailure {
        let name = &self.server.name;
        let (code, text) = match error.status.map(|status| status.as_u16()) {
            Some(401 | 403) => {
                ("unauthorized", format!("The MCP server \"{name}\" refused the credentials"))
            }
            Some(status @ 300..=399) => (
                "redirect",
                format!("The MCP server \"{name}\" redirects ({status}), which is not followed"),
            ),
            Some(status @ (400..=599)) => {
                ("mcp_error", format!("The MCP server \"{name}\" answered with status {status}"))
            }
            Some(_) | None => ("mcp_error", format!("The MCP server \"{name}\" refused")),
        };
        let message = self.outbound.redacted(error.message.trim());
        let detail =
            if message.is_empty() { format!("{text}.") } else { format!("{text}: {message}") };
        ToolFailure::new(code, detail)
    }
}

fn client_info() -> Value {
    json!({"name": "convene", "version": env!("CARGO_PKG_VERSION")})
}

fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}
