//! The agents of a workspace: who they are and where their model runs.
//!
//! A deleted agent keeps its row, so that what it wrote keeps its author's name. What an agent is
//! in a group (whether it belongs there, what wakes it) belongs to `groups`.

mod api;
pub mod config;
pub(crate) mod tokens;

use convene_db::{DbError, Row, Statement, params};
use convene_hop::api::{Api, Operation};
use convene_model::{
    AgentId, Code, GroupId, OrgId, Problem, Timestamp, UserId,
    agents::{ModelPrice, ResolvedModel},
    event::TriggerPolicy,
    probe::{ProbeAnswer, ProbeRequest},
};
use serde_json::json;

use self::config::{AgentConfig, Visibility};
use crate::{
    identity::caller::Caller,
    objects::{self, Guard},
    probing, providers,
    secrets::store::{self as secrets, Owner},
    state::{AppState, fresh_id},
    ui::view::{AgentView, OrgView},
    validate,
    web::{failure::Answer, rows},
    workspaces::audit::{self, Action},
};

/// Agents of one workspace at a time.
pub const MAX_AGENTS_PER_ORG: u64 = 200;

/// Bytes of the question of a test run.
pub const MAX_TRIAL_BYTES: usize = 4096;

/// The name of the agent that a new workspace begins with.
pub const FIRST_AGENT: &str = "Guide";
const FIRST_PROMPT: &str =
    "You are Guide, who shows people around Convene: groups, mentions, agents and invitations.";

/// The API of this part.
pub(crate) fn api() -> Api<AppState> {
    const MANAGE: &[Code] = &[Code::Forbidden, Code::AlreadyExists, Code::Conflict];
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
        .on(
            Operation::post(
                "/api/orgs/{org_id}/agents/{agent_id}/try",
                "tryAgent",
                "Ask an agent's model one question, without tools and outside of any group.",
            )
            .body::<api::TryBody>()
            .answers::<ProbeAnswer>(200)
            .problems(&[Code::Forbidden, Code::RateLimited]),
            api::try_out,
        )
        .merge(tokens::api())
}

const COLUMNS: &str = "agent_id, name, system_prompt, provider_id, model, is_default, wakes_on,
    visibility, made_by, config, outside, version";

fn view(row: &Row) -> Result<AgentView, DbError> {
    let made_by: String = row.get("made_by")?;
    Ok(AgentView {
        agent_id: rows::id(row, "agent_id")?,
        name: row.get("name")?,
        system_prompt: row.get("system_prompt")?,
        provider_id: row.get("provider_id")?,
        model: row.get("model")?,
        is_default: row.get("is_default")?,
        trigger: rows::trigger(row, "wakes_on")?,
        visibility: Visibility::parse(&row.get::<String>("visibility")?)?,
        made_by: if made_by.is_empty() { None } else { Some(rows::id(row, "made_by")?) },
        config: AgentConfig::parse(&row.get::<String>("config")?)?,
        outside: row.get("outside")?,
        version: row.get("version")?,
    })
}

/// The agents of a workspace that somebody may see, oldest first.
pub(crate) async fn list(
    state: &AppState,
    org: &OrgView,
    caller: &Caller,
) -> Answer<Vec<AgentView>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM agents WHERE org_id = $1 AND deleted_at IS NULL
         AND (visibility = 'workspace' OR made_by = $2 OR $3 = 1)
         ORDER BY created_at, agent_id"
    );
    let params = params![org.org_id.as_str(), caller.id().as_str(), org.role.manages()];
    let found = state.db.query(Statement::new(sql, params)).await?;
    Ok(found.iter().map(view).collect::<Result<_, _>>()?)
}

/// One agent of a workspace.
pub(crate) async fn find(
    state: &AppState,
    org: &OrgId,
    agent: &AgentId,
) -> Answer<Option<AgentView>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM agents WHERE org_id = $1 AND agent_id = $2 AND deleted_at IS NULL"
    );
    let params = params![org.as_str(), agent.as_str()];
    let found = state.db.query(Statement::new(sql, params)).await?;
    Ok(found.first().map(view).transpose()?)
}

/// An agent as somebody describes it.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) system_prompt: String,
    pub(crate) provider_id: Option<String>,
    pub(crate) model: String,
    pub(crate) is_default: bool,
    pub(crate) trigger: TriggerPolicy,
    pub(crate) visibility: Visibility,
    pub(crate) config: AgentConfig,
    /// Whether it is a process of somebody else's.
    pub(crate) outside: bool,
}

impl Draft {
    fn checked(self) -> Result<Self, Problem> {
        validate::system_prompt("system_prompt", &self.system_prompt)?;
        if self.is_default && self.visibility == Visibility::Owner {
            let sentence = "Groups of others cannot begin with an agent that only you may use.";
            return Err(validate::invalid("is_default", sentence));
        }
        if self.outside && self.provider_id.is_some() {
            let sentence = "An outside agent brings its own model.";
            return Err(validate::invalid("provider_id", sentence));
        }
        if self.outside && self.config != AgentConfig::default() {
            return Err(validate::invalid("config", "An outside agent brings its own tools."));
        }
        if self.outside && !self.system_prompt.is_empty() {
            let sentence = "An outside agent is told by its own process what it is.";
            return Err(validate::invalid("system_prompt", sentence));
        }
        Ok(Self {
            name: validate::agent_name("name", &self.name)?,
            model: validate::model("model", &self.model, self.provider_id.is_some())?,
            ..self
        })
    }

    /// What it refers to and the agent did not refer to before.
    fn guards(&self, org: &OrgId, former: Option<&AgentView>) -> Result<Vec<Guard>, Problem> {
        const PROVIDER: &str =
            "SELECT provider_id FROM providers WHERE org_id = $1 AND provider_id = $2";
        let mut guards = self.config.guards(org)?;
        if let Some(provider) = &self.provider_id
            && former.is_none_or(|former| former.provider_id.as_ref() != Some(provider))
        {
            let sentence = "There is no such provider.";
            let ask = Statement::new(PROVIDER, params![org.as_str(), provider]);
            guards.push(Guard::new(ask, validate::invalid("provider_id", sentence)));
        }
        Ok(guards)
    }

    fn config(&self) -> Result<String, Problem> {
        serde_json::to_string(&self.config).map_err(|_| Problem::new(Code::Internal))
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
        visibility: Visibility::Workspace,
        config: AgentConfig::default(),
        outside: false,
    };
    insert(org, None, &fresh_id(now), &draft, "{}", now)
}

fn insert(
    org: &OrgId,
    by: Option<&UserId>,
    id: &str,
    draft: &Draft,
    config: &str,
    now: Timestamp,
) -> Statement {
    const SQL: &str = "INSERT INTO agents (agent_id, org_id, name, name_key, system_prompt,
        provider_id, model, is_default, wakes_on, version, created_at, visibility, made_by, config,
        outside)
        SELECT $1, $2, $3, $4, $5, $6, $7, CAST($8 AS BIGINT), $9, 1, CAST($10 AS BIGINT),
        $12, $13, $14, CAST($15 AS BIGINT)
        WHERE (SELECT count(*) FROM agents WHERE org_id = $2 AND deleted_at IS NULL) < $11";
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
            MAX_AGENTS_PER_ORG,
            draft.visibility.as_str(),
            by.map_or("", UserId::as_str),
            config,
            draft.outside
        ],
    )
    .expect_rows()
}

/// Makes an agent.
pub(crate) async fn make(
    state: &AppState,
    org: &OrgId,
    caller: &Caller,
    draft: Draft,
) -> Answer<AgentView> {
    let draft = draft.checked()?;
    let (guards, config) = (draft.guards(org, None)?, draft.config()?);
    let (by, now) = (caller.id(), state.now());
    let id = fresh_id(now);
    let batch = vec![
        insert(org, Some(by), &id, &draft, &config, now),
        audit::record(org, by, Action::AgentMade, &id, &json!({"name": &draft.name}), now),
    ];
    let full = || {
        let sentence = format!("There are {MAX_AGENTS_PER_ORG} agents already.");
        validate::invalid("name", sentence)
    };
    objects::commit(state, org, guards, batch, full, name_taken).await?;
    let agent_id = AgentId::new(&id).map_err(|_| Problem::new(Code::Internal))?;
    Ok(as_view(agent_id, draft, Some(by.clone()), 1))
}

/// Changes an agent. Groups learn of another name.
///
/// With `version`, only from that version on; two changes at once never lose one of them.
pub(crate) async fn change(
    state: &AppState,
    org: &OrgId,
    caller: &Caller,
    agent: &AgentId,
    version: Option<u64>,
    edit: impl FnOnce(Draft) -> Draft,
) -> Answer<AgentView> {
    const CHANGE: &str = "UPDATE agents SET name = $3, name_key = $4, system_prompt = $5,
        provider_id = $6, model = $7, is_default = $8, wakes_on = $9, visibility = $11,
        config = $12, version = version + 1
        WHERE org_id = $1 AND agent_id = $2 AND deleted_at IS NULL AND version = $10";
    let Some(current) = find(state, org, agent).await? else {
        return Err(Code::NotFound.into());
    };
    let version = version.unwrap_or(current.version);
    let draft = edit(Draft {
        name: current.name.clone(),
        system_prompt: current.system_prompt.clone(),
        provider_id: current.provider_id.clone(),
        model: current.model.clone(),
        is_default: current.is_default,
        trigger: current.trigger,
        visibility: current.visibility,
        config: current.config.clone(),
        outside: current.outside,
    })
    .checked()?;
    let (guards, config) = (draft.guards(org, Some(&current))?, draft.config()?);
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
        version,
        draft.visibility.as_str(),
        config
    ];
    let (by, changed, detail) = (caller.id(), Action::AgentChanged, json!({"name": &draft.name}));
    let mut batch = vec![
        Statement::new(CHANGE, change).expect_rows(),
        audit::record(org, by, changed, agent.as_str(), &detail, state.now()),
    ];
    let renamed = draft.name != current.name;
    if renamed {
        batch.push(touch_groups(agent));
    }
    let answers = objects::commit(state, org, guards, batch, objects::stale, name_taken).await?;
    if renamed {
        reconfigure(state, &answers[2]).await?;
    }
    Ok(as_view(agent.clone(), draft, current.made_by, version + 1))
}

/// Where an agent's model runs, with the key that it wants, and what it costs: for the moment of use.
pub(crate) async fn open_model(
    state: &AppState,
    org: &OrgId,
    agent: &AgentView,
) -> Answer<(ResolvedModel, Option<ModelPrice>)> {
    let Some(provider) = &agent.provider_id else { return Ok((ResolvedModel::Demo, None)) };
    let found = providers::open(state, org, provider, agent.model.clone()).await?;
    found.ok_or_else(|| {
        let detail = "The agent's provider is not there or has no key. See the settings.";
        Problem::new(Code::NotFound).detail(detail).into()
    })
}

/// Asks an agent's model one question.
async fn try_out(
    state: &AppState,
    org: &OrgId,
    agent: &AgentId,
    text: String,
) -> Answer<ProbeAnswer> {
    if text.trim().is_empty() || text.len() > MAX_TRIAL_BYTES {
        let sentence = format!("A question has 1 to {MAX_TRIAL_BYTES} bytes.");
        return Err(validate::invalid("text", sentence).into());
    }
    let Some(agent) = find(state, org, agent).await? else { return Err(Code::NotFound.into()) };
    if agent.outside {
        let sentence = "An outside agent is tried in a group: its model is not here.";
        return Err(validate::invalid("agent_id", sentence).into());
    }
    let (model, price) = open_model(state, org, &agent).await?;
    let request = ProbeRequest::Reply { model, system_prompt: agent.system_prompt, text, price };
    Ok(probing::ask(state, org, &request).await?)
}

/// What must hold so that somebody may put an agent into a group, as an SQL condition on `agents`
/// whose parameter `user` is the person.
pub(crate) fn usable(user: &str) -> String {
    format!("deleted_at IS NULL AND (visibility = 'workspace' OR made_by = {user})")
}

/// Deletes an agent; it leaves every group, and its own secrets go with it.
pub(crate) async fn delete(
    state: &AppState,
    org: &OrgId,
    caller: &Caller,
    agent: &AgentId,
) -> Answer<()> {
    const DELETE: &str = "UPDATE agents SET deleted_at = $3, version = version + 1
        WHERE org_id = $1 AND agent_id = $2 AND deleted_at IS NULL";
    const LEAVE: &str = "DELETE FROM group_agents WHERE agent_id = $1";
    let Some(current) = find(state, org, agent).await? else {
        return Err(Code::NotFound.into());
    };
    let (by, now, detail) = (caller.id(), state.now(), json!({"name": current.name}));
    let delete = params![org.as_str(), agent.as_str(), now.millis()];
    let mut batch = vec![
        Statement::new(DELETE, delete).expect_rows(),
        touch_groups(agent),
        Statement::new(LEAVE, params![agent.as_str()]),
        audit::record(org, by, Action::AgentDeleted, agent.as_str(), &detail, now),
        tokens::erase(agent),
    ];
    crate::changes::note(&mut batch, &tokens::changed(agent)?);
    batch.extend(secrets::erase_owned(org, &Owner::Agent { agent_id: agent.clone() }));
    let gone = || Problem::new(Code::NotFound);
    let answers = objects::commit(state, org, Vec::new(), batch, gone, name_taken).await?;
    Ok(reconfigure(state, &answers[1]).await?)
}

/// Raises the version of every group that the agent is in, and returns those groups.
fn touch_groups(agent: &AgentId) -> Statement {
    const SQL: &str = "UPDATE chat_groups SET version = version + 1
        WHERE group_id IN (SELECT group_id FROM group_agents WHERE agent_id = $1)
        RETURNING group_id, activated_at";
    Statement::new(SQL, params![agent.as_str()])
}

/// Tells groups of an agent that has another name or is gone, all at the same time. One that does not
/// answer learns it later: what a run may read is asked when it begins.
async fn reconfigure(state: &AppState, groups: &[Row]) -> Result<(), DbError> {
    let mut told = Vec::new();
    for row in groups {
        let group: GroupId = rows::id(row, "group_id")?;
        if rows::maybe_time(row, "activated_at")?.is_some() {
            told.push(state.rooms.reconfigure(&group));
        }
    }
    for told in told {
        let _ = told.await;
    }
    Ok(())
}

fn name_taken() -> Problem {
    Problem::new(Code::AlreadyExists)
        .detail("Another agent of the workspace has this name.")
        .with("field", "name")
}

fn as_view(agent_id: AgentId, draft: Draft, made_by: Option<UserId>, version: u64) -> AgentView {
    AgentView {
        agent_id,
        name: draft.name,
        system_prompt: draft.system_prompt,
        provider_id: draft.provider_id,
        model: draft.model,
        is_default: draft.is_default,
        trigger: draft.trigger,
        visibility: draft.visibility,
        made_by,
        config: draft.config,
        outside: draft.outside,
        version,
    }
}
