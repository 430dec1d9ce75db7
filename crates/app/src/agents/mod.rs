//! The agents of a workspace: who they are and where their model runs.
//!
//! A deleted agent keeps its row, so that what it wrote keeps its author's name. What an agent is
//! in a group (whether it belongs there, what wakes it) belongs to `groups`.

mod api;

use convene_db::{DbError, Row, Statement, params};
use convene_hop::api::{Api, Operation};
use convene_model::{AgentId, Code, GroupId, OrgId, Problem, Timestamp, event::TriggerPolicy};

use crate::{
    secrets::store::{self as secrets, Owner},
    state::{AppState, fresh_id},
    ui::view::AgentView,
    validate,
    web::{failure::Answer, rows},
    workspaces::orgs,
};

/// Agents of one workspace at a time.
pub const MAX_AGENTS_PER_ORG: u64 = 200;

/// The name of the agent that a new workspace begins with.
pub const FIRST_AGENT: &str = "Guide";
const FIRST_PROMPT: &str =
    "You are Guide, who shows people around Convene: groups, mentions, agents and invitations.";

/// The API of this part.
pub(crate) fn api() -> Api<AppState> {
    const MANAGE: &[Code] = &[Code::Forbidden, Code::AlreadyExists];
    const LIST: &str = "/api/orgs/{org_id}/agents";
    const ONE: &str = "/api/orgs/{org_id}/agents/{agent_id}";
    Api::new()
        .on(
            Operation::get(LIST, "listAgents", "The workspace's agents.")
                .answers::<Vec<AgentView>>(200),
            api::list,
        )
        .on(
            Operation::post(LIST, "makeAgent", "Make an agent.")
                .body::<api::NewAgent>()
                .answers::<AgentView>(201)
                .problems(MANAGE),
            api::make,
        )
        .on(
            Operation::patch(ONE, "changeAgent", "Change what is given; the rest stays.")
                .body::<api::AgentChange>()
                .answers::<AgentView>(200)
                .problems(MANAGE),
            api::change,
        )
        .on(
            Operation::delete(ONE, "deleteAgent", "Delete an agent.")
                .answers_empty(204)
                .problems(MANAGE),
            api::delete,
        )
}

const COLUMNS: &str =
    "agent_id, name, system_prompt, provider_id, model, is_default, wakes_on, version";

fn view(row: &Row) -> Result<AgentView, DbError> {
    Ok(AgentView {
        agent_id: rows::id(row, "agent_id")?,
        name: row.get("name")?,
        system_prompt: row.get("system_prompt")?,
        provider_id: row.get("provider_id")?,
        model: row.get("model")?,
        is_default: row.get("is_default")?,
        trigger: rows::trigger(row, "wakes_on")?,
    })
}

/// The agents of a workspace, oldest first.
pub(crate) async fn list(state: &AppState, org: &OrgId) -> Answer<Vec<AgentView>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM agents WHERE org_id = $1 AND deleted_at IS NULL
         ORDER BY created_at, agent_id"
    );
    let found = state.db.query(Statement::new(sql, params![org.as_str()])).await?;
    Ok(found.iter().map(view).collect::<Result<_, _>>()?)
}

/// One agent of a workspace and the version of its configuration.
pub(crate) async fn find(
    state: &AppState,
    org: &OrgId,
    agent: &AgentId,
) -> Answer<Option<(AgentView, u64)>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM agents WHERE org_id = $1 AND agent_id = $2 AND deleted_at IS NULL"
    );
    let params = params![org.as_str(), agent.as_str()];
    let found = state.db.query(Statement::new(sql, params)).await?;
    Ok(found.first().map(|row| Ok::<_, DbError>((view(row)?, row.get("version")?))).transpose()?)
}

/// An agent as somebody describes it.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) system_prompt: String,
    pub(crate) provider_id: Option<String>,
    pub(crate) model: String,
    pub(crate) is_default: bool,
    pub(crate) trigger: TriggerPolicy,
}

impl Draft {
    fn checked(self) -> Result<Self, Problem> {
        validate::system_prompt("system_prompt", &self.system_prompt)?;
        Ok(Self {
            name: validate::agent_name("name", &self.name)?,
            model: validate::model("model", &self.model, self.provider_id.is_some())?,
            ..self
        })
    }
}

/// The statement that gives a new workspace its first agent.
pub(crate) fn first_agent(org: &OrgId, now: Timestamp) -> Statement {
    let draft = Draft {
        name: FIRST_AGENT.to_owned(),
        system_prompt: FIRST_PROMPT.to_owned(),
        provider_id: None,
        model: String::new(),
        is_default: true,
        trigger: TriggerPolicy::Mention,
    };
    insert(org, &fresh_id(now), &draft, now)
}

fn insert(org: &OrgId, id: &str, draft: &Draft, now: Timestamp) -> Statement {
    const SQL: &str = "INSERT INTO agents (agent_id, org_id, name, name_key, system_prompt,
        provider_id, model, is_default, wakes_on, version, created_at)
        SELECT $1, $2, $3, $4, $5, $6, $7, CAST($8 AS BIGINT), $9, 1, CAST($10 AS BIGINT)
        WHERE (SELECT count(*) FROM agents WHERE org_id = $2 AND deleted_at IS NULL) < $11
        AND (CAST($6 AS TEXT) IS NULL OR EXISTS
            (SELECT 1 FROM providers p WHERE p.provider_id = $6 AND p.org_id = $2))";
    Statement::new(
        SQL,
        params![
            id,
            org.as_str(),
            &draft.name,
            draft.name.to_ascii_lowercase(),
            &draft.system_prompt,
            draft.provider_id.as_deref(),
            &draft.model,
            draft.is_default,
            rows::trigger_name(draft.trigger),
            now.millis(),
            MAX_AGENTS_PER_ORG
        ],
    )
    .expect_rows()
}

/// Makes an agent.
pub(crate) async fn make(state: &AppState, org: &OrgId, draft: Draft) -> Answer<AgentView> {
    let draft = draft.checked()?;
    provider_exists(state, org, draft.provider_id.as_deref()).await?;
    let now = state.now();
    let id = fresh_id(now);
    match state.db.batch(vec![insert(org, &id, &draft, now), orgs::reconfigured(org)]).await {
        Ok(_) => {}
        Err(DbError::Unmet { .. }) => {
            let sentence = format!("There are {MAX_AGENTS_PER_ORG} agents already.");
            return Err(validate::invalid("name", sentence).into());
        }
        Err(error) => return Err(name_taken(error)),
    }
    let agent_id = AgentId::new(&id).map_err(|_| Problem::new(Code::Internal))?;
    Ok(as_view(agent_id, draft))
}

/// Changes an agent. Groups learn of another name.
pub(crate) async fn change(
    state: &AppState,
    org: &OrgId,
    agent: &AgentId,
    edit: impl FnOnce(Draft) -> Draft,
) -> Answer<AgentView> {
    // The version guards against two changes at once, of which one would be lost.
    const CHANGE: &str = "UPDATE agents SET name = $3, name_key = $4, system_prompt = $5,
        provider_id = $6, model = $7, is_default = $8, wakes_on = $9, version = version + 1
        WHERE org_id = $1 AND agent_id = $2 AND deleted_at IS NULL AND version = $10";
    let Some((current, version)) = find(state, org, agent).await? else {
        return Err(Code::NotFound.into());
    };
    let was = (current.name.clone(), current.provider_id.clone());
    let draft = edit(Draft {
        name: current.name,
        system_prompt: current.system_prompt,
        provider_id: current.provider_id,
        model: current.model,
        is_default: current.is_default,
        trigger: current.trigger,
    })
    .checked()?;
    if draft.provider_id != was.1 {
        provider_exists(state, org, draft.provider_id.as_deref()).await?;
    }
    let change = params![
        org.as_str(),
        agent.as_str(),
        &draft.name,
        draft.name.to_ascii_lowercase(),
        &draft.system_prompt,
        draft.provider_id.as_deref(),
        &draft.model,
        draft.is_default,
        rows::trigger_name(draft.trigger),
        version
    ];
    let mut batch = vec![Statement::new(CHANGE, change).expect_rows()];
    let renamed = draft.name != was.0;
    if renamed {
        batch.push(touch_groups(agent));
    }
    batch.push(orgs::reconfigured(org));
    let answers = state.db.batch(batch).await.map_err(name_taken)?;
    if renamed {
        reconfigure(state, &answers[1])?;
    }
    Ok(as_view(agent.clone(), draft))
}

/// Deletes an agent; it leaves every group.
pub(crate) async fn delete(state: &AppState, org: &OrgId, agent: &AgentId) -> Answer<()> {
    const DELETE: &str = "UPDATE agents SET deleted_at = $3, version = version + 1
        WHERE org_id = $1 AND agent_id = $2 AND deleted_at IS NULL";
    const LEAVE: &str = "DELETE FROM group_agents WHERE agent_id = $1";
    let delete = params![org.as_str(), agent.as_str(), state.now().millis()];
    let mut batch = vec![
        Statement::new(DELETE, delete).expect_rows(),
        touch_groups(agent),
        Statement::new(LEAVE, params![agent.as_str()]),
        orgs::reconfigured(org),
    ];
    batch.extend(secrets::erase_owned(org, &Owner::Agent { agent_id: agent.clone() }));
    match state.db.batch(batch).await {
        Ok(answers) => Ok(reconfigure(state, &answers[1])?),
        Err(DbError::Unmet { .. }) => Err(Code::NotFound.into()),
        Err(error) => Err(error.into()),
    }
}

/// Raises the version of every group that the agent is in, and returns those groups.
fn touch_groups(agent: &AgentId) -> Statement {
    const SQL: &str = "UPDATE chat_groups SET version = version + 1
        WHERE group_id IN (SELECT group_id FROM group_agents WHERE agent_id = $1)
        RETURNING group_id, activated_at";
    Statement::new(SQL, params![agent.as_str()])
}

fn reconfigure(state: &AppState, groups: &[Row]) -> Result<(), DbError> {
    for row in groups {
        let group: GroupId = rows::id(row, "group_id")?;
        if rows::maybe_time(row, "activated_at")?.is_some() {
            state.rooms.reconfigure(&group);
        }
    }
    Ok(())
}

async fn provider_exists(state: &AppState, org: &OrgId, provider: Option<&str>) -> Answer<()> {
    const SQL: &str = "SELECT provider_id FROM providers WHERE org_id = $1 AND provider_id = $2";
    let Some(provider) = provider else { return Ok(()) };
    let params = params![org.as_str(), provider];
    if state.db.query(Statement::new(SQL, params)).await?.is_empty() {
        return Err(validate::invalid("provider_id", "There is no such provider.").into());
    }
    Ok(())
}

fn name_taken(error: DbError) -> crate::web::failure::Failure {
    match error {
        DbError::Unique { .. } => Problem::new(Code::AlreadyExists)
            .detail("Another agent of the workspace has this name.")
            .with("field", "name")
            .into(),
        DbError::Unmet { .. }
        | DbError::Unavailable(_)
        | DbError::Decode { .. }
        | DbError::Other(_) => error.into(),
    }
}

fn as_view(agent_id: AgentId, draft: Draft) -> AgentView {
    AgentView {
        agent_id,
        name: draft.name,
        system_prompt: draft.system_prompt,
        provider_id: draft.provider_id,
        model: draft.model,
        is_default: draft.is_default,
        trigger: draft.trigger,
    }
}
