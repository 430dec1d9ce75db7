//! An Agents Worker that says what it was asked to try: the secrets' lengths, never the secrets.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::{Json, Router, extract::State, routing::post};
use convene_hop::RawRequest;
use convene_model::{
    Timestamp,
    agents::ResolvedModel,
    claims::{AppClaims, service},
    keys::TrustedKeys,
    probe::{McpListing, McpTool, ProbeAnswer, ProbeRequest},
    token,
};
use serde_json::json;

use crate::support::key;

/// Its routes.
pub(crate) fn agents_worker(now: Arc<AtomicU64>) -> Router {
    Router::new().route("/probe", post(probe)).with_state(now)
}

async fn probe(State(now): State<Arc<AtomicU64>>, request: RawRequest) -> Json<ProbeAnswer> {
    let keys = TrustedKeys::of(service::APP, &key(service::APP).jwks()).unwrap();
    let now = Timestamp::from_millis(now.load(Ordering::SeqCst));
    token::authorize::<AppClaims>(&keys, service::AGENTS, request.line(), now, None).unwrap();
    Json(match serde_json::from_slice(&request.body).unwrap() {
        ProbeRequest::Models {
            model: ResolvedModel::OpenaiCompatible { base_url, api_key, .. },
        } => {
            if base_url.contains("wrong") {
                let detail = "The provider refused the key.".to_owned();
                ProbeAnswer::Failed { code: "provider_unauthorized".to_owned(), detail }
            } else {
                let bytes = api_key.map_or(0, |key| key.expose().len());
                ProbeAnswer::Models { models: vec![format!("with-a-key-of-{bytes}")] }
            }
        }
        ProbeRequest::Models { .. } => ProbeAnswer::Models { models: vec!["m".to_owned()] },
        ProbeRequest::Reply { system_prompt, text, .. } => {
            ProbeAnswer::Reply { text: format!("{system_prompt} {text}"), usage: None }
        }
        ProbeRequest::Mcp { server, .. } => {
            let sent: usize = server.headers.iter().map(|one| one.value.expose().len()).sum();
            ProbeAnswer::Mcp(McpListing {
                name: server.name,
                version: "1".to_owned(),
                protocol: "2025-11-25".to_owned(),
                tools: vec![McpTool {
                    name: format!("read_with_{sent}"),
                    description: "Reads.".to_owned(),
                    read_only: true,
                    parameters: json!({"type": "object"}),
                    refused: None,
                }],
            })
        }
    })
}
