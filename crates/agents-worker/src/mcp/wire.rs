//! Messages of MCP over HTTP: an answer as JSON or as events, contents of tools, headers.
//!
//! Owns how answers are found and bounded. Never sends anything.

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value};

use crate::{
    BodyStream,
    event_stream::Decoder,
    tools::{ToolFailure, of_transport, read},
};

/// Bytes of an answer.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a refusal that are read.
const MAX_REFUSAL_BYTES: u64 = 16 * 1024;
/// Characters of a server's own words in an error.
const MAX_MESSAGE_CHARS: usize = 300;

/// A result.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) value: Value,
    pub(super) headers: HeaderMap,
}

/// The server refused.
#[derive(Debug)]
pub(super) struct RpcError {
    /// The status, where it is no success.
    pub(super) status: Option<StatusCode>,
    /// The JSON-RPC error's code, where there is one.
    pub(super) code: Option<i64>,
    pub(super) message: String,
    pub(super) data: Value,
}

/// What was read of an answer.
pub(super) enum Read {
    /// The answer to our request.
    Answer(Result<Answered, RpcError>),
    /// A request of the server.
    Asked { id: Value, method: String },
}

/// An answer that is being read.
pub(super) struct Reading {
    headers: HeaderMap,
    status: StatusCode,
    body: Option<BodyStream>,
    id: u64,
    decoder: Decoder,
    read: usize,
}

impl Reading {
    pub(super) fn new(response: Response<BodyStream>, id: u64) -> Self {
        let (head, body) = response.into_parts();
        Self {
            headers: head.headers,
            status: head.status,
            body: Some(body),
            id,
            decoder: Decoder::default(),
            read: 0,
        }
    }

    /// Reads on until there is an answer or a question.
    ///
    /// # Errors
    /// [`ToolFailure`] when the answer broke off or is none.
    pub(super) async fn next(&mut self) -> Result<Read, ToolFailure> {
        let kind = self.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().to_ascii_lowercase();
        if !self.status.is_success() {
            return Ok(Read::Answer(Err(self.refusal().await)));
        }
        if kind.starts_with("text/event-stream") {
            return self.next_event().await;
        }
        let body = self.body.take().ok_or_else(malformed)?;
        let (bytes, cut) = read(body, MAX_ANSWER_BYTES as u64).await?;
        if cut {
            return Err(too_long());
        }
        let json: Value = serde_json::from_slice(&bytes).map_err(|_| malformed())?;
        let messages = match json {
            Value::Array(messages) => messages,
            message => vec![message],
        };
        let answer = messages.into_iter().find(|message| self.is_answer(message));
        answer.map(|answer| Read::Answer(self.answered(answer))).ok_or_else(malformed)
    }

    async fn next_event(&mut self) -> Result<Read, ToolFailure> {
        loop {
            while let Some(event) = self.decoder.next().map_err(|_| malformed())? {
                if let Some(read) = self.message(&event.data)? {
                    return Ok(read);
                }
            }
            let Some(body) = &mut self.body else {
                return Err(ToolFailure::new("cut", "The MCP server's answer ended too early."));
            };
            match body.next().await {
                Some(chunk) => {
                    let chunk = chunk.map_err(|error| of_transport(&error))?;
                    self.read += chunk.len();
                    if self.read > MAX_ANSWER_BYTES {
                        return Err(too_long());
                    }
                    self.decoder.push(&chunk);
                }
                None => {
                    self.body = None;
                    let last = self.decoder.finish().map_err(|_| malformed())?;
                    if let Some(event) = last
                        && let Some(read) = self.message(&event.data)?
                    {
                        return Ok(read);
                    }
                }
            }
        }
    }

    /// What one event's message is to us; notifications are nothing.
    fn message(&self, data: &str) -> Result<Option<Read>, ToolFailure> {
        if data.trim().is_empty() {
            return Ok(None);
        }
        let message: Value = serde_json::from_str(data).map_err(|_| malformed())?;
        if self.is_answer(&message) {
            return Ok(Some(Read::Answer(self.answered(message))));
        }
        let asked = message["method"].as_str().filter(|_| !message["id"].is_null());
        Ok(asked.map(|method| Read::Asked { id: message["id"].clone(), method: method.to_owned() }))
    }

    fn is_answer(&self, message: &Value) -> bool {
        let ends = message.get("result").is_some() || message.get("error").is_some();
        ends && (message["id"] == self.id || message["id"].is_null())
    }

    fn answered(&self, mut message: Value) -> Result<Answered, RpcError> {
        if message.get("error").is_some() {
            return Err(error_in(&message, None));
        }
        Ok(Answered { value: message["result"].take(), headers: self.headers.clone() })
    }

    async fn refusal(&mut self) -> RpcError {
        let body = match self.body.take() {
            Some(body) => read(body, MAX_REFUSAL_BYTES).await.map_or(Vec::new(), |(body, _)| body),
            None => Vec::new(),
        };
        let json: Value = serde_json::from_slice(&body).unwrap_or_default();
        error_in(&json, Some(self.status))
    }
}

fn error_in(message: &Value, status: Option<StatusCode>) -> RpcError {
    let error = &message["error"];
    let words = error["message"].as_str().or_else(|| error.as_str()).unwrap_or_default();
    RpcError {
        status,
        code: error["code"].as_i64(),
        message: one_line(words, MAX_MESSAGE_CHARS),
        data: error["data"].clone(),
    }
}

fn malformed() -> ToolFailure {
    ToolFailure::new("mcp_error", "The MCP server's answer is malformed.")
}

fn too_long() -> ToolFailure {
    let why = format!("The MCP server answered with more than {MAX_ANSWER_BYTES} bytes.");
    ToolFailure::new("too_long", why)
}

/// A short text of a server about itself, in one line.
pub(super) fn short(value: &Value) -> String {
    one_line(value.as_str().unwrap_or_default(), 100)
}

/// A text in one line of at most `chars` characters.
pub(super) fn one_line(text: &str, chars: usize) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// What a tool's result says, as text; what is no text is named.
pub(super) fn text(result: &Value) -> String {
    let mut parts = Vec::new();
    for content in result["content"].as_array().into_iter().flatten() {
        let kind = content["type"].as_str().unwrap_or_default();
        let mime = content["mimeType"].as_str().unwrap_or("of an unknown type");
        let uri = content["uri"].as_str().unwrap_or_default();
        parts.push(match kind {
            "text" => content["text"].as_str().unwrap_or_default().to_owned(),
            "image" | "audio" => format!("({kind}, {mime}, not shown)"),
            "resource_link" => format!("(a link: {uri})"),
            "resource" => match content["resource"]["text"].as_str() {
                Some(text) => text.to_owned(),
                None => "(a resource, not shown)".to_owned(),
            },
            _ => "(something of an unknown kind, not shown)".to_owned(),
        });
    }
    if parts.is_empty() && !result["structuredContent"].is_null() {
        return result["structuredContent"].to_string();
    }
    parts.join("\n")
}

/// The headers that repeat arguments, where a tool's schema asks for it with `x-mcp-header`.
pub(super) fn mirrored(
    schema: &Value,
    arguments: &Map<String, Value>,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut found = Vec::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let Some(argument) = arguments.get(name) else { continue };
        if let Value::Object(inner) = argument {
            found.extend(mirrored(property, inner));
        }
        let text = match argument {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        let Some(header) = property["x-mcp-header"].as_str() else { continue };
        let header = HeaderName::try_from(format!("mcp-param-{}", header.to_ascii_lowercase()));
        if let (Ok(header), Ok(value)) = (header, HeaderValue::try_from(header_text(&text))) {
            found.push((header, value));
        }
    }
    found
}

/// A text as a header's value; what a header cannot carry goes in base64 between marks.
pub(super) fn header_text(text: &str) -> String {
    let plain = text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    let marked = text.starts_with("=?base64?") && text.ends_with("?=");
    if plain && !marked && text.trim() == text {
        return text.to_owned();
    }
    format!("=?base64?{}?=", STANDARD.encode(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_text_is_shown_and_the_rest_is_named() {
        let result = json!({"content": [
            {"type": "text", "text": "one"},
            {"type": "image", "data": "AA==", "mimeType": "image/png"},
            {"type": "resource", "resource": {"uri": "x", "text": "two"}},
            {"type": "resource", "resource": {"uri": "x", "blob": "AA=="}},
            {"type": "resource_link", "uri": "https://example.com/x"},
            {"type": "new"},
        ]});
        assert_eq!(
            text(&result),
            "one\n(image, image/png, not shown)\ntwo\n(a resource, not shown)\n\
             (a link: https://example.com/x)\n(something of an unknown kind, not shown)"
        );
        let structured = json!({"content": [], "structuredContent": {"a": 1}});
        assert_eq!(text(&structured), r#"{"a":1}"#);
        assert_eq!(text(&json!({})), "");
    }

    #[test]
    fn arguments_are_repeated_in_headers_where_the_schema_asks_for_it() {
        let schema = json!({"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "count": {"type": "integer", "x-mcp-header": "Count"},
            "plain": {"type": "string"},
            "deep": {"properties": {"inner": {"type": "string", "x-mcp-header": "Inner"}}},
            "bad": {"type": "string", "x-mcp-header": "a b"},
        }});
        let arguments = json!({
            "region": "Zürich", "count": 3, "plain": "x", "deep": {"inner": " y"}, "bad": "z",
        });
        let mut found: Vec<_> = mirrored(&schema, arguments.as_object().unwrap())
            .into_iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                "mcp-param-count: 3",
                "mcp-param-inner: =?base64?IHk=?=",
                "mcp-param-region: =?base64?WsO8cmljaA==?=",
            ]
        );
    }
}
