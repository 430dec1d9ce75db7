//! Trying out a provider, an MCP server or an agent before a group depends on it: `POST /probe` on
//! the Agents Worker, the only service that calls models and tools.
//!
//! Owns the call and what is kept of its outcome. Decides nothing about who may try what; a refusal
//! of what was tried is an answer here, not an error.

use bytes::Bytes;
use convene_hop::{Hop, Signer};
use convene_model::{
    Code, OrgId, Problem, Timestamp,
    agents::ResolvedModel,
    claims::{AppClaims, service},
    limits::MAX_BODY_BYTES,
    probe::{McpTool, ProbeAnswer, ProbeRequest},
    token::body_hash,
};
use http::{Request, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::state::AppState;

const PATH: &str = "/probe";
/// Bytes of an answer at most: the tools of a server with their schemas.
const MAX_ANSWER_BYTES: usize = 32 * MAX_BODY_BYTES;

/// The way to the Agents Worker, and how the App proves itself to it.
pub(crate) struct Probes {
    hop: Option<Hop>,
    signer: Signer,
}

impl Probes {
    /// Without `hop` nothing can be tried out.
    pub(crate) const fn new(hop: Option<Hop>, signer: Signer) -> Self {
        Self { hop, signer }
    }

    async fn ask(&self, org: &OrgId, request: &ProbeRequest) -> Result<ProbeAnswer, Problem> {
        let Some(hop) = &self.hop else {
            let detail = "The App does not know where the Agents Worker is: its operator has to \
                set agents.urls.";
            return Err(Problem::new(Code::Unavailable).detail(detail));
        };
        let internal = |_| Problem::new(Code::Internal);
        let body = Bytes::from(serde_json::to_vec(request).map_err(internal)?);
        let claims = AppClaims {
            sub: "settings".to_owned(),
            htm: "POST".to_owned(),
            htu: PATH.to_owned(),
            bh: body_hash(&body),
            org_id: Some(org.clone()),
        };
        let token = self.signer.mint(service::AGENTS, claims);
        let request = Request::post(PATH)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|_| Problem::new(Code::Internal))?;
        let answer = hop.call(request, MAX_ANSWER_BYTES).await.map_err(|problem| {
            tracing::warn!(code = problem.code.as_str(), "the Agents Worker did not try it");
            let detail = "The Agents Worker could not try it out. Try again in a moment.";
            Problem::new(Code::Unavailable).detail(detail)
        })?;
        serde_json::from_slice(&answer).map_err(|error| {
            tracing::error!(%error, "the Agents Worker answered with something else");
            Problem::new(Code::Internal)
        })
    }
}

/// Tries something out for a workspace, which may do so only so often.
pub(crate) async fn ask(
    state: &AppState,
    org: &OrgId,
    request: &ProbeRequest,
) -> Result<ProbeAnswer, Problem> {
    state.limits.probes_by_org.take(org.as_str(), state.now())?;
    state.probes.ask(org, request).await
}

/// What a check last found, as it is kept beside what was checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// When it was checked.
    pub at: Timestamp,
    /// Why it did not work, a sentence; absent when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The models that a provider offers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// The tools that an MCP server has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<SeenTool>,
}

/// A tool that an MCP server was seen with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeenTool {
    /// Its name there.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Whether the server says that calls of it change nothing.
    pub read_only: bool,
    /// Why models are not offered it, if they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl Seen {
    /// What an answer says.
    pub(crate) fn of(answer: ProbeAnswer, at: Timestamp) -> Self {
        let none = Self { at, failure: None, models: Vec::new(), tools: Vec::new() };
        match answer {
            ProbeAnswer::Models { models } => Self { models, ..none },
            ProbeAnswer::Mcp(listing) => {
                let seen = |tool: McpTool| SeenTool {
                    name: tool.name,
                    description: tool.description,
                    read_only: tool.read_only,
                    refused: tool.refused,
                };
                Self { tools: listing.tools.into_iter().map(seen).collect(), ..none }
            }
            ProbeAnswer::Failed { detail, .. } => Self { failure: Some(detail), ..none },
            ProbeAnswer::Reply { .. } => none,
        }
    }

    /// What is kept in a column `seen`; nothing before the first check.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// The question which models a provider offers.
pub(crate) const fn models(model: ResolvedModel) -> ProbeRequest {
    ProbeRequest::Models { model }
}

#[cfg(test)]
mod tests {
    use convene_model::probe::McpListing;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_seen_is_kept_and_read_back() {
        let at = Timestamp::from_secs(1_800_000_000);
        let listing = McpListing {
            name: "git".to_owned(),
            version: "1".to_owned(),
            protocol: "2025-11-25".to_owned(),
            tools: vec![McpTool {
                name: "read".to_owned(),
                description: "Reads.".to_owned(),
                read_only: true,
                parameters: json!({}),
                refused: None,
            }],
        };
        let failed = ProbeAnswer::Failed { code: "x".to_owned(), detail: "No.".to_owned() };
        let models = ProbeAnswer::Models { models: vec!["m".to_owned()] };
        for answer in [ProbeAnswer::Mcp(listing), failed, models] {
            let seen = Seen::of(answer, at);
            let text = serde_json::to_string(&seen).unwrap();
            assert_eq!(Seen::parse(&text), Some(seen));
        }
        assert_eq!(Seen::parse(""), None, "before the first check");
    }
}
