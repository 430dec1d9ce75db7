//! One request to a model provider and its answer, with a watch on silence and volume.
//!
//! Owns what all providers have in common: the events of a stream, and how a refusal, a broken
//! connection or a malformed answer is told to people. Silence and volume are watched on the bytes,
//! so that comments and reasoning count as signs of life.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use convene_model::agents::{ApiKey, failure};
use futures_util::{
    Stream, StreamExt,
    future::{Either, select},
};
use http::{HeaderMap, Request, StatusCode, header};
use serde_json::{Map, Value};

use super::{excerpt, retry_after};
use crate::{
    BodyStream, Clock, Config, Sleep, Transport, TransportError, TransportErrorKind,
    event_stream::{Decoder, Event},
    failure::Failure,
};

/// Bytes of a provider's answer at most, framing included; a reply within its own limit cannot
/// need more.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of a refusal that are read.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;
/// Bytes of an answer that is no stream.
const MAX_DOCUMENT_BYTES: usize = 4 * 1024 * 1024;

/// The way to one provider, with its key.
#[derive(Clone)]
pub(crate) struct Exchange {
    transport: Arc<dyn Transport>,
    sleep: Sleep,
    silent: Duration,
    clock: Clock,
    key: Option<ApiKey>,
}

/// How a request carries the key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum KeyHeader {
    /// `authorization: Bearer …`.
    Bearer,
    /// A header of its own.
    Named(&'static str),
}

impl Exchange {
    pub(crate) fn new(config: &Config, key: Option<ApiKey>) -> Self {
        Self {
            transport: Arc::clone(&config.transport),
            sleep: Arc::clone(&config.sleep),
            silent: config.limits.provider_silent,
            clock: Arc::clone(&config.clock),
            key,
        }
    }

    /// A request with the key in it.
    ///
    /// # Errors
    /// [`Failure`] when address or key make none.
    pub(crate) fn request(
        &self,
        base_url: &str,
        path: &str,
        key: KeyHeader,
        headers: &[(&'static str, &'static str)],
        body: Option<&Value>,
    ) -> Result<Request<Bytes>, Failure> {
        let url = format!("{}{path}", base_url.trim().trim_end_matches('/'));
        let unfit = || {
            Failure::new(
                failure::PROVIDER_ERROR,
                "The request to the model provider cannot be built; check its address and key.",
            )
        };
        let method = if body.is_some() { http::Method::POST } else { http::Method::GET };
        let mut request = Request::builder().method(method).uri(url);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(secret) = self.key.as_ref().filter(|key| !key.expose().is_empty()) {
            let (name, text) = match key {
                KeyHeader::Bearer => ("authorization", format!("Bearer {}", secret.expose())),
                KeyHeader::Named(name) => (name, secret.expose().to_owned()),
            };
            let mut value = http::HeaderValue::try_from(text).map_err(|_| unfit())?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = request.body(body).map_err(|_| unfit())?;
        if request.uri().host().is_none_or(str::is_empty) {
            return Err(unfit());
        }
        Ok(request)
    }

    /// Sends `request` and yields the events of its answer, then nothing or one failure.
    pub(crate) fn events(
        self,
        request: Result<Request<Bytes>, Failure>,
    ) -> impl Stream<Item = Result<Event, Failure>> + Send + 'static {
        async_stream::stream! {
            let mut body = match self.open(request, "text/event-stream").await {
                Ok(body) => body,
                Err(failure) => {
                    yield Err(failure);
                    return;
                }
            };
            let mut decoder = Decoder::default();
            let mut read = 0;
            while let Some(chunk) = self.chunk(&mut body).await {
                match chunk {
                    Ok(bytes) => {
                        read += bytes.len();
                        decoder.push(&bytes);
                    }
                    Err(error) => {
                        yield Err(of_transport(&error));
                        return;
                    }
                }
                if read > MAX_ANSWER_BYTES {
                    let why = "The model provider sends far more than a reply can need.";
                    yield Err(Failure::new(failure::REPLY_TOO_LONG, why));
                    return;
                }
                loop {
                    match decoder.next() {
                        Ok(Some(event)) => yield Ok(event),
                        Ok(None) => break,
                        Err(_) => {
                            yield Err(malformed());
                            return;
                        }
                    }
                }
            }
            match decoder.finish() {
                Ok(Some(event)) => yield Ok(event),
                Ok(None) => {}
                Err(_) => yield Err(malformed()),
            }
        }
    }

    /// Sends `request` and reads the JSON of its answer.
    ///
    /// # Errors
    /// [`Failure`], whatever went wrong.
    pub(crate) async fn document(
        &self,
        request: Result<Request<Bytes>, Failure>,
    ) -> Result<Value, Failure> {
        let mut body = self.open(request, "application/json").await?;
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk(&mut body).await {
            all.extend_from_slice(&chunk.map_err(|error| of_transport(&error))?);
            if all.len() > MAX_DOCUMENT_BYTES {
                return Err(malformed());
            }
        }
        serde_json::from_slice(&all).map_err(|_| malformed())
    }

    /// The body of an answer with status 200 and the wanted type.
    async fn open(
        &self,
        request: Result<Request<Bytes>, Failure>,
        wanted: &str,
    ) -> Result<BodyStream, Failure> {
        let sent = self.transport.send(request?);
        let response = match select(sent, (self.sleep)(self.silent)).await {
            Either::Left((response, _)) => response.map_err(|error| of_transport(&error))?,
            Either::Right(((), _)) => return Err(of_transport(&self.silence())),
        };
        let (head, mut body) = response.into_parts();
        if head.status != StatusCode::OK {
            let mut text = Vec::new();
            while text.len() < MAX_REFUSAL_BYTES {
                match self.chunk(&mut body).await {
                    Some(Ok(bytes)) => text.extend_from_slice(&bytes),
                    Some(Err(_)) | None => break,
                }
            }
            let text = String::from_utf8_lossy(&text);
            return Err(self.refusal(Some(head.status), &head.headers, &text));
        }
        let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().to_ascii_lowercase();
        if !kind.starts_with(wanted) {
            let what = if wanted == "application/json" { "JSON" } else { "an event stream" };
            let why = format!("The model provider did not answer with {what}; check its address.");
            return Err(Failure::new(failure::PROVIDER_ERROR, why));
        }
        Ok(body)
    }

    async fn chunk(&self, body: &mut BodyStream) -> Option<Result<Bytes, TransportError>> {
        match select(body.next(), (self.sleep)(self.silent)).await {
            Either::Left((chunk, _)) => chunk,
            Either::Right(((), _)) => Some(Err(self.silence())),
        }
    }

    fn silence(&self) -> TransportError {
        let seconds = self.silent.as_secs_f32();
        let why = format!("The model provider said nothing for {seconds} seconds.");
        TransportError::new(TransportErrorKind::Silent, why)
    }

    /// An error that the provider sent in place of a piece of its stream.
    pub(crate) fn reported(&self, error: &Value) -> Failure {
        self.refusal(None, &HeaderMap::new(), &error.to_string())
    }

    /// The provider answered with an error: a status, or an error in place of a chunk.
    fn refusal(&self, status: Option<StatusCode>, headers: &HeaderMap, body: &str) -> Failure {
        let key = self.key.as_ref().map(ApiKey::expose);
        let with_message = |text: String| match excerpt::message(body, key) {
            Some(message) => format!("{text}: {message}"),
            None => format!("{text}."),
        };
        let json = serde_json::from_str::<Value>(body).unwrap_or_default();
        let kinds = ["/error/type", "/error/status", "/error/code", "/error/details/0/reason"];
        let says = |kind: &str| kinds.iter().any(|path| json.pointer(path) == Some(&kind.into()));
        let refused_key = says("API_KEY_INVALID") || says("authentication_error");
        let overloaded = says("rate_limit_error") || says("overloaded_error");
        match status.map(|status| status.as_u16()) {
            Some(401 | 403) => Failure::new(
                failure::PROVIDER_UNAUTHORIZED,
                with_message("The model provider refused the API key".to_owned()),
            ),
            _ if refused_key => Failure::new(
                failure::PROVIDER_UNAUTHORIZED,
                with_message("The model provider refused the API key".to_owned()),
            ),
            // 529 is Anthropic's: it has more to do than it can.
            Some(429 | 529) => self.slow_down(headers, &json, with_message),
            None if overloaded => self.slow_down(headers, &json, with_message),
            Some(status @ 300..=399) => Failure::new(
                failure::PROVIDER_ERROR,
                format!(
                    "The model provider answered with a redirect ({status}), which is not \
                     followed; check its address."
                ),
            ),
            Some(status) => Failure {
                refused: matches!(status, 400 | 422),
                ..Failure::new(
                    failure::PROVIDER_ERROR,
                    with_message(format!("The model provider answered with error {status}")),
                )
            },
            None => Failure::new(
                failure::PROVIDER_ERROR,
                with_message("The model provider reported an error".to_owned()),
            ),
        }
    }

    fn slow_down(
        &self,
        headers: &HeaderMap,
        body: &Value,
        with_message: impl FnOnce(String) -> String,
    ) -> Failure {
        let said = retry_after::millis(headers, (self.clock)());
        Failure {
            code: failure::PROVIDER_RATE_LIMITED,
            detail: with_message("The model provider asks to slow down".to_owned()),
            retry_after_ms: said.or_else(|| retry_after::millis_in(body)),
            refused: false,
        }
    }
}

/// What the body of a request has from the worker alone, at whichever provider.
const RESERVED: [&str; 12] = [
    "model",
    "messages",
    "system",
    "stream",
    "stream_options",
    "tools",
    "tool_choice",
    "n",
    "contents",
    "systemInstruction",
    "toolConfig",
    "cachedContent",
];

/// A workspace's options in the body of a request; what the worker says itself is not replaced.
pub(crate) fn with_options(options: &Map<String, Value>, own: Value) -> Value {
    let mut body = options.clone();
    body.retain(|name, _| !RESERVED.contains(&name.as_str()));
    if let Value::Object(own) = own {
        body.extend(own);
    }
    Value::Object(body)
}

/// The answer is not what the service's documentation says.
pub(crate) fn malformed() -> Failure {
    Failure::new(failure::PROVIDER_CUT, "The model provider's answer is malformed.")
}

/// The answer ended before its end.
pub(crate) fn cut() -> Failure {
    let why = "The model provider's answer ended before it was complete.";
    Failure::new(failure::PROVIDER_CUT, why)
}

fn of_transport(error: &TransportError) -> Failure {
    let code = match error.kind {
        TransportErrorKind::NotAllowed => failure::ADDRESS_NOT_ALLOWED,
        TransportErrorKind::Unreachable => failure::PROVIDER_UNREACHABLE,
        TransportErrorKind::Silent => failure::PROVIDER_SILENT,
        TransportErrorKind::Cut => failure::PROVIDER_CUT,
        TransportErrorKind::TooLong => failure::REPLY_TOO_LONG,
    };
    Failure::new(code, error.detail.clone())
}
