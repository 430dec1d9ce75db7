//! Google's Gemini API, streamed as server-sent events.
//!
//! Calls have no ids there: a result belongs to a call by name and order. The signatures that come
//! with calls go back with them, since newer models refuse a conversation without.

use convene_model::agents::{ApiKey, Usage};
use futures_util::StreamExt;
use serde_json::{Map, Value, json};

use super::{
    Chunk, ChunkStream, End, UNREADABLE_CALL, USED_UP, WITHHELD, Wanted,
    exchange::{Exchange, KeyHeader, cut, malformed, with_options},
};
use crate::{
    Config,
    dialogue::{Ask, Round},
    failure::Failure,
    prompt::Role,
};

const KEY: KeyHeader = KeyHeader::Named("x-goog-api-key");
/// Tokens that a model of the service can write at most; it refuses to be told more.
const MAX_OUTPUT: u64 = 65_536;
/// Calls in one reply that are gathered; what a model asks for beyond them is not read.
const MAX_GATHERED_CALLS: usize = 64;

/// Begins the reply of the model called `model` at `base_url`, the URL without `/v1beta/models`.
pub(super) fn reply(
    config: &Config,
    base_url: &str,
    model: &str,
    api_key: ApiKey,
    options: &Map<String, Value>,
    ask: &Ask,
) -> ChunkStream {
    let exchange = Exchange::new(config, Some(api_key));
    let options = capped(options, ask.max_output);
    let body = with_options(&options, body(ask));
    let request =
        path(model).and_then(|path| exchange.request(base_url, &path, KEY, &[], Some(&body)));
    Box::pin(async_stream::stream! {
        let mut reply = Reply::default();
        let mut events = Box::pin(exchange.clone().events(request));
        while let Some(event) = events.next().await {
            match event.and_then(|event| reply.read(&exchange, &event.data)) {
                Ok(Some(text)) => yield Ok(Chunk::Text(text)),
                Ok(None) => {}
                Err(failure) => {
                    yield Err(failure);
                    return;
                }
            }
        }
        // The stream has no mark of its end beside the reason.
        if reply.reason.is_none() {
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

/// The names that `GET /v1beta/models` lists, of models that can write.
pub(super) async fn models(
    config: &Config,
    base_url: &str,
    api_key: ApiKey,
) -> Result<Vec<String>, Failure> {
    let exchange = Exchange::new(config, Some(api_key));
    let request = exchange.request(base_url, "/v1beta/models?pageSize=1000", KEY, &[], None);
    let document = exchange.document(request).await?;
    let list = document["models"].as_array().ok_or_else(malformed)?;
    let writes = |model: &&Value| {
        model["supportedGenerationMethods"]
            .as_array()
            .is_none_or(|methods| methods.iter().any(|method| method == "generateContent"))
    };
    let names = list.iter().filter(writes).filter_map(|model| model["name"].as_str());
    Ok(names.map(|name| name.trim_start_matches("models/").to_owned()).collect())
}

/// The path of a model, whose name cannot lead to another one.
fn path(model: &str) -> Result<String, Failure> {
    let name = model.trim().trim_start_matches("models/");
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || !name.chars().all(fit) || name.starts_with('.') {
        return Err(Failure::new(
            convene_model::agents::failure::PROVIDER_ERROR,
            "The model's name is none that this provider can have.",
        ));
    }
    Ok(format!("/v1beta/models/{name}:streamGenerateContent?alt=sse"))
}

/// The options, with no more tokens to be written than may be.
fn capped(options: &Map<String, Value>, max_output: u64) -> Map<String, Value> {
    let mut options = options.clone();
    // The service takes both spellings.
    let spelled = ["generationConfig", "generation_config"];
    let known = spelled.into_iter().find(|name| options.contains_key(*name));
    let config = options.entry(known.unwrap_or(spelled[0])).or_insert_with(|| json!({}));
    let Value::Object(config) = config else { return options };
    let spelled = ["maxOutputTokens", "max_output_tokens"];
    let known = spelled.into_iter().find(|name| config.contains_key(*name));
    let said = known.and_then(|name| config[name].as_u64());
    if let Some(said) = said {
        config.insert(known.unwrap_or(spelled[0]).to_owned(), said.min(max_output).into());
    } else if max_output < MAX_OUTPUT {
        config.insert(spelled[0].to_owned(), max_output.into());
    } else if config.is_empty() {
        options.remove("generationConfig");
    }
    options
}

fn body(ask: &Ask) -> Value {
    let mut contents: Vec<Value> = ask
        .prompt
        .turns
        .iter()
        .map(|turn| {
            let role = match turn.role {
                Role::Others => "user",
                Role::Me => "model",
            };
            json!({"role": role, "parts": [{"text": turn.text}]})
        })
        .collect();
    for round in &ask.rounds {
        contents.push(json!({"role": "model", "parts": said(round)}));
        let results: Vec<_> = round
            .calls
            .iter()
            .map(|call| {
                let (text, failed) = call.told();
                let name = if failed { "error" } else { "output" };
                json!({"functionResponse": {"name": call.tool, "response": {name: text}}})
            })
            .collect();
        contents.push(json!({"role": "user", "parts": results}));
    }
    let mut body = json!({
        "systemInstruction": {"parts": [{"text": ask.prompt.system}]},
        "contents": contents,
    });
    if !ask.tools.is_empty() {
        let declarations: Vec<_> = ask
            .tools
            .iter()
            .map(|tool| {
                json!({
                    "name": tool.name,
                    "description": tool.description,
                    "parametersJsonSchema": tool.parameters,
                })
            })
            .collect();
        body["tools"] = json!([{"functionDeclarations": declarations}]);
        if !ask.may_call {
            body["toolConfig"] = json!({"functionCallingConfig": {"mode": "NONE"}});
        }
    }
    body
}

fn said(round: &Round) -> Vec<Value> {
    let mut parts = Vec::new();
    if !round.text.is_empty() {
        parts.push(json!({"text": round.text}));
    }
    parts.extend(round.calls.iter().map(|call| {
        let mut part = json!({"functionCall": {"name": call.tool, "args": call.object()}});
        if let Some(signature) = &call.signature {
            part["thoughtSignature"] = signature.as_str().into();
        }
        part
    }));
    parts
}

/// What was read of a reply.
#[derive(Default)]
struct Reply {
    calls: Vec<Wanted>,
    usage: Option<Usage>,
    reason: Option<String>,
}

impl Reply {
    /// Reads one chunk and returns its text.
    fn read(&mut self, exchange: &Exchange, data: &str) -> Result<Option<String>, Failure> {
        let chunk: Value = serde_json::from_str(data).map_err(|_| malformed())?;
        if !chunk["error"].is_null() {
            return Err(exchange.reported(&chunk));
        }
        self.usage = usage(&chunk["usageMetadata"]).or(self.usage);
        if chunk["promptFeedback"]["blockReason"].is_string() {
            self.reason = Some("SAFETY".to_owned());
        }
        let candidate = &chunk["candidates"][0];
        if let Some(reason) = candidate["finishReason"].as_str() {
            self.reason = Some(reason.to_owned());
        }
        let mut text = String::new();
        for part in candidate["content"]["parts"].as_array().into_iter().flatten() {
            if part["functionCall"].is_object() {
                self.call(part)?;
            } else if part["thought"] != true {
                text.push_str(part["text"].as_str().unwrap_or_default());
            }
        }
        Ok((!text.is_empty()).then_some(text))
    }

    fn call(&mut self, part: &Value) -> Result<(), Failure> {
        let call = &part["functionCall"];
        let tool = call["name"].as_str().ok_or_else(malformed)?.to_owned();
        let arguments = match &call["args"] {
            Value::Null => String::new(),
            arguments => arguments.to_string(),
        };
        let signature = part["thoughtSignature"].as_str().map(str::to_owned);
        if self.calls.len() < MAX_GATHERED_CALLS {
            self.calls.push(Wanted { tool, arguments, signature });
        }
        Ok(())
    }

    fn end(self) -> (Vec<Wanted>, End) {
        let cut_short = match self.reason.as_deref() {
            Some("MAX_TOKENS") => Some(USED_UP),
            Some(
                "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE",
            ) => Some(WITHHELD),
            Some("MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL") => Some(UNREADABLE_CALL),
            Some(_) | None => None,
        };
        (self.calls, End { usage: self.usage, cut_short, reasoning: None })
    }
}

/// What the service says that it used; tokens that it had in its cache are among those of the prompt.
fn usage(said: &Value) -> Option<Usage> {
    let count = |name: &str| said[name].as_u64();
    let output = ["candidatesTokenCount", "thoughtsTokenCount"];
    count("promptTokenCount").map(|input| Usage {
        input_tokens: input.saturating_add(count("toolUsePromptTokenCount").unwrap_or_default()),
        output_tokens: output.iter().filter_map(|name| count(name)).fold(0, u64::saturating_add),
        cached_input_tokens: count("cachedContentTokenCount").unwrap_or_default(),
        ..Usage::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_and_thought_tokens_are_counted_where_the_service_says_them() {
        let said = json!({
            "promptTokenCount": 100, "cachedContentTokenCount": 64, "candidatesTokenCount": 7,
            "thoughtsTokenCount": 3, "toolUsePromptTokenCount": 5, "totalTokenCount": 115,
        });
        let read = Usage { input_tokens: 105, output_tokens: 10, ..Usage::default() };
        assert_eq!(usage(&said), Some(Usage { cached_input_tokens: 64, ..read }));
        assert_eq!(usage(&json!({"candidatesTokenCount": 7})), None);
    }
}
