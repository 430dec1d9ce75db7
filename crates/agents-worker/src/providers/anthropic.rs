//! Anthropic's Messages API, streamed.
//!
//! The stable front of each request (tools and frame) and its end are marked for the provider's
//! cache, so that rounds of tool calls do not pay for the conversation again.

use convene_model::agents::{ApiKey, Usage};
use futures_util::StreamExt;
use serde_json::{Map, Value, json};

use super::{
    Chunk, ChunkStream, End, USED_UP, WITHHELD, Wanted,
    exchange::{Exchange, KeyHeader, cut, malformed, with_options},
};
use crate::{Config, dialogue::Ask, failure::Failure, prompt::Role};

/// The version of the API.
const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");
const KEY: KeyHeader = KeyHeader::Named("x-api-key");
/// Tokens of one reply, unless the options say otherwise or fewer are left; the API wants a number.
const MAX_TOKENS: u64 = 8192;
/// Bytes of arguments that are gathered.
const MAX_GATHERED_BYTES: usize = 512 * 1024;

/// Begins the reply of the model called `model` at `base_url`, the URL without `/v1/messages`.
pub(super) fn reply(
    config: &Config,
    base_url: &str,
    model: &str,
    api_key: ApiKey,
    options: &Map<String, Value>,
    ask: &Ask,
) -> ChunkStream {
    let exchange = Exchange::new(config, Some(api_key));
    let mut options = options.clone();
    let most = options.get("max_tokens").and_then(Value::as_u64).unwrap_or(MAX_TOKENS);
    options.insert("max_tokens".to_owned(), most.min(ask.max_output).into());
    let body = with_options(&options, body(model, ask));
    let request = exchange.request(base_url, "/v1/messages", KEY, &[VERSION], Some(&body));
    Box::pin(async_stream::stream! {
        let mut reply = Reply::default();
        let mut events = Box::pin(exchange.clone().events(request));
        while let Some(event) = events.next().await {
            let read = event.and_then(|event| reply.read(&exchange, &event.data));
            match read {
                Ok(Some(text)) => yield Ok(Chunk::Text(text)),
                Ok(None) if reply.stopped => break,
                Ok(None) => {}
                Err(failure) => {
                    yield Err(failure);
                    return;
                }
            }
        }
        if !reply.stopped {
            yield Err(cut());
            return;
        }
        let (calls, end) = reply.end();
        for call in calls {
            yield Ok(Chunk::Call(call));
        }
        yield Ok(Chunk::End(end));
    })
}

/// The names that `GET /v1/models` lists.
pub(super) async fn models(
    config: &Config,
    base_url: &str,
    api_key: ApiKey,
) -> Result<Vec<String>, Failure> {
    let exchange = Exchange::new(config, Some(api_key));
    let request = exchange.request(base_url, "/v1/models?limit=1000", KEY, &[VERSION], None);
    let document = exchange.document(request).await?;
    let list = document["data"].as_array().ok_or_else(malformed)?;
    Ok(list.iter().filter_map(|model| model["id"].as_str()).map(str::to_owned).collect())
}

fn body(model: &str, ask: &Ask) -> Value {
    let cached = json!({"type": "ephemeral"});
    let mut messages: Vec<Value> = ask
        .prompt
        .turns
        .iter()
        .map(|turn| {
            let role = match turn.role {
                Role::Others => "user",
                Role::Me => "assistant",
            };
            json!({"role": role, "content": [{"type": "text", "text": turn.text}]})
        })
        .collect();
    for round in &ask.rounds {
        let mut said = Vec::new();
        if !round.text.trim().is_empty() {
            said.push(json!({"type": "text", "text": round.text.trim_end()}));
        }
        said.extend(round.calls.iter().map(|call| {
            let id = call.call_id.as_str();
            json!({"type": "tool_use", "id": id, "name": call.tool, "input": call.object()})
        }));
        messages.push(json!({"role": "assistant", "content": said}));
        let results: Vec<_> = round
            .calls
            .iter()
            .map(|call| {
                let (text, failed) = call.told();
                let id = call.call_id.as_str();
                let mut result = json!({"type": "tool_result", "tool_use_id": id, "content": text});
                if failed {
                    result["is_error"] = true.into();
                }
                result
            })
            .collect();
        messages.push(json!({"role": "user", "content": results}));
    }
    let last = messages.last_mut().and_then(|message| message["content"].as_array_mut());
    if let Some(block) = last.and_then(|content| content.last_mut()) {
        block["cache_control"] = cached.clone();
    }
    let mut body = json!({
        "model": model,
        "stream": true,
        "system": [{"type": "text", "text": ask.prompt.system, "cache_control": cached}],
        "messages": messages,
    });
    if !ask.tools.is_empty() {
        body["tools"] = ask
            .tools
            .iter()
            .map(|tool| {
                json!({
                    "name": tool.name,
                    "description": tool.description,
                    "input_schema": tool.parameters,
                })
            })
            .collect();
        if !ask.may_call {
            body["tool_choice"] = json!({"type": "none"});
        }
    }
    body
}

/// What was read of a reply.
#[derive(Default)]
struct Reply {
    calls: Vec<(u64, Wanted)>,
    gathered: usize,
    /// Tokens read, those in the cache included.
    input: Option<u64>,
    cached: u64,
    written: u64,
    output: Option<u64>,
    reason: Option<String>,
    stopped: bool,
}

impl Reply {
    /// Reads one event and returns its text.
    fn read(&mut self, exchange: &Exchange, data: &str) -> Result<Option<String>, Failure> {
        let event: Value = serde_json::from_str(data).map_err(|_| malformed())?;
        let index = event["index"].as_u64().unwrap_or_default();
        match event["type"].as_str().ok_or_else(malformed)? {
            "error" => return Err(exchange.reported(&event)),
            "message_start" => self.used(&event["message"]["usage"]),
            "content_block_start" => {
                let block = &event["content_block"];
                match block["type"].as_str() {
                    Some("tool_use") => {
                        let tool = block["name"].as_str().ok_or_else(malformed)?.to_owned();
                        self.calls.push((index, Wanted { tool, ..Wanted::default() }));
                    }
                    Some("text") => return Ok(text(&block["text"])),
                    Some(_) | None => {}
                }
            }
            "content_block_delta" => {
                let delta = &event["delta"];
                match delta["type"].as_str() {
                    Some("text_delta") => return Ok(text(&delta["text"])),
                    Some("input_json_delta") => {
                        let part = delta["partial_json"].as_str().unwrap_or_default();
                        self.gathered += part.len();
                        let call = self.calls.iter_mut().find(|(at, _)| *at == index);
                        let (_, call) = call.ok_or_else(malformed)?;
                        call.arguments.push_str(part);
                        if self.gathered > MAX_GATHERED_BYTES {
                            return Err(malformed());
                        }
                    }
                    Some(_) | None => {}
                }
            }
            "message_delta" => {
                self.used(&event["usage"]);
                if let Some(reason) = event["delta"]["stop_reason"].as_str() {
                    self.reason = Some(reason.to_owned());
                }
            }
            "message_stop" => self.stopped = true,
            // Signs of life, ends of blocks, and what later versions of the API add.
            _ => {}
        }
        Ok(None)
    }

    /// Counts are cumulative: a later one replaces an earlier one.
    fn used(&mut self, usage: &Value) {
        if let Some(input) = usage["input_tokens"].as_u64() {
            let count = |name: &str| usage[name].as_u64().unwrap_or_default();
            self.written = count("cache_creation_input_tokens");
            self.cached = count("cache_read_input_tokens");
            self.input = Some(input.saturating_add(self.written).saturating_add(self.cached));
        }
        self.output = usage["output_tokens"].as_u64().or(self.output);
    }

    fn end(self) -> (Vec<Wanted>, End) {
        let usage = self.input.zip(self.output).map(|(input_tokens, output_tokens)| Usage {
            input_tokens,
            output_tokens,
            cached_input_tokens: self.cached,
            cache_write_tokens: self.written,
            ..Usage::default()
        });
        let cut_short = match self.reason.as_deref() {
            Some("max_tokens" | "model_context_window_exceeded") => Some(USED_UP),
            Some("refusal") => Some(WITHHELD),
            Some(_) | None => None,
        };
        let calls = self.calls.into_iter().map(|(_, call)| call).collect();
        (calls, End { usage, cut_short, reasoning: None })
    }
}

fn text(text: &Value) -> Option<String> {
    text.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}
