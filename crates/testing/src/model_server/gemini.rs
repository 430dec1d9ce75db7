//! Google's Gemini API as the server speaks it.

use serde_json::{Value, json};

use super::Piece;

/// The signature that comes with calls and must come back with them.
const SIGNATURE: &str = "c2lnbmF0dXJl";

/// What the real service refuses.
pub(super) fn check(body: &Value) -> Result<(), String> {
    let contents = body["contents"].as_array().ok_or("contents is not specified")?;
    let mut open: Vec<Value> = Vec::new();
    for content in contents {
        let parts = content["parts"].as_array().ok_or("contents.parts must not be empty")?;
        let answers: Vec<_> =
            parts.iter().filter(|part| !part["functionResponse"].is_null()).collect();
        let names: Vec<_> =
            answers.iter().map(|part| part["functionResponse"]["name"].clone()).collect();
        if names != open {
            return Err(
                "Please ensure that the number of function response parts is equal to the \
                        number of function call parts of the function call turn."
                    .to_owned(),
            );
        }
        open.clear();
        for part in parts.iter().filter(|part| !part["functionCall"].is_null()) {
            if content["role"] != "model" || !part["functionCall"]["args"].is_object() {
                return Err("A function call must be the model's and have args".to_owned());
            }
            if part["thoughtSignature"] != SIGNATURE {
                return Err("Function call is missing a thought_signature.".to_owned());
            }
            open.push(part["functionCall"]["name"].clone());
        }
        if parts.is_empty() || !matches!(content["role"].as_str(), Some("user" | "model")) {
            return Err("Please use a valid role: user, model.".to_owned());
        }
    }
    if open.is_empty() { Ok(()) } else { Err("A function call has no response".to_owned()) }
}

pub(super) fn lines(piece: &Piece<'_>) -> Vec<String> {
    match piece {
        Piece::Start => Vec::new(),
        Piece::Text(text) => vec![chunk(&json!([{"text": text}]), None, 0)],
        Piece::Call { name, arguments, .. } => {
            // The service parses calls itself: what is no object does not arrive as one.
            match serde_json::from_str::<serde_json::Map<String, Value>>(arguments) {
                Ok(args) => {
                    let call = json!({"name": name, "args": args});
                    let part = json!({"functionCall": call, "thoughtSignature": SIGNATURE});
                    vec![chunk(&json!([part]), None, 0)]
                }
                Err(_) => vec![chunk(&json!([]), Some("MALFORMED_FUNCTION_CALL"), 0)],
            }
        }
        Piece::End { reason, words } => {
            let reason = match *reason {
                "length" => "MAX_TOKENS",
                "content_filter" => "SAFETY",
                _ => "STOP",
            };
            vec![chunk(&json!([{"text": ""}]), Some(reason), *words)]
        }
    }
}

fn chunk(parts: &Value, reason: Option<&str>, words: usize) -> String {
    let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
    if let Some(reason) = reason {
        candidate["finishReason"] = reason.into();
    }
    let usage = json!({
        "promptTokenCount": 10, "candidatesTokenCount": words, "totalTokenCount": 10 + words,
    });
    format!("data: {}\n\n", json!({"candidates": [candidate], "usageMetadata": usage}))
}
