//! Any service that speaks OpenAI's chat completions, through `rig-core` over the host's transport.
//!
//! The library builds the request and reads the stream; its types stay inside this module. Silence
//! and volume are watched on the bytes, below the library, so that comments and reasoning count as
//! signs of life.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use convene_model::{
    Timestamp,
    agents::{ApiKey, Usage, failure},
};
use futures_util::{
    Stream, StreamExt, TryStreamExt,
    future::{Either, select},
};
use http::{Request, Response, StatusCode, header};
use rig_core::{
    ProviderError,
    completion::{CompletionRequest, FinishReason, Message},
    http_client::{
        Error as HttpError, HttpClientExt, LazyBody, MultipartForm, Result as HttpResult,
        StreamingResponse,
    },
    providers::openai::{
        OpenAIConfig,
        wire::{Auth, BodyRewrite, Dialect, Quirks},
    },
    streaming::{Item, StreamEvent},
    wasm_compat::{WasmCompatSend, WasmCompatSendStream},
};

use super::{Chunk, ChunkStream, End, Provider, excerpt, retry_after};
use crate::{
    BodyStream, Clock, Config, Sleep, Transport, TransportError, TransportErrorKind,
    conversation::Conversation,
    failure::Failure,
    prompt::{self, Prompt, Role},
};

/// Bytes of a provider's answer at most, framing included; a reply within its own limit cannot
/// need more.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// A model at a URL.
pub(crate) struct OpenAiCompatible {
    provider: OpenAIConfig,
    model: String,
    api_key: Option<ApiKey>,
    bridge: Bridge,
    clock: Clock,
}

impl OpenAiCompatible {
    /// The model called `model` at `base_url`, the URL without `/chat/completions`.
    pub(crate) fn new(
        config: &Config,
        base_url: &str,
        model: &str,
        api_key: Option<ApiKey>,
    ) -> Self {
        let key = api_key.as_ref().map(ApiKey::expose).unwrap_or_default();
        Self {
            provider: OpenAIConfig::with_key(&dialect(), key).with_base_url(base_url),
            model: model.to_owned(),
            api_key,
            bridge: Bridge {
                transport: Arc::clone(&config.transport),
                sleep: Arc::clone(&config.sleep),
                silent: config.limits.provider_silent,
            },
            clock: Arc::clone(&config.clock),
        }
    }
}

/// The least that all compatible services understand.
fn dialect() -> Dialect {
    let mut quirks = Quirks::openai();
    // Services on one's own machine want no key.
    quirks.auth = Auth::OptionalBearer;
    // Contents as plain strings; some services do not take lists of parts.
    quirks.rewrite = BodyRewrite::Perplexity;
    // The stream's end is `[DONE]`, whether or not a reason came before it.
    quirks.done_without_finish_reason = true;
    Dialect::gateway("openai-compatible", "", "").with_quirks(quirks)
}

impl Provider for OpenAiCompatible {
    fn reply(&self, conversation: Conversation) -> ChunkStream {
        let model = self.provider.clone().connect(self.bridge.clone()).chat(&self.model);
        let request = request(prompt::build(&conversation));
        let api_key = self.api_key.clone();
        let clock = Arc::clone(&self.clock);
        sendable(async_stream::stream! {
            let failed = |error: &ProviderError| Report {
                key: api_key.as_ref().map(ApiKey::expose),
                now: clock(),
            }.failure(error);
            let mut reply = match model.stream(request) {
                Ok(reply) => reply,
                Err(error) => {
                    yield Err(failed(&error));
                    return;
                }
            };
            while let Some(item) = reply.next().await {
                match item {
                    Ok(Item::Event(StreamEvent::Text { text, .. })) => yield Ok(Chunk::Text(text)),
                    Ok(Item::Event(_) | Item::Unknown(_)) => {}
                    Err(error) => {
                        yield Err(failed(&error));
                        return;
                    }
                }
            }
            let response = reply.partial();
            let used = response.usage;
            let usage = used.is_reported().then(|| Usage {
                input_tokens: used.input_tokens.unwrap_or_default(),
                output_tokens: used.output_tokens.unwrap_or_default(),
                egress_bytes: 0,
            });
            let cut_short = response.finish_reason().as_ref().and_then(cut_short);
            yield Ok(Chunk::End(End { usage, cut_short }));
        })
    }
}

fn request(prompt: Prompt) -> CompletionRequest {
    let turns = prompt.turns.into_iter().map(|turn| match turn.role {
        Role::Others => Message::user(turn.text),
        Role::Me => Message::assistant(turn.text),
    });
    let messages: Vec<Message> =
        [Message::system(prompt.system)].into_iter().chain(turns).collect();
    CompletionRequest::from(messages)
}

fn cut_short(reason: &FinishReason) -> Option<&'static str> {
    match reason {
        FinishReason::Length => Some("The model used up its length before it wrote a word."),
        FinishReason::ContentFilter => Some("The provider's content filter withheld the reply."),
        FinishReason::ToolCalls => Some("The model asked for a tool instead of writing a reply."),
        // The library may add reasons; none of them explains more than an empty reply does.
        _ => None,
    }
}

/// What is needed to tell people about an error.
struct Report<'a> {
    key: Option<&'a str>,
    now: Timestamp,
}

impl Report<'_> {
    fn failure(&self, error: &ProviderError) -> Failure {
        match error {
            ProviderError::Http(error) => transport_failure(error),
            ProviderError::ProviderResponse(_) | ProviderError::InvalidAuthentication(_) => {
                self.refusal(error)
            }
            ProviderError::Truncated => {
                cut("The model provider's answer ended before it was complete.")
            }
            ProviderError::Json(_) | ProviderError::Response(_) | ProviderError::Provider(_) => {
                cut("The model provider's answer is malformed.")
            }
            ProviderError::Url(_) | ProviderError::Request(_) => Failure::new(
                failure::PROVIDER_ERROR,
                "The request to the model provider cannot be built; check its address and key.",
            ),
            // The library may add errors, and has some of other operations.
            _ => Failure::new(failure::PROVIDER_ERROR, "The model provider failed."),
        }
    }

    /// The provider answered with an error: a status, or an error in place of a chunk.
    fn refusal(&self, error: &ProviderError) -> Failure {
        let status = error.provider_response_status();
        let body = error.provider_response_body().unwrap_or_default();
        let with_message = |text: String| match excerpt::message(body, self.key) {
            Some(message) => format!("{text}: {message}"),
            None => format!("{text}."),
        };
        match status.map(|status| status.as_u16()) {
            Some(401 | 403) => Failure::new(
                failure::PROVIDER_UNAUTHORIZED,
                with_message("The model provider refused the API key".to_owned()),
            ),
            Some(429) => Failure {
                code: failure::PROVIDER_RATE_LIMITED,
                detail: with_message("The model provider asks to slow down".to_owned()),
                retry_after_ms: error
                    .provider_response_headers()
                    .and_then(|headers| retry_after::millis(headers, self.now)),
            },
            Some(status @ 300..=399) => Failure::new(
                failure::PROVIDER_ERROR,
                format!(
                    "The model provider answered with a redirect ({status}), which is not \
                     followed; check its address."
                ),
            ),
            Some(status) if status != StatusCode::OK.as_u16() => Failure::new(
                failure::PROVIDER_ERROR,
                with_message(format!("The model provider answered with error {status}")),
            ),
            Some(_) | None => Failure::new(
                failure::PROVIDER_ERROR,
                with_message("The model provider reported an error".to_owned()),
            ),
        }
    }
}

fn cut(why: &str) -> Failure {
    Failure::new(failure::PROVIDER_CUT, why)
}

fn transport_failure(error: &HttpError) -> Failure {
    match error {
        HttpError::Instance(inner) => match inner.downcast_ref::<TransportError>() {
            Some(error) => {
                let code = match error.kind {
                    TransportErrorKind::NotAllowed => failure::ADDRESS_NOT_ALLOWED,
                    TransportErrorKind::Unreachable => failure::PROVIDER_UNREACHABLE,
                    TransportErrorKind::Silent => failure::PROVIDER_SILENT,
                    TransportErrorKind::Cut => failure::PROVIDER_CUT,
                    TransportErrorKind::TooLong => failure::REPLY_TOO_LONG,
                };
                Failure::new(code, error.detail.clone())
            }
            None => cut("The connection to the model provider broke."),
        },
        HttpError::StreamEnded => cut("The model provider's answer ended too early."),
        HttpError::InvalidContentType(_) => Failure::new(
            failure::PROVIDER_ERROR,
            "The model provider did not answer with an event stream; check its address.",
        ),
        HttpError::Protocol(_) | HttpError::InvalidHeaderValue(_) | HttpError::NoHeaders => {
            Failure::new(
                failure::PROVIDER_ERROR,
                "The request to the model provider cannot be built; check its address and key.",
            )
        }
        HttpError::InvalidStatusCodeWithDetails { status, .. } => Failure::new(
            failure::PROVIDER_ERROR,
            format!("The model provider answered with error {}.", status.as_u16()),
        ),
    }
}

/// The host's transport as the library's HTTP client, with a watch on silence and volume.
#[derive(Clone)]
struct Bridge {
    transport: Arc<dyn Transport>,
    sleep: Sleep,
    silent: Duration,
}

impl Bridge {
    async fn open(self, request: Request<Bytes>) -> Result<Response<BodyStream>, TransportError> {
        let (mut head, body) = request.into_parts();
        if let Some(value) = head.headers.get_mut(header::AUTHORIZATION) {
            value.set_sensitive(true);
        }
        let sent = self.transport.send(Request::from_parts(head, body));
        let response = match select(sent, (self.sleep)(self.silent)).await {
            Either::Left((response, _)) => response?,
            Either::Right(((), _)) => return Err(self.silence()),
        };
        Ok(response.map(|body| self.watch(body)))
    }

    fn watch(self, mut body: BodyStream) -> BodyStream {
        Box::pin(async_stream::stream! {
            let mut read = 0;
            loop {
                let chunk = match select(body.next(), (self.sleep)(self.silent)).await {
                    Either::Left((chunk, _)) => chunk,
                    Either::Right(((), _)) => Some(Err(self.silence())),
                };
                match chunk {
                    Some(Ok(bytes)) => {
                        read += bytes.len();
                        if read > MAX_ANSWER_BYTES {
                            let why = "The model provider sends far more than a reply can need.";
                            yield Err(TransportError::new(TransportErrorKind::TooLong, why));
                            return;
                        }
                        yield Ok(bytes);
                    }
                    Some(Err(error)) => {
                        yield Err(error);
                        return;
                    }
                    None => return,
                }
            }
        })
    }

    fn silence(&self) -> TransportError {
        let seconds = self.silent.as_secs_f32();
        let why = format!("The model provider said nothing for {seconds} seconds.");
        TransportError::new(TransportErrorKind::Silent, why)
    }
}

impl HttpClientExt for Bridge {
    fn send<T, U>(
        &self,
        request: Request<T>,
    ) -> impl Future<Output = HttpResult<Response<LazyBody<U>>>> + WasmCompatSend + 'static
    where
        T: Into<Bytes> + WasmCompatSend,
        U: From<Bytes> + WasmCompatSend + 'static,
    {
        let opened = self.clone().open(request.map(Into::into));
        async move {
            let response = opened.await.map_err(HttpError::instance)?;
            Ok(response.map(|mut body| -> LazyBody<U> {
                Box::pin(async move {
                    let mut all = Vec::new();
                    while let Some(chunk) = body.next().await {
                        all.extend_from_slice(&chunk.map_err(HttpError::instance)?);
                    }
                    Ok(U::from(Bytes::from(all)))
                })
            }))
        }
    }

    fn send_multipart<U>(
        &self,
        _: Request<MultipartForm>,
    ) -> impl Future<Output = HttpResult<Response<LazyBody<U>>>> + WasmCompatSend + 'static
    where
        U: From<Bytes> + WasmCompatSend + 'static,
    {
        // Only uploads of media use it, which agents do not.
        std::future::ready(Err(HttpError::instance(std::io::Error::from(
            std::io::ErrorKind::Unsupported,
        ))))
    }

    fn send_streaming<T>(
        &self,
        request: Request<T>,
    ) -> impl Future<Output = HttpResult<StreamingResponse>> + WasmCompatSend
    where
        T: Into<Bytes> + WasmCompatSend,
    {
        let opened = self.clone().open(request.map(Into::into));
        async move {
            let response = opened.await.map_err(HttpError::instance)?;
            Ok(response.map(|body| {
                let body = body.map_err(HttpError::instance);
                Box::pin(body) as std::pin::Pin<Box<dyn WasmCompatSendStream<InnerItem = _>>>
            }))
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn sendable(stream: impl Stream<Item = Result<Chunk, Failure>> + Send + 'static) -> ChunkStream {
    Box::pin(stream)
}

/// The library's streams are not `Send` on wasm; everything runs on one thread there.
#[cfg(target_arch = "wasm32")]
fn sendable(stream: impl Stream<Item = Result<Chunk, Failure>> + 'static) -> ChunkStream {
    Box::pin(send_wrapper::SendWrapper::new(Box::pin(stream)))
}
