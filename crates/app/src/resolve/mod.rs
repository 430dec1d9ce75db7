//! `POST /internal/resolve`: what an agent is, for the Agents Worker at the moment of a run.
//!
//! The worker proves itself with a `worker+jwt` that is bound to this request, and the run with the
//! agent-access token of its controller. What is answered follows from that token's organization,
//! group, agent and initiator alone; the body says only which version of it the worker has already.
//! Keys and secrets are opened here, for this one answer, and nowhere else.

pub(crate) mod tools;

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use convene_db::{Statement, params};
use convene_hop::{RawRequest, json};
use convene_model::{
    Code, Problem, Timestamp,
    agents::{ResolveRequest, ResolvedAgent},
    claims::{AgentAccessClaims, SCOPE_INVOKE, SCOPE_SUMMARIZE, WorkerClaims, service},
    token::{self, Token, TokenError},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value};

use crate::{
    agents,
    state::AppState,
    tools::hosts,
    web::{
        failure::{self, Answer},
        rows,
    },
};

/// People named to a model at most.
const MAX_PEOPLE: u64 = 1000;

/// The door for the Agents Worker.
pub(crate) fn router(state: &AppState) -> Router {
    Router::new()
        .route("/internal/resolve", post(resolve))
        .fallback(failure::not_found)
        .method_not_allowed_fallback(failure::method_not_allowed)
        .layer(axum::middleware::map_response(no_store))
        .with_state(state.clone())
}

/// The answer holds a key: nobody keeps it.
async fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn resolve(State(state): State<AppState>, request: RawRequest) -> Answer<Response> {
    let run = authorize(&state, &request, state.now())?;
    // An object, which a list without members is not.
    let body: Map<String, Value> = json(&request.body)?;
    let ResolveRequest { known } = serde_json::from_value(Value::Object(body))
        .map_err(|error| Problem::new(Code::InvalidRequest).detail(error.to_string()))?;
    let place = Place::of(&state, &run).await?;
    if known == Some(place.configuration) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(Json(find(&state, &run, place).await?).into_response())
}

/// Verifies both tokens; the worker's is used up only when the run's holds too.
fn authorize(
    state: &AppState,
    request: &RawRequest,
    now: Timestamp,
) -> Result<AgentAccessClaims, Problem> {
    let worker: Token<WorkerClaims> =
        token::authorize(&state.agents_keys, service::APP, request.line(), now, None)?;
    if worker.registered.iss != service::AGENTS {
        return Err(TokenError::UnknownKey.into());
    }
    let claims = token::verify_run(&state.controller_keys, &worker.claims.act, now)?;
    if ![SCOPE_INVOKE, SCOPE_SUMMARIZE].contains(&claims.scope.as_str()) {
        return Err(Problem::new(Code::Forbidden).detail("the token is of another scope"));
    }
    state.worker_replay.use_up(&worker.registered, now)?;
    Ok(claims)
}

fn forbidden(why: &str) -> Problem {
    Problem::new(Code::Forbidden).detail(why)
}

/// Where a run is: a group of its organization that its agent belongs to.
struct Place {
    /// Grows with each change that a run of the workspace could see. Read before everything else, so
    /// that no answer is older than the version that it names.
    configuration: u64,
    tool_hosts: Option<Vec<String>>,
}

impl Place {
    async fn of(state: &AppState, run: &AgentAccessClaims) -> Answer<Self> {
        const GROUP: &str = "SELECT g.org_id, ga.agent_id, o.configuration, o.tool_hosts
            FROM chat_groups g JOIN orgs o ON o.org_id = g.org_id
            LEFT JOIN group_agents ga ON ga.group_id = g.group_id AND ga.agent_id = $2
            WHERE g.group_id = $1";
        let params = params![run.group_id.as_str(), run.agent_id.as_str()];
        let found = state.db.query(Statement::new(GROUP, params)).await?;
        let Some(row) = found.first() else { return Err(Code::GroupNotFound.into()) };
        if row.get::<String>("org_id")? != run.org_id.as_str() {
            return Err(forbidden("the group belongs to another organization").into());
        }
        if row.get::<Option<String>>("agent_id")?.is_none() {
            return Err(forbidden("the agent is not in the group").into());
        }
        Ok(Self {
            configuration: row.get("configuration")?,
            tool_hosts: hosts::parse(row.get("tool_hosts")?)?,
        })
    }
}

async fn find(state: &AppState, run: &AgentAccessClaims, place: Place) -> Answer<ResolvedAgent> {
    let Some(agent) = agents::find(state, &run.org_id, &run.agent_id).await? else {
        return Err(Code::NotFound.into());
    };
    if agent.outside {
        return Err(forbidden("the agent is a process of its own").into());
    }
    let (model, price) = agents::open_model(state, &run.org_id, &agent).await?;
    let tools = tools::of_run(state, run, &agent.config).await?;
    Ok(ResolvedAgent {
        agent_id: agent.agent_id,
        name: agent.name,
        version: place.configuration,
        system_prompt: with_missing(agent.system_prompt, &tools.left_out),
        model,
        price,
        people: people(state, run).await?,
        tools: tools.tools,
        tool_hosts: place.tool_hosts,
    })
}

/// The system prompt, and behind it what the agent has to do without in this run.
fn with_missing(mut prompt: String, left_out: &[String]) -> String {
    if left_out.is_empty() {
        return prompt;
    }
    if !prompt.is_empty() {
        prompt.push_str("\n\n");
    }
    prompt.push_str(
        "These tools of yours are not available in this run. Say so when one of them is needed:",
    );
    for line in left_out {
        prompt.push_str("\n- ");
        prompt.push_str(line);
    }
    prompt
}

/// The people of the group by id.
async fn people(
    state: &AppState,
    run: &AgentAccessClaims,
) -> Answer<BTreeMap<convene_model::UserId, String>> {
    const SQL: &str = "SELECT u.user_id, u.name FROM chat_groups g
        JOIN org_members m ON m.org_id = g.org_id
        JOIN users u ON u.user_id = m.user_id
        WHERE g.group_id = $1 AND (g.is_private = 0 OR EXISTS (SELECT 1 FROM group_members p
            WHERE p.group_id = g.group_id AND p.user_id = m.user_id))
        ORDER BY m.joined_at, u.user_id LIMIT $2";
    let mut people = BTreeMap::new();
    let params = params![run.group_id.as_str(), MAX_PEOPLE];
    for row in state.db.query(Statement::new(SQL, params)).await? {
        people.insert(rows::id(&row, "user_id")?, row.get("name")?);
    }
    Ok(people)
}
