//! `POST /probe`: tries for the App whether a provider, a model or an MCP server works.
//!
//! The App's token is bound to the request and used once. What does not work is answered with 200
//! and its reason: the request itself was good. The answer begins at once and is kept alive by blanks
//! before its JSON, since a model may take its time. Nothing is kept.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use convene_model::{
    Code, Problem,
    agents::{McpServer, ModelPrice, ResolvedModel, Usage, failure},
    claims::{AppClaims, service},
    limits::{MAX_BODY_BYTES, MAX_LISTED_MODELS, MAX_REPLY_BYTES, MAX_TOOL_TIMEOUT, RUN_TOKENS},
    probe::{McpListing, McpTool, ProbeAnswer, ProbeRequest},
    token::{self, RequestLine, TokenError},
};
use futures_util::{
    Stream, StreamExt,
    future::{Either, select},
};
use http::{HeaderValue, Request, header};

use crate::{
    Worker,
    conversation::Conversation,
    dialogue::Ask,
    failure::Failure,
    invoke::{authorization, read},
    mcp::Session,
    problem::ApiError,
    prompt::{Prompt, Role, Turn},
    providers::{self, Chunk},
    tools::{Outbound, Redaction, secrets_of},
};

pub(crate) async fn probe(
    State(worker): State<Arc<Worker>>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let body = read(body, MAX_BODY_BYTES).await?;
    let line = RequestLine {
        authorization: authorization(&head.headers),
        method: head.method.as_str(),
        path: head.uri.path(),
        body: &body,
    };
    let now = (worker.config.clock)();
    let keys = &worker.config.app_keys;
    let token = token::authorize::<AppClaims>(keys, service::AGENTS, line, now, None)?;
    if token.registered.iss != service::APP {
        return Err(TokenError::UnknownKey.into());
    }
    let request: ProbeRequest = serde_json::from_slice(&body)
        .map_err(|error| Problem::new(Code::InvalidRequest).detail(error.to_string()))?;
    worker.used_tokens.use_up(&token.registered, now)?;

    let mut response = Body::from_stream(answered(worker, request)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The answer's body: blanks while it is being found out, then the JSON.
fn answered(
    worker: Arc<Worker>,
    request: ProbeRequest,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    async_stream::stream! {
        let sleep = Arc::clone(&worker.config.sleep);
        let mut over = sleep(MAX_TOOL_TIMEOUT);
        let mut attempt = Box::pin(attempt(&worker, request));
        let answer = loop {
            let pause = sleep(worker.config.limits.heartbeat);
            match select(&mut attempt, select(&mut over, pause)).await {
                Either::Left((answer, _)) => break answer,
                Either::Right((Either::Left(_), _)) => {
                    let seconds = MAX_TOOL_TIMEOUT.as_secs();
                    let why = format!("It took longer than {seconds} seconds.");
                    break Err(Failure::new(failure::TIMEOUT, why));
                }
                Either::Right((Either::Right(_), _)) => yield Ok(Bytes::from_static(b" ")),
            }
        };
        let answer = answer.unwrap_or_else(|failure| ProbeAnswer::Failed {
            code: failure.code.to_owned(),
            detail: failure.detail,
        });
        yield Ok(Bytes::from(serde_json::to_vec(&answer).unwrap_or_default()));
    }
}

async fn attempt(worker: &Worker, request: ProbeRequest) -> Result<ProbeAnswer, Failure> {
    match request {
        ProbeRequest::Models { model } => {
            let mut models = providers::models(&worker.config, &model).await?;
            models.truncate(MAX_LISTED_MODELS);
            Ok(ProbeAnswer::Models { models })
        }
        ProbeRequest::Reply { model, system_prompt, text, price } => {
            reply(worker, &model, price.as_ref(), system_prompt, text).await
        }
        ProbeRequest::Mcp { server, tool_hosts } => {
            list(worker, *server, tool_hosts.as_deref()).await.map(ProbeAnswer::Mcp)
        }
    }
}

async fn reply(
    worker: &Worker,
    model: &ResolvedModel,
    price: Option<&ModelPrice>,
    system_prompt: String,
    text: String,
) -> Result<ProbeAnswer, Failure> {
    let conversation = Conversation::of_one(&system_prompt, &text);
    let turns = vec![Turn { role: Role::Others, text }];
    let ask = Ask::plain(Prompt { system: system_prompt, turns }, RUN_TOKENS);
    let mut chunks = providers::reply(&worker.config, model, &conversation, ask);
    let (mut text, mut usage): (String, Option<Usage>) = (String::new(), None);
    while let Some(chunk) = chunks.next().await {
        match chunk? {
            Chunk::Text(more) => text.push_str(&more),
            Chunk::Call(_) => {}
            Chunk::End(end) => {
                usage = end.usage.map(|usage| usage.priced(price));
                if let Some(why) = end.cut_short.filter(|_| text.trim().is_empty()) {
                    return Err(Failure::new(failure::EMPTY_REPLY, why));
                }
            }
        }
        if text.len() > MAX_REPLY_BYTES {
            let why = format!("The model wrote more than {} KiB.", MAX_REPLY_BYTES / 1024);
            return Err(Failure::new(failure::REPLY_TOO_LONG, why));
        }
    }
    if text.trim().is_empty() {
        let why = "The model ended its reply without a word.";
        return Err(Failure::new(failure::EMPTY_REPLY, why));
    }
    Ok(ProbeAnswer::Reply { text, usage })
}

async fn list(
    worker: &Worker,
    server: McpServer,
    tool_hosts: Option<&[String]>,
) -> Result<McpListing, Failure> {
    let redaction = Redaction::new(secrets_of(&server.headers));
    let outbound = Outbound::new(Arc::clone(&worker.config.transport), tool_hosts, redaction);
    let session = Session::new(outbound, Arc::new(server), None);
    let listed = session.list().await;
    session.close().await;
    let listing = listed.map_err(|refused| {
        let code = match refused.code {
            "address_not_allowed" => failure::ADDRESS_NOT_ALLOWED,
            "unreachable" => failure::PROVIDER_UNREACHABLE,
            "unauthorized" => failure::PROVIDER_UNAUTHORIZED,
            _ => failure::MCP_ERROR,
        };
        Failure::new(code, refused.detail)
    })?;
    let tools = listing.tools.into_iter().map(|tool| McpTool {
        name: tool.name,
        description: tool.description,
        read_only: tool.read_only,
        parameters: tool.parameters,
        refused: tool.refused.map(str::to_owned),
    });
    Ok(McpListing {
        name: listing.name,
        version: listing.version,
        protocol: listing.era.revision().to_owned(),
        tools: tools.collect(),
    })
}
