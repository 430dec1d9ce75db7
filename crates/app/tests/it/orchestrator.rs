//! An Orchestrator that only takes notes, and knows what was said in a group by its numbers alone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{Json, Router, extract::RawQuery, response::IntoResponse};
use convene_hop::{ApiError, RawRequest};
use convene_model::Code;
use http::StatusCode;
use serde_json::{Value, json};

/// The messages of each group that the Orchestrator knows: their events' numbers.
pub(crate) type Talk = Arc<Mutex<HashMap<String, Vec<u64>>>>;

/// What is answered to a call, as status and body, by its method and path; it goes before all else.
pub(crate) type Scripted = Arc<Mutex<HashMap<String, (u16, Value)>>>;

/// Knows the groups in which something was said; says yes to configuration and revocation, and
/// notes what it was asked.
pub(crate) fn orchestrator(
    calls: Arc<Mutex<Vec<String>>>,
    talk: Talk,
    scripted: Scripted,
) -> Router {
    Router::new().fallback(move |RawQuery(query): RawQuery, request: RawRequest| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let line = format!("{} {} {body}", request.method, request.path);
        let script =
            scripted.lock().unwrap().get(&format!("{} {}", request.method, request.path)).cloned();
        let known = request.path.ends_with("/revoke") || request.path.ends_with("/config");
        if known {
            calls.lock().unwrap().push(line);
        }
        let asked: Value = serde_json::from_str(&body).unwrap_or_default();
        let group = match request.path.split('/').nth(2) {
            Some("routing-token") => asked["group_id"].as_str().unwrap_or_default().to_owned(),
            other => other.unwrap_or_default().to_owned(),
        };
        let said = talk.lock().unwrap().get(&group).cloned();
        async move {
            if let Some((status, body)) = script {
                let status = StatusCode::from_u16(status).unwrap();
                if body.is_null() {
                    return status.into_response();
                }
                return (status, Json(body)).into_response();
            }
            if known {
                return StatusCode::NO_CONTENT.into_response();
            }
            let Some(said) = said else {
                return ApiError::from(Code::GroupNotFound).into_response();
            };
            match request.path.as_str() {
                "/infra/routing-token" => {
                    let expires_at = u64::MAX >> 12;
                    Json(json!({"routing_token": "token", "expires_at": expires_at}))
                        .into_response()
                }
                path if path.ends_with("/history") => {
                    Json(history_page(&said, &query.unwrap_or_default())).into_response()
                }
                _ => ApiError::from(Code::NotFound).into_response(),
            }
        }
    })
}

fn history_page(said: &[u64], query: &str) -> Value {
    let query: HashMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let before = query.get("before").map_or(u64::MAX, |before| before.parse().unwrap());
    let limit = query.get("limit").map_or(50, |limit| limit.parse().unwrap());
    let messages: Vec<Value> = (1_u64..)
        .zip(said)
        .filter(|(_, seq)| **seq < before)
        .map(|(nth, seq)| {
            let author = json!({"kind": "user", "id": "somebody"});
            json!({"seq": seq, "at": 1, "message_id": format!("m{nth}"), "author": author,
                "root": format!("m{nth}"), "hop": 0, "nth": nth, "text": "x"})
        })
        .collect();
    let first = messages.len().saturating_sub(limit);
    json!({"messages": messages[first..], "runs": [], "more_before": first > 0,
        "head": said.last(), "history": "h1"})
}
