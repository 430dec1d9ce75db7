//! OpenAI's chat completions as the server speaks them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Asked, Piece};

/// What the real service refuses: no streaming is only what this server refuses.
pub(super) fn check(body: &Value) -> Result<(), String> {
    if body["stream"] != true {
        return Err("This server only streams".to_owned());
    }
    let messages = body["messages"].as_array().ok_or("messages is required")?;
    let mut open: BTreeSet<String> = BTreeSet::new();
    for (at, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        if role == "tool" {
            let id = message["tool_call_id"].as_str().unwrap_or_default();
            if !open.remove(id) {
                return Err(format!("messages[{at}]: no call {id:?} comes before it"));
            }
            if !message["content"].is_string() {
                return Err(format!("messages[{at}].content must be a string"));
            }
            continue;
        }
        if !open.is_empty() {
            return Err(format!("messages[{at}]: the calls {open:?} have no answer"));
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
            if serde_json::from_str::<serde_json::Map<_, _>>(arguments).is_err() {
                return Err(format!("messages[{at}]: arguments must be an object as JSON"));
            }
            open.insert(call["id"].as_str().unwrap_or_default().to_owned());
        }
        if !matches!(role, "system" | "user" | "assistant") {
            return Err(format!("messages[{at}].role is {role:?}"));
        }
    }
    for tool in body["tools"].as_array().into_iter().flatten() {
        let name = tool["function"]["name"].as_str().unwrap_or_default();
        let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || name.len() > 64 || !name.chars().all(fit) {
            return Err(format!("the tool name {name:?} does not match"));
        }
        if tool["function"]["parameters"]["type"] != "object" {
            return Err(format!("the schema of {name:?} is no object"));
        }
    }
    if body["tools"].as_array().is_some_and(|tools| tools.len() > 128) {
        return Err("tools has more than 128 entries".to_owned());
    }
    if open.is_empty() { Ok(()) } else { Err(format!("the calls {open:?} have no answer")) }
}

pub(super) fn lines(asked: &Asked, piece: &Piece<'_>) -> Vec<String> {
    let chunk = |delta: Value, reason: Option<&str>| chunk(&asked.model, &delta, reason);
    match piece {
        Piece::Start => vec![chunk(json!({"role": "assistant", "content": ""}), None)],
        Piece::Text(text) => vec![chunk(json!({"content": text}), None)],
        Piece::Call { nth, name, arguments } => {
            let first = json!({"tool_calls": [{
                "index": nth, "id": format!("call_{nth}"), "type": "function",
                "function": {"name": name, "arguments": ""},
            }]});
            let mut lines = vec![chunk(first, None)];
            let (front, back) =
                arguments.split_at(arguments.floor_char_boundary(arguments.len() / 2));
            for part in [front, back] {
                let part = json!({"index": nth, "function": {"arguments": part}});
                lines.push(chunk(json!({"tool_calls": [part]}), None));
            }
            lines
        }
        Piece::End { reason, words } => {
            let mut lines = vec![chunk(json!({}), Some(reason))];
            if asked.usage {
                let usage = json!({
                    "prompt_tokens": asked.input_tokens, "completion_tokens": words,
                    "total_tokens": asked.input_tokens.saturating_add(*words as u64),
                });
                let last = json!({
                    "id": "chatcmpl-test", "object": "chat.completion.chunk", "created": 0,
                    "model": asked.model, "choices": [], "usage": usage,
                });
                lines.push(format!("data: {last}\n\n"));
            }
            lines.push("data: [DONE]\n\n".to_owned());
            lines
        }
    }
}

fn chunk(model: &str, delta: &Value, reason: Option<&str>) -> String {
    let chunk = json!({
        "id": "chatcmpl-test", "object": "chat.completion.chunk", "created": 0, "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    });
    format!("data: {chunk}\n\n")
}
