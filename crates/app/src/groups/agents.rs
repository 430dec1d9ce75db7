//! Which agents take part in a group, and what wakes them there.

use convene_db::{DbError, Statement, params};
use convene_model::{
    AgentId,
    event::{GroupAgent, TriggerPolicy},
    limits::MAX_AGENTS_PER_GROUP,
};

use super::{
    make::distinct,
    store::{Group, is_activated},
};
use crate::{
    state::AppState,
    validate,
    web::{failure::Answer, rows},
};

/// The agents of a group, in their order.
pub(crate) async fn list(state: &AppState, group: &Group) -> Answer<Vec<GroupAgent>> {
    const SQL: &str = "SELECT a.agent_id, a.name, ga.wakes_on FROM group_agents ga
        JOIN agents a ON a.agent_id = ga.agent_id
        WHERE ga.group_id = $1 ORDER BY ga.place, a.created_at, a.agent_id";
    let mut agents = Vec::new();
    for row in state.db.query(Statement::new(SQL, params![group.id().as_str()])).await? {
        agents.push(GroupAgent {
            agent_id: rows::id(&row, "agent_id")?,
            name: row.get("name")?,
            trigger: rows::trigger(&row, "wakes_on")?,
        });
    }
    Ok(agents)
}

/// What of a group's agents is changed; what is absent stays.
pub(super) struct Change {
    pub(super) agents: Option<Vec<(AgentId, TriggerPolicy)>>,
    pub(super) paused: Option<bool>,
}

/// Sets the agents of a group, in this order, and whether they are paused.
pub(super) async fn set(state: &AppState, group: &Group, change: Change) -> Answer<()> {
    const GROUP: &str = "UPDATE chat_groups SET version = version + 1, paused = $2
        WHERE group_id = $1";
    const FORGET: &str = "DELETE FROM group_agents WHERE group_id = $1";
    const ADD: &str = "INSERT INTO group_agents (group_id, agent_id, wakes_on, place)
        SELECT $1, agent_id, $4, CAST($5 AS BIGINT) FROM agents
        WHERE org_id = $2 AND agent_id = $3 AND deleted_at IS NULL";
    let (id, org) = (group.id().as_str(), group.org().as_str());
    let paused = change.paused.unwrap_or(group.paused);
    let mut batch = vec![Statement::new(GROUP, params![id, paused]).expect_rows()];
    if let Some(agents) = change.agents {
        let ids: Vec<_> = agents.iter().map(|(agent, _)| agent).collect();
        if distinct("agents", &ids, MAX_AGENTS_PER_GROUP)?.len() < ids.len() {
            return Err(validate::invalid("agents", "An agent is named twice.").into());
        }
        batch.push(Statement::new(FORGET, params![id]));
        for (place, (agent, trigger)) in agents.iter().enumerate() {
            let trigger = rows::trigger_name(*trigger);
            let params = params![id, org, agent.as_str(), trigger, place as u64];
            batch.push(Statement::new(ADD, params).expect_rows());
        }
    }
    match state.db.batch(batch).await {
        Ok(_) => {}
        Err(DbError::Unmet { index }) if index > 0 => {
            let sentence = "One of these agents does not exist in the workspace.";
            return Err(validate::invalid("agents", sentence).into());
        }
        Err(error) => return Err(error.into()),
    }
    if is_activated(&*state.db, group.id()).await? {
        state.rooms.reconfigure(group.id());
    }
    Ok(())
}
