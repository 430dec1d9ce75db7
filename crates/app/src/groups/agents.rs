//! Which agents take part in a group, and what wakes them there.

use convene_db::{DbError, Statement, params};
use convene_model::{
    AgentId, Problem, UserId,
    event::{GroupAgent, TriggerPolicy},
    limits::{COOLDOWN_SETTING_SECS, MAX_AGENTS_PER_GROUP, MAX_ROUNDS_SETTING},
};

use super::{
    make::distinct,
    store::{Group, is_activated},
};
use crate::{
    agents::{tokens, usable},
    state::AppState,
    validate,
    web::{failure::Answer, rows},
};

/// The agents of a group, in their order.
pub(crate) async fn list(state: &AppState, group: &Group) -> Answer<Vec<GroupAgent>> {
    const SQL: &str = "SELECT a.agent_id, a.name, a.outside, ga.wakes_on FROM group_agents ga
        JOIN agents a ON a.agent_id = ga.agent_id
        WHERE ga.group_id = $1 ORDER BY ga.place, a.created_at, a.agent_id";
    let mut agents = Vec::new();
    for row in state.db.query(Statement::new(SQL, params![group.id().as_str()])).await? {
        agents.push(GroupAgent {
            agent_id: rows::id(&row, "agent_id")?,
            name: row.get("name")?,
            trigger: rows::trigger(&row, "wakes_on")?,
            outside: row.get("outside")?,
        });
    }
    Ok(agents)
}

/// What of a group's agents is changed; what is absent stays.
pub(super) struct Change {
    pub(super) agents: Option<Vec<(AgentId, TriggerPolicy)>>,
    pub(super) paused: Option<bool>,
    /// `Some(None)` leaves it to the default.
    pub(super) max_rounds: Option<Option<u32>>,
    /// `Some(None)` leaves it to the default.
    pub(super) cooldown_secs: Option<Option<u64>>,
}

/// Sets the agents of a group, in this order, and whether they are paused. An agent that only its
/// maker may use is put into a group by nobody else, and may stay where it is.
pub(super) async fn set(
    state: &AppState,
    group: &Group,
    by: &UserId,
    change: Change,
) -> Answer<()> {
    const GROUP: &str = "UPDATE chat_groups SET version = version + 1, paused = $2,
        max_rounds = $3, cooldown_secs = $4 WHERE group_id = $1";
    const FORGET: &str = "DELETE FROM group_agents WHERE group_id = $1";
    let add = format!(
        "INSERT INTO group_agents (group_id, agent_id, wakes_on, place)
         SELECT $1, agent_id, $4, CAST($5 AS BIGINT) FROM agents
         WHERE org_id = $2 AND agent_id = $3 AND ({} OR (deleted_at IS NULL AND $7 = 1))",
        usable("$6")
    );
    let (id, org) = (group.id().as_str(), group.org().as_str());
    let paused = change.paused.unwrap_or(group.paused);
    let rounds = change.max_rounds.unwrap_or(group.max_rounds);
    let cooldown = change.cooldown_secs.unwrap_or(group.cooldown_secs);
    bounds(rounds, cooldown)?;
    let set = params![id, paused, rounds, cooldown];
    let mut batch = vec![Statement::new(GROUP, set).expect_rows()];
    let mut leave = Vec::new();
    if let Some(agents) = change.agents {
        let ids: Vec<_> = agents.iter().map(|(agent, _)| agent).collect();
        if distinct("agents", &ids, MAX_AGENTS_PER_GROUP)?.len() < ids.len() {
            return Err(validate::invalid("agents", "An agent is named twice.").into());
        }
        let former = list(state, group).await?;
        let gone = former.iter().filter(|agent| agent.outside && !ids.contains(&&agent.agent_id));
        leave.extend(gone.map(|agent| agent.agent_id.clone()));
        let present: Vec<_> = former.into_iter().map(|agent| agent.agent_id).collect();
        batch.push(Statement::new(FORGET, params![id]));
        for (place, (agent, trigger)) in agents.iter().enumerate() {
            let trigger = rows::trigger_name(*trigger);
            let (by, stays) = (by.as_str(), present.contains(agent));
            let params = params![id, org, agent.as_str(), trigger, place as u64, by, stays];
            batch.push(Statement::new(add.clone(), params).expect_rows());
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
        let told = state.rooms.reconfigure(group.id());
        // What an outside agent has open in the group ends with its place there.
        for agent in leave {
            state.rooms.revoke(group.id(), &tokens::as_user(&agent)?);
        }
        told.await?;
    }
    Ok(())
}

/// The bounds of a discussion are within what controllers take.
fn bounds(rounds: Option<u32>, cooldown: Option<u64>) -> Result<(), Problem> {
    if rounds.is_some_and(|rounds| rounds > MAX_ROUNDS_SETTING) {
        let sentence = format!("Agents answer each other up to {MAX_ROUNDS_SETTING} times.");
        return Err(validate::invalid("max_rounds", sentence));
    }
    if cooldown.is_some_and(|secs| !COOLDOWN_SETTING_SECS.contains(&secs)) {
        let (least, most) = (COOLDOWN_SETTING_SECS.start(), COOLDOWN_SETTING_SECS.end());
        let sentence = format!("An agent rests for {least} to {most} seconds.");
        return Err(validate::invalid("cooldown_secs", sentence));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_of_discussions_are_held_to_their_limits_on_both_sides() {
        assert!(bounds(None, None).is_ok());
        assert!(bounds(Some(MAX_ROUNDS_SETTING), None).is_ok());
        assert!(bounds(Some(MAX_ROUNDS_SETTING + 1), None).is_err());
        let (least, most) = (*COOLDOWN_SETTING_SECS.start(), *COOLDOWN_SETTING_SECS.end());
        for (secs, holds) in [(least - 1, false), (least, true), (most, true), (most + 1, false)] {
            assert_eq!(bounds(None, Some(secs)).is_ok(), holds, "{secs}");
        }
    }
}
