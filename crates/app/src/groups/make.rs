//! New groups, from nothing or after the pattern of another one. Neither activates anything.

use std::collections::BTreeSet;

use convene_db::{DbError, Statement, params};
use convene_model::{
    AgentId, Code, GroupId, OrgId, Problem, Timestamp, UserId, limits::MAX_AGENTS_PER_GROUP,
};

use super::store::{Group, insert_member, members_unknown};
use crate::{
    agents::usable,
    changes::Change,
    state::{AppState, fresh_id},
    ui::view::{GroupItem, GroupLife, Standing},
    validate,
    web::failure::Answer,
};

/// Members named at once.
pub(super) const MAX_MEMBERS_AT_ONCE: usize = 500;

/// A group that is to be made.
pub(super) struct NewGroup {
    pub(super) org: OrgId,
    pub(super) title: String,
    pub(super) is_private: bool,
    /// Its agents; the workspace's default ones when not said.
    pub(super) agents: Option<Vec<AgentId>>,
    /// The members of a private group beside its maker.
    pub(super) members: Vec<UserId>,
}

/// Makes a group; its maker is always a member.
pub(super) async fn make(state: &AppState, maker: &UserId, new: NewGroup) -> Answer<GroupItem> {
    const DEFAULTS: &str = "INSERT INTO group_agents (group_id, agent_id, wakes_on, place)
        SELECT $1, agent_id, wakes_on, 0 FROM agents
        WHERE org_id = $2 AND is_default = 1 AND deleted_at IS NULL
        ORDER BY created_at, agent_id LIMIT $3";
    let title = validate::title("title", &new.title)?;
    if !new.is_private && !new.members.is_empty() {
        let sentence = "Only a private group has chosen members.";
        return Err(validate::invalid("member_ids", sentence).into());
    }
    let now = state.now();
    let group = GroupId::new(fresh_id(now)).map_err(|_| Problem::new(Code::Internal))?;
    let mut batch = vec![insert(&group, &new.org, &title, new.is_private, maker, now)];
    match &new.agents {
        None => batch.push(Statement::new(
            DEFAULTS,
            params![group.as_str(), new.org.as_str(), MAX_AGENTS_PER_GROUP as u64],
        )),
        Some(agents) => {
            let chosen = format!(
                "INSERT INTO group_agents (group_id, agent_id, wakes_on, place)
                 SELECT $1, agent_id, wakes_on, CAST($4 AS BIGINT) FROM agents
                 WHERE org_id = $2 AND agent_id = $3 AND {}",
                usable("$5")
            );
            let agents = distinct("agent_ids", agents, MAX_AGENTS_PER_GROUP)?;
            for (place, agent) in agents.into_iter().enumerate() {
                let (group, org) = (group.as_str(), new.org.as_str());
                let params = params![group, org, agent.as_str(), place as u64, maker.as_str()];
                batch.push(Statement::new(chosen.clone(), params).expect_rows());
            }
        }
    }
    let first_member = batch.len();
    if new.is_private {
        let mut members = new.members;
        members.push(maker.clone());
        for member in distinct("member_ids", &members, MAX_MEMBERS_AT_ONCE)? {
            batch.push(insert_member(&group, &new.org, member, now));
        }
    }
    match state.commit(batch, &[Change::Group(group.clone())]).await {
        Ok(_) => Ok(GroupItem {
            group_id: group,
            org_id: new.org,
            title,
            is_private: new.is_private,
            created_at: now,
            status: GroupLife::Active,
            status_at: None,
            standing: Standing::default(),
        }),
        Err(DbError::Unmet { index }) if index >= first_member => Err(members_unknown().into()),
        Err(DbError::Unmet { .. }) => {
            let sentence = "One of these agents does not exist in the workspace.";
            Err(validate::invalid("agent_ids", sentence).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes a group with the access, members and agents of another one, and no messages.
pub(super) async fn like(
    state: &AppState,
    maker: &UserId,
    pattern: &Group,
    title: &str,
) -> Answer<GroupItem> {
    const POLICY: &str = "UPDATE chat_groups SET
        revisions = (SELECT revisions FROM chat_groups WHERE group_id = $2),
        max_rounds = (SELECT max_rounds FROM chat_groups WHERE group_id = $2),
        cooldown_secs = (SELECT cooldown_secs FROM chat_groups WHERE group_id = $2)
        WHERE group_id = $1";
    const MEMBERS: &str = "INSERT INTO group_members (group_id, user_id, added_at)
        SELECT $1, user_id, CAST($3 AS BIGINT) FROM group_members WHERE group_id = $2";
    // Agents that only somebody else may use stay behind.
    let agents = format!(
        "INSERT INTO group_agents (group_id, agent_id, wakes_on, place)
         SELECT $1, agent_id, wakes_on, place FROM group_agents WHERE group_id = $2
         AND agent_id IN (SELECT agent_id FROM agents WHERE {})",
        usable("$3")
    );
    let title = validate::title("title", title)?;
    let now = state.now();
    let group = GroupId::new(fresh_id(now)).map_err(|_| Problem::new(Code::Internal))?;
    let (org, is_private) = (pattern.org(), pattern.item.is_private);
    let both = params![group.as_str(), pattern.id().as_str()];
    let members = params![group.as_str(), pattern.id().as_str(), now.millis()];
    let chosen = params![group.as_str(), pattern.id().as_str(), maker.as_str()];
    let batch = vec![
        insert(&group, org, &title, is_private, maker, now),
        Statement::new(POLICY, both),
        Statement::new(agents, chosen),
        Statement::new(MEMBERS, members),
    ];
    state.commit(batch, &[Change::Group(group.clone())]).await?;
    Ok(GroupItem {
        group_id: group,
        org_id: org.clone(),
        title,
        is_private,
        created_at: now,
        status: GroupLife::Active,
        status_at: None,
        standing: Standing::default(),
    })
}

fn insert(
    group: &GroupId,
    org: &OrgId,
    title: &str,
    is_private: bool,
    maker: &UserId,
    now: Timestamp,
) -> Statement {
    const SQL: &str = "INSERT INTO chat_groups
        (group_id, org_id, title, is_private, version, created_by, created_at)
        VALUES ($1, $2, $3, $4, 1, $5, $6)";
    let (group, org, maker) = (group.as_str(), org.as_str(), maker.as_str());
    Statement::new(SQL, params![group, org, title, is_private, maker, now.millis()])
}

/// The ids without repetition, in their order, and not too many of them.
pub(super) fn distinct<'a, T: Ord>(
    field: &str,
    ids: &'a [T],
    most: usize,
) -> Result<Vec<&'a T>, Problem> {
    let mut seen = BTreeSet::new();
    let distinct: Vec<_> = ids.iter().filter(|id| seen.insert(*id)).collect();
    if distinct.len() > most {
        return Err(validate::invalid(field, format!("There may be at most {most} of these.")));
    }
    Ok(distinct)
}
