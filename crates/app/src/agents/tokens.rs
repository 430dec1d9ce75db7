//! Tokens of outside agents: `cva_` and 256 random bits, kept as a digest, shown once.
//!
//! A token opens the groups that its agent takes part in, and nothing else. In the rooms an agent goes
//! by its id as a user does: ids are never those of both.

use std::{collections::HashSet, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use convene_db::{Database, DbError, Statement, params};
use convene_hop::{
    ApiJson,
    api::{Api, Operation},
};
use convene_model::{AgentId, Code, GroupId, OrgId, Problem, UserId};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::find as find_agent;
use crate::{
    changes::Change,
    identity::{
        bearer,
        caller::Caller,
        tokens,
        touches::{Holder, PRECISION},
    },
    rooms::Proof,
    state::{AppState, fresh_id},
    ui::view::TokenView,
    validate,
    web::{extract::Ids, failure::Answer, rows},
    workspaces::{
        audit::{self, Action},
        orgs,
    },
};

/// How long after a use of its token an agent may still be at another App process, which notes the uses of
/// what is open there once in [`PRECISION`].
const SEEN_FOR: Duration = PRECISION.saturating_mul(2);

/// What every agent's token begins with, so that a leaked one is recognised.
pub(crate) const PREFIX: &str = "cva_";
/// Tokens of one agent at a time.
pub(crate) const MAX_TOKENS_PER_AGENT: u64 = 10;

/// The API of this part.
pub(crate) fn api() -> Api<AppState> {
    const LIST: &str = "/api/orgs/{org_id}/agents/{agent_id}/tokens";
    const ONE: &str = "/api/orgs/{org_id}/agents/{agent_id}/tokens/{token_id}";
    Api::new()
        .on(
            Operation::get(LIST, "listAgentTokens", "What an outside agent proves itself by.")
                .answers::<Vec<TokenView>>(200)
                .problems(&[Code::Forbidden, Code::ValidationFailed]),
            list,
        )
        .on(
            Operation::post(
                LIST,
                "makeAgentToken",
                "A token for an outside agent, shown this once.",
            )
            .body::<NewAgentToken>()
            .answers::<MadeAgentToken>(201)
            .problems(&[Code::Forbidden]),
            make,
        )
        .on(
            Operation::delete(ONE, "revokeAgentToken", "Void a token; what is open with it ends.")
                .answers_empty(204)
                .problems(&[Code::Forbidden, Code::ValidationFailed]),
            revoke,
        )
}

/// An agent whose token was found to hold.
#[derive(Debug, Clone)]
pub(crate) struct AgentCaller {
    pub(crate) agent_id: AgentId,
    token_id: String,
}

impl AgentCaller {
    /// As whom it is known in the rooms.
    pub(crate) fn user(&self) -> Result<UserId, Problem> {
        as_user(&self.agent_id)
    }

    /// What proved it.
    pub(crate) fn proof(&self) -> Proof {
        let (id, token_id) = (proof_id(&self.token_id), Some(self.token_id.clone()));
        Proof { id, expires_at: None, is_agent: true, token_id }
    }
}

fn proof_id(token_id: &str) -> String {
    format!("agent token {token_id}")
}

/// An agent as the rooms know it.
pub(crate) fn as_user(agent: &AgentId) -> Result<UserId, Problem> {
    UserId::new(agent.as_str()).map_err(|_| Code::Internal.into())
}

/// That what an agent may do has changed.
pub(crate) fn changed(agent: &AgentId) -> Result<Change, Problem> {
    Ok(Change::User(as_user(agent)?))
}

/// The statement that voids all tokens of an agent.
pub(crate) fn erase(agent: &AgentId) -> Statement {
    const SQL: &str = "DELETE FROM agent_tokens WHERE agent_id = $1";
    Statement::new(SQL, params![agent.as_str()])
}

/// Whose token it is; its last use is noted.
pub(crate) async fn find(state: &AppState, token: &str) -> Answer<Option<AgentCaller>> {
    const FIND: &str = "SELECT t.token_id, t.agent_id, t.last_used_at FROM agent_tokens t
        JOIN agents a ON a.agent_id = t.agent_id
        WHERE t.token_hash = $1 AND a.deleted_at IS NULL";
    let params = params![tokens::digest(token)];
    let found = state.db.query(Statement::new(FIND, params)).await?;
    let Some(row) = found.first() else { return Ok(None) };
    let token_id: String = row.get("token_id")?;
    let noted = rows::maybe_time(row, "last_used_at")?;
    state.touches.note(state, Holder::Agent, &token_id, noted, state.now());
    Ok(Some(AgentCaller { agent_id: rows::id(row, "agent_id")?, token_id }))
}

/// Whether a user is an outside agent that takes part in a group.
pub(crate) async fn is_in(
    db: &dyn Database,
    group: &GroupId,
    user: &UserId,
) -> Result<bool, DbError> {
    const SQL: &str = "SELECT a.agent_id FROM group_agents ga
        JOIN agents a ON a.agent_id = ga.agent_id
        WHERE ga.group_id = $1 AND ga.agent_id = $2 AND a.outside = 1 AND a.deleted_at IS NULL";
    let params = params![group.as_str(), user.as_str()];
    Ok(!db.query(Statement::new(SQL, params)).await?.is_empty())
}

/// That an agent takes part in a group; to one that does not the group does not exist.
pub(crate) async fn enter(state: &AppState, group: &GroupId, agent: &AgentCaller) -> Answer<()> {
    if is_in(&*state.db, group, &agent.user()?).await? {
        return Ok(());
    }
    Err(Code::GroupNotFound.into())
}

/// The ids of the proofs of an agent that hold; of somebody who is no agent there are none.
pub(crate) async fn proofs_of(state: &AppState, user: &UserId) -> Answer<HashSet<String>> {
    const SQL: &str = "SELECT token_id FROM agent_tokens WHERE agent_id = $1";
    let mut held = HashSet::new();
    for row in state.db.query(Statement::new(SQL, params![user.as_str()])).await? {
        held.insert(proof_id(&row.get::<String>("token_id")?));
    }
    Ok(held)
}

/// The tokens of an agent, the newest first.
pub(crate) async fn of(state: &AppState, agent: &AgentId) -> Answer<Vec<TokenView>> {
    const SQL: &str = "SELECT token_id, name, created_at, last_used_at FROM agent_tokens
        WHERE agent_id = $1 ORDER BY created_at DESC, token_id DESC";
    let found = state.db.query(Statement::new(SQL, params![agent.as_str()])).await?;
    Ok(found.iter().map(bearer::view).collect::<Result<_, _>>()?)
}

/// Whether an agent's process is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It has a socket at this App process.
    Here,
    /// A token of its was in use a moment ago: perhaps it has a socket at another App process.
    LatelySeen,
    /// It is not.
    Away,
}

/// How an agent with these tokens can be reached now. What was let in by a token that is void is about
/// to be shut out.
pub(crate) fn reach(
    state: &AppState,
    agent: &AgentId,
    held: &[TokenView],
) -> Result<Reach, Problem> {
    let now = state.now();
    let lately = |token: &TokenView| token.last_used_at.is_some_and(|at| now.since(at) <= SEEN_FOR);
    Ok(match held {
        [] => Reach::Away,
        _ if state.rooms.has_sockets(&as_user(agent)?) => Reach::Here,
        _ if held.iter().any(lately) => Reach::LatelySeen,
        _ => Reach::Away,
    })
}

async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, agent)): Ids<(OrgId, AgentId)>,
) -> Answer<Json<Vec<TokenView>>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    outside(&state, &org.org_id, &agent).await?;
    Ok(Json(of(&state, &agent).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewAgentToken {
    name: String,
}

#[derive(Serialize, JsonSchema)]
struct MadeAgentToken {
    #[serde(flatten)]
    view: TokenView,
    /// The token itself, shown this once.
    token: String,
}

async fn make(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, agent)): Ids<(OrgId, AgentId)>,
    ApiJson(body): ApiJson<NewAgentToken>,
) -> Answer<Response> {
    const INSERT: &str =
        "INSERT INTO agent_tokens (token_id, token_hash, agent_id, name, created_at)
        SELECT $1, $2, agent_id, $4, CAST($5 AS BIGINT) FROM agents
        WHERE agent_id = $3 AND outside = 1 AND deleted_at IS NULL
        AND (SELECT count(*) FROM agent_tokens WHERE agent_id = $3) < $6";
    let org = orgs::manage(&state, &org, &caller).await?;
    let name = validate::name("name", &body.name)?;
    outside(&state, &org.org_id, &agent).await?;
    let (now, token) = (state.now(), format!("{PREFIX}{}", tokens::fresh()?));
    let token_id = fresh_id(now);
    let insert = params![
        &token_id,
        tokens::digest(&token),
        agent.as_str(),
        &name,
        now.millis(),
        MAX_TOKENS_PER_AGENT
    ];
    let detail = json!({"token_id": token_id, "name": name});
    let (action, subject) = (Action::AgentTokenMade, agent.as_str());
    let record = audit::record(&org.org_id, caller.id(), action, subject, &detail, now);
    match state.db.batch(vec![Statement::new(INSERT, insert).expect_rows(), record]).await {
        Ok(_) => {}
        Err(DbError::Unmet { .. }) => {
            let sentence = format!("There are {MAX_TOKENS_PER_AGENT} tokens already.");
            return Err(validate::invalid("name", sentence).into());
        }
        Err(error) => return Err(error.into()),
    }
    let view = TokenView { token_id, name, created_at: now, last_used_at: None };
    Ok((StatusCode::CREATED, Json(MadeAgentToken { view, token })).into_response())
}

async fn revoke(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, agent, token_id)): Ids<(OrgId, AgentId, String)>,
) -> Answer<StatusCode> {
    const SQL: &str = "DELETE FROM agent_tokens WHERE agent_id = $1 AND token_id = $2";
    let org = orgs::manage(&state, &org, &caller).await?;
    outside(&state, &org.org_id, &agent).await?;
    let delete = Statement::new(SQL, params![agent.as_str(), &token_id]).expect_rows();
    let (action, subject) = (Action::AgentTokenRevoked, agent.as_str());
    let detail = json!({"token_id": token_id});
    let record = audit::record(&org.org_id, caller.id(), action, subject, &detail, state.now());
    match state.commit(vec![delete, record], &[changed(&agent)?]).await {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(DbError::Unmet { .. }) => Err(Code::NotFound.into()),
        Err(error) => Err(error.into()),
    }
}

/// That an agent of a workspace is one that has tokens.
async fn outside(state: &AppState, org: &OrgId, agent: &AgentId) -> Answer<()> {
    let Some(agent) = find_agent(state, org, agent).await? else {
        return Err(Code::NotFound.into());
    };
    if agent.outside {
        return Ok(());
    }
    let detail = "Only an outside agent has tokens; this one answers by a model.";
    Err(Problem::new(Code::ValidationFailed).detail(detail).into())
}
