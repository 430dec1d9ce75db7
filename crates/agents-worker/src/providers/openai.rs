//! Any service that speaks OpenAI's chat completions.
//!
//! Sends the least that all compatible services understand, contents as plain strings, and takes
//! what they differ in: calls without an index, arguments as objects, an end without a reason.

use std::collections::VecDeque;

use convene_model::agents::{ApiKey, Usage};
use futures_util::StreamExt;
use serde_json::{Map, Value, json};

use super::{
    Chunk, ChunkStream, End, USED_UP, WITHHELD, Wanted,
    exchange::{Exchange, KeyHeader, cut, malformed, with_options},
};
use crate::{
    Config,
    dialogue::{Ask, Round},
    failure::Failure,
    prompt::Role,
};

/// What services call the most tokens that a model may write, its reasoning included or not.
const MAX_OUTPUT_NAMES: [&str; 2] = ["max_completion_tokens", "max_tokens"];
/// Tokens that no model writes more of in one reply.
const MAX_OUTPUT: u64 = 131_072;
/// What is tried where fewer are left: most models can write so many, older ones so many, and those with a
/// small context so many.
const OUTPUT_TRIED: [u64; 3] = [16_384, 4_096, 1_024];
/// Calls in one reply that are gathered; what a model asks for beyond them is not read.
const MAX_GATHERED_CALLS: usize = 64;
/// Bytes of arguments and reasoning of one reply that are gathered.
const MAX_GATHERED_BYTES: usize = 512 * 1024;

/// Begins the reply of the model called `model` at `base_url`, the URL without
/// `/chat/completions`.
pub(super) fn reply(
    config: &Config,
    base_url: &str,
    model: &str,
    api_key: Option<ApiKey>,
    options: &Map<String, Value>,
    ask: &Ask,
) -> ChunkStream {
    let exchange = Exchange::new(config, api_key);
    let body = with_options(options, body(model, ask));
    let caps = caps(base_url, options, ask.max_output);
    let requests = caps.into_iter().map(|cap| {
        let mut body = body.clone();
        for (name, tokens) in cap {
            body[name] = tokens.into();
        }
        exchange.request(base_url, "/chat/completions", KeyHeader::Bearer, &[], Some(&body))
    });
    let mut requests: VecDeque<_> = requests.collect();
    Box::pin(async_stream::stream! {
        let mut reply = Reply::default();
        let Some(request) = requests.pop_front() else { return };
        let mut events = Box::pin(exchange.clone().events(request));
        while let Some(event) = events.next().await {
            let data = match event {
                Ok(event) => event.data,
                Err(failure) => {
                    // Perhaps the model writes less at most than it was told that it may.
                    if let Some(request) = requests.pop_front().filter(|_| failure.refused) {
                        events = Box::pin(exchange.clone().events(request));
                        continue;
                    }
                    yield Err(failure);
                    return;
                }
            };
            if data.trim() == "[DONE]" {
                reply.done = true;
                break;
            }
            match reply.read(&exchange, &data) {
                Ok(Some(text)) => yield Ok(Chunk::Text(text)),
                Ok(None) => {}
                Err(failure) => {
                    yield Err(failure);
                    return;
                }
            }
        }
        // Either of the two is an end: some services leave one of them out.
        if !reply.done && reply.reason.is_none() {
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

/// The names that `GET /models` lists.
pub(super) async fn models(
    config: &Config,
    base_url: &str,
    api_key: Option<ApiKey>,
) -> Result<Vec<String>, Failure> {
    let exchange = Exchange::new(config, api_key);
    let request = exchange.request(base_url, "/models", KeyHeader::Bearer, &[], None);
    let document = exchange.document(request).await?;
    let list = document["data"].as_array().or_else(|| document.as_array()).ok_or_else(malformed)?;
    Ok(list.iter().filter_map(|model| model["id"].as_str()).map(str::to_owned).collect())
}

/// How a request says how many tokens may be written, first as it is tried first. Services refuse more than
/// their model can write, and say nowhere how much that is: as long as more is left than any model writes,
/// nothing is said, and from then on what most can write; one that refuses is told less.
fn caps(base_url: &str, options: &Map<String, Value>, max_output: u64) -> Vec<Vec<(String, u64)>> {
    let said: Vec<_> = MAX_OUTPUT_NAMES
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), options.get(name)?.as_u64()?.min(max_output))))
        .collect();
    if !said.is_empty() || max_output >= MAX_OUTPUT {
        return vec![said];
    }
    // OpenAI's newer models refuse the name that all others know.
    let is_openai =
        base_url.contains("//api.openai.com/") || base_url.contains(".openai.azure.com/");
    let name = MAX_OUTPUT_NAMES[usize::from(!is_openai)];
    let mut tokens = OUTPUT_TRIED.map(|tokens| tokens.min(max_output)).to_vec();
    tokens.dedup();
    tokens.into_iter().map(|tokens| vec![(name.to_owned(), tokens)]).collect()
}

fn body(model: &str, ask: &Ask) -> Value {
    let mut messages = vec![json!({"role": "system", "content": ask.prompt.system})];
    messages.extend(ask.prompt.turns.iter().map(|turn| {
        let role = match turn.role {
            Role::Others => "user",
            Role::Me => "assistant",
        };
        json!({"role": role, "content": turn.text})
    }));
    for round in &ask.rounds {
        messages.push(said(round));
        messages.extend(round.calls.iter().map(|call| {
            let id = call.call_id.as_str();
            json!({"role": "tool", "tool_call_id": id, "content": call.told().0})
        }));
    }
    let mut body = json!({
        "model": model,
        "messages": messages,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    if !ask.tools.is_empty() {
        body["tools"] = ask
            .tools
            .iter()
            .map(|tool| {
                json!({"type": "function", "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                }})
            })
            .collect();
        if !ask.may_call {
            body["tool_choice"] = "none".into();
        }
    }
    body
}

fn said(round: &Round) -> Value {
    let calls: Vec<_> = round
        .calls
        .iter()
        .map(|call| {
            json!({"type": "function", "id": call.call_id.as_str(), "function": {
                "name": call.tool,
                "arguments": Value::Object(call.object()).to_string(),
            }})
        })
        .collect();
    let text = (!round.text.is_empty()).then_some(round.text.as_str());
    let mut message = json!({"role": "assistant", "content": text, "tool_calls": calls});
    if let Some(reasoning) = &round.reasoning {
        message["reasoning_content"] = reasoning.as_str().into();
    }
    message
}

/// What was read of a reply.
#[derive(Default)]
struct Reply {
    calls: Vec<Gathered>,
    reasoning: String,
    gathered: usize,
    reason: Option<String>,
    usage: Option<Usage>,
    done: bool,
}

#[derive(Default)]
struct Gathered {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
}

impl Reply {
    /// Reads one chunk and returns its text.
    fn read(&mut self, exchange: &Exchange, data: &str) -> Result<Option<String>, Failure> {
        let chunk: Value = serde_json::from_str(data).map_err(|_| malformed())?;
        if !chunk["error"].is_null() {
            return Err(exchange.reported(&chunk));
        }
        if let Some(usage) = usage(&chunk["usage"]) {
            self.usage = Some(usage);
        }
        let choice = &chunk["choices"][0];
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.reason = Some(reason.to_owned());
        }
        let delta = &choice["delta"];
        for name in ["reasoning_content", "reasoning"] {
            if let Some(reasoning) = delta[name].as_str() {
                self.gather(reasoning.len())?;
                // Only services that call it so want it back.
                if name == "reasoning_content" {
                    self.reasoning.push_str(reasoning);
                }
            }
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.call(call)?;
        }
        Ok(text(&delta["content"]).or_else(|| text(&delta["refusal"])))
    }

    fn gather(&mut self, bytes: usize) -> Result<(), Failure> {
        self.gathered += bytes;
        if self.gathered > MAX_GATHERED_BYTES { Err(malformed()) } else { Ok(()) }
    }

    fn call(&mut self, call: &Value) -> Result<(), Failure> {
        let function = &call["function"];
        let arguments = match &function["arguments"] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        let (id, name) = (call["id"].as_str(), function["name"].as_str());
        self.gather(arguments.len() + name.map_or(0, str::len))?;
        let index = call["index"].as_u64();
        let known = match index {
            Some(_) => self.calls.iter().position(|known| known.index == index),
            // Without an index, a piece without a name goes on with the call before it.
            None if name.is_none_or(str::is_empty) => self.calls.len().checked_sub(1),
            None => self.calls.iter().position(|known| id.is_some_and(|id| known.id == id)),
        };
        let at = match known {
            Some(at) => at,
            None if self.calls.len() >= MAX_GATHERED_CALLS => return Ok(()),
            None => {
                self.calls.push(Gathered { index, ..Gathered::default() });
                self.calls.len() - 1
            }
        };
        let known = &mut self.calls[at];
        if known.id.is_empty() {
            known.id = id.unwrap_or_default().to_owned();
        }
        if known.name.is_empty() {
            known.name = name.unwrap_or_default().to_owned();
        }
        known.arguments.push_str(&arguments);
        Ok(())
    }

    fn end(self) -> (Vec<Wanted>, End) {
        let calls = self.calls.into_iter().map(|call| Wanted {
            tool: call.name,
            arguments: call.arguments,
            signature: None,
        });
        let cut_short = match self.reason.as_deref() {
            Some("length") => Some(USED_UP),
            Some("content_filter") => Some(WITHHELD),
            Some(_) | None => None,
        };
        let reasoning = Some(self.reasoning).filter(|reasoning| !reasoning.is_empty());
        (calls.collect(), End { usage: self.usage, cut_short, reasoning })
    }
}

/// A content: text, or parts with text.
fn text(content: &Value) -> Option<String> {
    let text = match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

fn usage(usage: &Value) -> Option<Usage> {
    let (input, output) = (usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64());
    // The second is DeepSeek's name for it.
    let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64();
    let cached = cached.or_else(|| usage["prompt_cache_hit_tokens"].as_u64());
    (input.is_some() || output.is_some()).then(|| Usage {
        input_tokens: input.unwrap_or_default(),
        output_tokens: output.unwrap_or_default(),
        cached_input_tokens: cached.unwrap_or_default(),
        ..Usage::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_tokens_are_read_under_both_names_that_services_have_for_them() {
        let read = Usage { input_tokens: 100, output_tokens: 7, ..Usage::default() };
        let plain = json!({"prompt_tokens": 100, "completion_tokens": 7});
        assert_eq!(usage(&plain), Some(read));
        for cached in [
            json!({"prompt_tokens_details": {"cached_tokens": 64}}),
            json!({"prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36}),
        ] {
            let mut said = plain.clone();
            said.as_object_mut().unwrap().extend(cached.as_object().unwrap().clone());
            assert_eq!(usage(&said), Some(Usage { cached_input_tokens: 64, ..read }));
        }
        assert_eq!(usage(&json!(null)), None);
    }

    #[test]
    fn how_much_may_be_written_is_said_where_a_model_could_write_more_than_is_left() {
        let here = "http://localhost:11434/v1/";
        let caps_of = |base_url: &str, options: Value, left: u64| {
            let caps = caps(base_url, options.as_object().unwrap(), left);
            let caps = caps.into_iter().map(|cap| cap.into_iter().collect::<Vec<_>>());
            caps.map(|cap| json!(cap)).collect::<Vec<_>>()
        };
        assert_eq!(caps_of(here, json!({}), MAX_OUTPUT), [json!([])]);
        let tried = |name: &str, tokens: &[u64]| {
            tokens.iter().map(|tokens| json!([[name, tokens]])).collect::<Vec<_>>()
        };
        let (old, new) = ("max_tokens", "max_completion_tokens");
        assert_eq!(caps_of(here, json!({}), MAX_OUTPUT - 1), tried(old, &[16_384, 4_096, 1_024]));
        assert_eq!(caps_of(here, json!({}), 5_000), tried(old, &[5_000, 4_096, 1_024]));
        assert_eq!(caps_of(here, json!({}), 300), tried(old, &[300]));
        let openai = "https://api.openai.com/v1/";
        assert_eq!(caps_of(openai, json!({}), 300), tried(new, &[300]));
        for (said, left, told) in [(500, 300, 300), (500, 700, 500), (500, u64::MAX, 500)] {
            assert_eq!(caps_of(openai, json!({"max_tokens": said}), left), tried(old, &[told]));
        }
    }
}
