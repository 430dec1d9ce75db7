//! Anthropic's messages as the server speaks them.

use std::collections::BTreeSet;

use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::{Asked, Piece};

/// What the real service refuses.
pub(super) fn check(headers: &HeaderMap, body: &Value) -> Result<(), String> {
    if !headers.contains_key("anthropic-version") {
        return Err("anthropic-version: header is required".to_owned());
    }
    if body["max_tokens"].as_u64().is_none() {
        return Err("max_tokens: Field required".to_owned());
    }
    let messages = body["messages"].as_array().ok_or("messages: Field required")?;
    let mut open: BTreeSet<String> = BTreeSet::new();
    let mut marked = 0;
    for (at, message) in messages.iter().enumerate() {
        let expected = if at % 2 == 0 { "user" } else { "assistant" };
        if message["role"] != expected {
            return Err(format!("messages.{at}: roles must alternate"));
        }
        let content = message["content"].as_array().ok_or("content: must be a list of blocks")?;
        if content.is_empty() {
            return Err(format!("messages.{at}: content must not be empty"));
        }
        let mut used = BTreeSet::new();
        for block in content {
            marked += usize::from(!block["cache_control"].is_null());
            let id = |name: &str| block[name].as_str().unwrap_or_default().to_owned();
            match block["type"].as_str() {
                Some("text")
                    if block["text"].as_str().is_some_and(|text| !text.trim().is_empty()) => {}
                Some("tool_use") if block["input"].is_object() => {
                    used.insert(id("id"));
                }
                Some("tool_result") if open.remove(&id("tool_use_id")) => {}
                _ => return Err(format!("messages.{at}: {block} is no block that fits here")),
            }
        }
        if !open.is_empty() {
            return Err(format!("messages.{at}: `tool_use` ids without `tool_result`: {open:?}"));
        }
        open = used;
    }
    for block in body["system"].as_array().into_iter().flatten() {
        marked += usize::from(!block["cache_control"].is_null());
    }
    if marked > 4 {
        return Err("A maximum of 4 blocks with cache_control may be provided".to_owned());
    }
    for tool in body["tools"].as_array().into_iter().flatten() {
        if tool["input_schema"]["type"] != "object" {
            return Err("tools.0.input_schema.type: Field required".to_owned());
        }
    }
    if body["stream"] == true { Ok(()) } else { Err("This server only streams".to_owned()) }
}

pub(super) fn lines(asked: &Asked, piece: &Piece<'_>) -> Vec<String> {
    match piece {
        Piece::Start => {
            let usage = json!({
                "input_tokens": 4, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 1,
                "output_tokens": 1,
            });
            let message = json!({
                "id": "msg_test", "type": "message", "role": "assistant", "model": asked.model,
                "content": [], "stop_reason": null, "usage": usage,
            });
            let block = json!({"type": "text", "text": ""});
            vec![
                event("message_start", &json!({"message": message})),
                event("content_block_start", &json!({"index": 0, "content_block": block})),
                event("ping", &json!({})),
            ]
        }
        Piece::Text(text) => {
            let delta = json!({"type": "text_delta", "text": text});
            vec![event("content_block_delta", &json!({"index": 0, "delta": delta}))]
        }
        Piece::Call { nth, name, arguments } => {
            let index = nth + 1;
            let block = json!({"type": "tool_use", "id": format!("toolu_{nth}"), "name": name, "input": {}});
            let mut lines = vec![event(
                "content_block_start",
                &json!({"index": index, "content_block": block}),
            )];
            let (front, back) =
                arguments.split_at(arguments.floor_char_boundary(arguments.len() / 2));
            for part in ["", front, back] {
                let delta = json!({"type": "input_json_delta", "partial_json": part});
                lines.push(event("content_block_delta", &json!({"index": index, "delta": delta})));
            }
            lines.push(event("content_block_stop", &json!({"index": index})));
            lines
        }
        Piece::End { reason, words } => {
            let reason = match *reason {
                "length" => "max_tokens",
                "content_filter" => "refusal",
                "tool_calls" => "tool_use",
                _ => "end_turn",
            };
            let delta = json!({"stop_reason": reason, "stop_sequence": null});
            let usage = json!({"output_tokens": words});
            vec![
                event("message_delta", &json!({"delta": delta, "usage": usage})),
                event("message_stop", &json!({})),
            ]
        }
    }
}

fn event(name: &str, data: &Value) -> String {
    let mut data = data.clone();
    data["type"] = name.into();
    format!("event: {name}\ndata: {data}\n\n")
}
