//! `http_request` tools: a request that the workspace configured, with what a model may choose.
//!
//! Owns how arguments become a request. A request never leaves the origin of its base URL, whatever
//! the arguments are; what the configuration sets cannot be set by arguments.

use bytes::Bytes;
use convene_model::agents::{HttpTool, ResponseFormat, ToolValue};
use http::{HeaderName, HeaderValue, Method, Request, header};
use serde_json::{Map, Value};
use url::Url;

use super::outbound::{Answer, Outbound, ToolFailure};

/// Headers that the connection or the origin depends on; a configuration cannot set them.
const FIXED_HEADERS: [&str; 7] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "proxy-authorization",
];
/// Bytes of an error's body that a model is shown.
const MAX_ERROR_BODY: usize = 2 * 1024;

/// The method that a call uses, and whether it may change something.
///
/// # Errors
/// [`ToolFailure`] when the arguments name none of the tool's methods.
pub(crate) fn method(
    tool: &HttpTool,
    arguments: &Map<String, Value>,
) -> Result<Method, ToolFailure> {
    let first = tool.methods.first().map_or("GET", String::as_str);
    let wanted = match arguments.get("method").filter(|_| tool.methods.len() > 1) {
        None => first.to_owned(),
        Some(wanted) => {
            let wanted = wanted.as_str().unwrap_or_default().to_ascii_uppercase();
            if !tool.methods.contains(&wanted) {
                let all = tool.methods.join(", ");
                return Err(invalid(format!("`method` must be one of {all}.")));
            }
            wanted
        }
    };
    Method::from_bytes(wanted.as_bytes()).map_err(|_| misconfigured("its method is none"))
}

/// Whether a method changes nothing, so that a call needs no hand-over.
pub(crate) fn is_safe(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

/// The request of a call.
///
/// # Errors
/// [`ToolFailure`] when arguments lack something or the configuration makes no request.
pub(crate) fn request(
    tool: &HttpTool,
    arguments: &Map<String, Value>,
) -> Result<Request<Bytes>, ToolFailure> {
    let method = method(tool, arguments)?;
    let mut left = arguments.clone();
    if tool.methods.len() > 1 {
        left.remove("method");
    }
    let mut url = url(tool, &mut left)?;
    let in_query = is_safe(&method) || method == Method::DELETE;
    let mut pairs = Vec::new();
    for NamedQuery { name, value } in fixed_query(tool) {
        pairs.push((name.to_owned(), value.expose().to_owned()));
    }
    if in_query {
        for (name, value) in &left {
            if tool.query.iter().any(|fixed| fixed.name == *name) {
                return Err(invalid(format!("`{name}` is set by the tool's configuration.")));
            }
            pairs.extend(query_values(value).into_iter().map(|value| (name.clone(), value)));
        }
    }
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs);
    }

    let mut request = Request::builder().method(method).uri(url.as_str());
    if !tool.headers.iter().any(|header| header.name.eq_ignore_ascii_case("accept")) {
        let accept = match tool.response {
            ResponseFormat::Json => "application/json",
            ResponseFormat::Text => "*/*",
        };
        request = request.header(header::ACCEPT, accept);
    }
    let body = if in_query {
        Bytes::new()
    } else {
        request = request.header(header::CONTENT_TYPE, "application/json");
        Bytes::from(Value::Object(left).to_string())
    };
    let mut request = request.body(body).map_err(|_| misconfigured("its address is none"))?;
    for header in &tool.headers {
        let (name, value) = named_header(&header.name, &header.value)?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

/// A header of a configuration.
///
/// # Errors
/// [`ToolFailure`] when it is none, or one that no configuration can set.
pub(crate) fn named_header(
    name: &str,
    value: &ToolValue,
) -> Result<(HeaderName, HeaderValue), ToolFailure> {
    let fixed = FIXED_HEADERS.iter().any(|fixed| name.eq_ignore_ascii_case(fixed));
    let parsed = HeaderName::try_from(name).ok().filter(|_| !fixed);
    let parsed = parsed.ok_or_else(|| misconfigured("one of its headers cannot be set"))?;
    let mut text = HeaderValue::try_from(value.expose())
        .map_err(|_| misconfigured("the value of one of its headers is none"))?;
    text.set_sensitive(matches!(value, ToolValue::Secret(_)));
    Ok((parsed, text))
}

/// Makes a call.
///
/// # Errors
/// [`ToolFailure`], also for an answer whose status is no success.
pub(crate) async fn call(
    outbound: &Outbound,
    tool: &HttpTool,
    arguments: &Map<String, Value>,
) -> Result<String, ToolFailure> {
    let request = request(tool, arguments)?;
    let head = request.method() == Method::HEAD;
    let answer = outbound.fetch(request, tool.max_response_bytes).await?;
    if !answer.status.is_success() {
        let status = answer.status.as_u16();
        let mut failure =
            ToolFailure::new("http_status", format!("The service answered with status {status}."));
        if let Ok(text) = std::str::from_utf8(whole_chars(&answer.body)) {
            let text = outbound.redacted(text);
            let end = text.floor_char_boundary(MAX_ERROR_BODY);
            failure.body = Some(text[..end].to_owned()).filter(|text| !text.trim().is_empty());
        }
        return Err(failure);
    }
    if head {
        return Ok(outbound.redacted(&headers(&answer)));
    }
    text(tool, &answer).map(|text| outbound.redacted(&text))
}

fn text(tool: &HttpTool, answer: &Answer) -> Result<String, ToolFailure> {
    let bytes = if answer.cut { whole_chars(&answer.body) } else { &answer.body };
    let text = std::str::from_utf8(bytes)
        .map_err(|_| ToolFailure::new("not_text", "The service's answer is no text."))?;
    if text.trim().is_empty() {
        return Ok(format!("(status {}, no content)", answer.status.as_u16()));
    }
    if answer.cut {
        let limit = tool.max_response_bytes;
        return Ok(format!("{text}\n(The answer is longer; only {limit} bytes were read.)"));
    }
    match tool.response {
        ResponseFormat::Text => Ok(text.to_owned()),
        ResponseFormat::Json => match serde_json::from_str::<Value>(text) {
            // Written anew, so that a secret cannot hide behind escapes that nobody needs.
            Ok(json) => Ok(json.to_string()),
            Err(_) => Err(ToolFailure::new("not_json", "The service's answer is no JSON.")),
        },
    }
}

/// The bytes without a code point that was cut at their end.
fn whole_chars(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        Ok(_) | Err(_) => bytes,
    }
}

/// What a HEAD tells.
fn headers(answer: &Answer) -> String {
    let mut lines = vec![format!("status: {}", answer.status.as_u16())];
    for (name, value) in &answer.headers {
        if let Ok(value) = value.to_str()
            && *name != header::SET_COOKIE
        {
            lines.push(format!("{name}: {value}"));
        }
    }
    lines.join("\n")
}

/// The URL of a call without its query, in the origin of the base URL. Arguments that it uses are
/// taken from `arguments`.
fn url(tool: &HttpTool, arguments: &mut Map<String, Value>) -> Result<Url, ToolFailure> {
    let base = Url::parse(&tool.base_url).map_err(|_| misconfigured("its address is none"))?;
    let filled = fill(&tool.path, arguments)?;
    let mut url = base.clone();
    if !filled.is_empty() {
        let path =
            format!("{}/{}", base.path().trim_end_matches('/'), filled.trim_start_matches('/'));
        url.set_path(&path);
    }
    url.set_fragment(None);
    let below = url.path().starts_with(base.path().trim_end_matches('/'));
    if url.origin() != base.origin() || !below {
        return Err(invalid("The arguments lead outside of the tool's address."));
    }
    Ok(url)
}

/// A path template with its arguments.
fn fill(template: &str, arguments: &mut Map<String, Value>) -> Result<String, ToolFailure> {
    let mut filled = String::new();
    let mut used = Vec::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, behind) =
            after.split_once('}').ok_or_else(|| misconfigured("its path has an open brace"))?;
        let (name, slashes) = match name.strip_prefix('+') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let value = arguments.get(name).and_then(scalar);
        let value = value.filter(|value| !value.is_empty());
        let value =
            value.ok_or_else(|| invalid(format!("`{name}` is missing or no plain value.")))?;
        filled.push_str(before);
        filled.push_str(&segments(name, &value, slashes)?);
        used.push(name);
        rest = behind;
    }
    filled.push_str(rest);
    for name in used {
        arguments.remove(name);
    }
    Ok(filled)
}

/// A value as one segment of a path, or as several where it may have slashes.
fn segments(name: &str, value: &str, slashes: bool) -> Result<String, ToolFailure> {
    let parts: Vec<&str> = if slashes { value.split('/').collect() } else { vec![value] };
    if parts.iter().any(|part| matches!(*part, "." | "..")) {
        return Err(invalid(format!("`{name}` may have neither `.` nor `..` as a segment.")));
    }
    Ok(parts.into_iter().map(encoded).collect::<Vec<_>>().join("/"))
}

/// Percent-encodes all but what RFC 3986 calls unreserved.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

struct NamedQuery<'a> {
    name: &'a str,
    value: &'a ToolValue,
}

fn fixed_query(tool: &HttpTool) -> impl Iterator<Item = NamedQuery<'_>> {
    tool.query.iter().map(|pair| NamedQuery { name: &pair.name, value: &pair.value })
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What an argument is as query parameters of its name.
fn query_values(value: &Value) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items.iter().flat_map(query_values).collect(),
        Value::Object(_) => vec![value.to_string()],
        Value::String(_) | Value::Number(_) | Value::Bool(_) => scalar(value).into_iter().collect(),
    }
}

fn invalid(why: impl Into<String>) -> ToolFailure {
    ToolFailure::new("invalid_arguments", why)
}

fn misconfigured(why: &str) -> ToolFailure {
    ToolFailure::new("misconfigured", format!("The tool is not configured correctly: {why}."))
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
