//! `POST /summarize`: has the model of an agent write a summary of earlier messages.
//!
//! The checks are those of a run, with a scope of its own: a token for a run summarizes nothing, and
//! one for a summary runs nothing. No tool is offered to the model.

use std::sync::Arc;

use axum::{Json, body::Body, extract::State};
use convene_model::{
    Code, Problem,
    agents::{
        ContextSummary, InvokeRequest, ResolvedModel, SummarizeRequest, Summarized, SummaryAuthor,
        Usage,
    },
    claims::SCOPE_SUMMARIZE,
    limits::{MAX_SUMMARY_TEXT_BYTES, SUMMARY_OUTPUT_TOKENS, SUMMARY_TOKENS},
};
use futures_util::StreamExt;
use http::Request;
use serde_json::json;

use crate::{
    Worker,
    conversation::{Conversation, Task},
    dialogue::{Ask, bytes_of},
    failure::Failure,
    invoke::accept_as,
    metering::{self, Most},
    problem::ApiError,
    prompt,
    providers::{self, Chunk},
    resolve,
};

pub(crate) async fn summarize(
    State(worker): State<Arc<Worker>>,
    request: Request<Body>,
) -> Result<Json<Summarized>, ApiError> {
    let mut tokens = SUMMARY_TOKENS;
    let call = accept_as(&worker, request, SCOPE_SUMMARIZE, |body| {
        let (call, most) = parse(body)?;
        tokens = most.min(SUMMARY_TOKENS);
        Ok(call)
    })
    .await?;
    let agent = resolve::resolve(&worker, &call).await.map_err(unused)?;
    if agent.model == ResolvedModel::Demo {
        // It answers by rules; the caller's own extract is as good.
        let detail = "The demo model writes no summaries.";
        return Err(Problem::new(Code::ValidationFailed).detail(detail).into());
    }
    let mut conversation = Conversation::new(&agent, &call.request);
    conversation.task = Task::Summarize;
    let mut ask = Ask::plain(prompt::build(&conversation, &[]), 0);
    let Some(room) = tokens.checked_sub(ask.tokens()).filter(|room| *room > 0) else {
        let why = "The messages are too long for the tokens that a summary may take.";
        return Err(unavailable(why, Some(Usage::default())));
    };
    ask.max_output = room.min(SUMMARY_OUTPUT_TOKENS);
    let (most_read, most_written) = (ask.tokens(), ask.max_output);
    let mut chunks = providers::reply(&worker.config, &agent.model, &conversation, ask);
    let mut text = String::new();
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(Chunk::Text(more)) => text.push_str(&more),
            // No tool is offered; a call of one is nothing.
            Ok(Chunk::Call(_)) => {}
            Ok(Chunk::End(end)) => {
                let written = most_written.max(bytes_of(text.len()));
                let most = Most { read: most_read, written };
                let usage = metering::counted(&agent.model, end.usage, most);
                let usage = usage.map(|usage| usage.priced(agent.price.as_ref()));
                let cut = text.floor_char_boundary(MAX_SUMMARY_TEXT_BYTES);
                let text = text[..cut].trim().to_owned();
                if text.is_empty() {
                    return Err(unavailable("The model wrote no summary.", usage));
                }
                return Ok(Json(Summarized { text, usage }));
            }
            Err(failure) => {
                let used = text.is_empty().then(Usage::default);
                return Err(unavailable(failure.detail, used));
            }
        }
        // What a caller keeps is bounded, and so is what is read.
        if text.len() > 4 * MAX_SUMMARY_TEXT_BYTES {
            return Err(unavailable("The model's summary was too long.", None));
        }
    }
    Err(unavailable("The model provider's answer ended too early.", None))
}

/// The call of an agent whose messages are the ones to be summarized, and what it may use.
fn parse(body: &[u8]) -> Result<(InvokeRequest, u64), Problem> {
    let asked: SummarizeRequest = serde_json::from_slice(body)
        .map_err(|error| Problem::new(Code::InvalidRequest).detail(error.to_string()))?;
    let Some(last) = asked.messages.last() else {
        let detail = "there are no messages to be summarized";
        return Err(Problem::new(Code::ValidationFailed).detail(detail));
    };
    let tokens = asked.tokens;
    let call = InvokeRequest {
        group_id: asked.group_id,
        agent_id: asked.agent_id,
        run_id: asked.run_id,
        attempt: 1,
        trigger: last.message_id.clone(),
        agents: asked.agents,
        summary: asked.previous.map(|text| ContextSummary {
            from_seq: 0,
            to_seq: 0,
            by: SummaryAuthor::Model,
            text,
        }),
        messages: asked.messages,
        resume: None,
    };
    Ok((call, tokens))
}

/// The problem of a summary for which no model was asked.
fn unused(failure: Failure) -> ApiError {
    unavailable(failure.detail, Some(Usage::default()))
}

/// The problem of a summary that is not to be had, with what was used for it where that is known.
fn unavailable(detail: impl Into<String>, usage: Option<Usage>) -> ApiError {
    let problem = Problem::new(Code::Unavailable).detail(detail);
    match usage {
        Some(usage) => problem.with("usage", json!(usage)).into(),
        None => problem.into(),
    }
}
