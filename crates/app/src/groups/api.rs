//! `/api/groups`: lists, groups, their members and agents.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use convene_hop::ApiJson;
use convene_model::{
    AgentId, Code, GroupId, OrgId, Problem, Role, TaskId, UserId,
    event::{GroupAgent, RevisionPolicy, TriggerPolicy},
    infra::HistoryMode,
};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    agents, life,
    make::{self, MAX_MEMBERS_AT_ONCE, NewGroup, distinct},
    members,
    store::{self, Access, Change, Group},
};
use crate::{
    identity::caller::Caller,
    state::AppState,
    ui::view::{GroupItem, GroupLife, Person},
    validate,
    web::{
        extract::{Ids, Search},
        failure::Answer,
    },
    workspaces::orgs,
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    org_id: OrgId,
    /// Only groups that stand so.
    #[serde(default)]
    status: Option<GroupLife>,
}

pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Search(query): Search<ListQuery>,
) -> Answer<Json<Vec<GroupItem>>> {
    let org = orgs::enter(&state, &query.org_id, &caller).await?;
    life::follow::freshen(&state, &org.org_id);
    let mut groups = store::list(&state, &org.org_id, caller.id()).await?;
    groups.retain(|group| query.status.is_none_or(|status| group.status == status));
    Ok(Json(groups))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupBody {
    org_id: OrgId,
    title: String,
    #[serde(default)]
    is_private: bool,
    #[serde(default)]
    agent_ids: Option<Vec<AgentId>>,
    #[serde(default)]
    member_ids: Vec<UserId>,
}

pub(super) async fn make(
    State(state): State<AppState>,
    caller: Caller,
    ApiJson(body): ApiJson<GroupBody>,
) -> Answer<Response> {
    let org = orgs::enter(&state, &body.org_id, &caller).await?;
    let new = NewGroup {
        org: org.org_id,
        title: body.title,
        is_private: body.is_private,
        agents: body.agent_ids,
        members: body.member_ids,
    };
    let group = make::make(&state, caller.id(), new).await?;
    Ok((StatusCode::CREATED, Json(group)).into_response())
}

/// A group as its page and its API show it.
#[derive(Serialize, JsonSchema)]
pub(super) struct GroupDetail {
    #[serde(flatten)]
    item: GroupItem,
    /// What the caller is in it.
    role: Role,
    /// Whether the caller may change it.
    can_manage: bool,
    created_by: UserId,
    paused: bool,
    revisions: RevisionPolicy,
    /// Whether the caller may archive, restore and delete it.
    can_govern: bool,
    /// Where its history is kept; a group whose history is kept outside is not archived.
    history_mode: HistoryMode,
    /// The task that brings it into the archive or back, while it is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<TaskId>,
}

fn detail(group: Group, caller: &Caller) -> Json<GroupDetail> {
    Json(GroupDetail {
        can_manage: group.is_managed_by(caller.id()),
        can_govern: group.role.manages(),
        task_id: match group.item.status {
            GroupLife::Archiving | GroupLife::Restoring => group.task,
            GroupLife::Active | GroupLife::Archived => None,
        },
        role: group.role,
        created_by: group.created_by,
        paused: group.paused,
        revisions: group.revisions,
        history_mode: group.history_mode,
        item: group.item,
    })
}

pub(super) async fn show(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
) -> Answer<Json<GroupDetail>> {
    let group = life::look(&state, store::enter(&state, &group, &caller).await?).await?;
    Ok(detail(group, &caller))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupChange {
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    is_private: Option<bool>,
    /// With `is_private: true`: who stays, beside the caller.
    #[serde(default)]
    member_ids: Vec<UserId>,
    /// What becomes of texts that edits replace; for owners and admins of the workspace.
    #[serde(default)]
    revisions: Option<RevisionPolicy>,
}

pub(super) async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
    ApiJson(body): ApiJson<GroupChange>,
) -> Answer<Json<GroupDetail>> {
    let group = store::manage(&state, &group, &caller).await?;
    let title = body.title.map(|title| validate::title("title", &title)).transpose()?;
    if body.revisions.is_some() && !group.role.manages() {
        let detail = "Only owners and admins of the workspace may change what is kept.";
        return Err(Problem::new(Code::Forbidden).detail(detail).into());
    }
    let becomes_private = body.is_private == Some(true) && !group.item.is_private;
    if !body.member_ids.is_empty() && !becomes_private {
        let sentence = "Members are named here only when the group becomes private.";
        return Err(validate::invalid("member_ids", sentence).into());
    }
    let access = match body.is_private {
        None => None,
        Some(false) => Some(Access::Open),
        Some(true) => {
            let mut members = body.member_ids;
            members.push(caller.id().clone());
            let members = distinct("member_ids", &members, MAX_MEMBERS_AT_ONCE)?;
            Some(Access::Private(members.into_iter().cloned().collect()))
        }
    };
    let change = Change { title, access, revisions: body.revisions };
    store::change(&state, &group, caller.id(), change).await?;
    let group = life::look(&state, store::enter(&state, group.id(), &caller).await?).await?;
    Ok(detail(group, &caller))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CloneBody {
    title: String,
}

pub(super) async fn clone(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
    ApiJson(body): ApiJson<CloneBody>,
) -> Answer<Response> {
    let pattern = store::enter(&state, &group, &caller).await?;
    let group = make::like(&state, caller.id(), &pattern, &body.title).await?;
    Ok((StatusCode::CREATED, Json(group)).into_response())
}

pub(super) async fn members(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
) -> Answer<Json<Vec<Person>>> {
    let group = store::enter(&state, &group, &caller).await?;
    Ok(Json(members::list(&state, &group).await?))
}

pub(super) async fn add_member(
    State(state): State<AppState>,
    caller: Caller,
    Ids((group, user)): Ids<(GroupId, UserId)>,
) -> Answer<StatusCode> {
    let group = store::enter(&state, &group, &caller).await?;
    members::add(&state, &group, &user).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn remove_member(
    State(state): State<AppState>,
    caller: Caller,
    Ids((group, user)): Ids<(GroupId, UserId)>,
) -> Answer<StatusCode> {
    let group = store::enter(&state, &group, &caller).await?;
    members::remove(&state, &group, &caller, &user).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize, JsonSchema)]
pub(super) struct GroupAgents {
    agents: Vec<GroupAgent>,
    paused: bool,
    /// How far agents may answer each other after a person; 2 where `null`.
    max_rounds: Option<u32>,
    /// How long an agent that ran is woken by nothing but a person's mention, in seconds; 15 where
    /// `null`.
    cooldown_secs: Option<u64>,
}

async fn group_agents(state: &AppState, group: &Group) -> Answer<Json<GroupAgents>> {
    let agents = agents::list(state, group).await?;
    let Group { paused, max_rounds, cooldown_secs, .. } = *group;
    Ok(Json(GroupAgents { agents, paused, max_rounds, cooldown_secs }))
}

pub(super) async fn agents(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
) -> Answer<Json<GroupAgents>> {
    let group = store::enter(&state, &group, &caller).await?;
    group_agents(&state, &group).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChosenAgent {
    agent_id: AgentId,
    trigger: TriggerPolicy,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentsBody {
    #[serde(default)]
    agents: Option<Vec<ChosenAgent>>,
    #[serde(default)]
    paused: Option<bool>,
    #[serde(default, deserialize_with = "validate::present")]
    #[schemars(with = "Option<u32>")]
    max_rounds: Option<Option<u32>>,
    #[serde(default, deserialize_with = "validate::present")]
    #[schemars(with = "Option<u64>")]
    cooldown_secs: Option<Option<u64>>,
}

pub(super) async fn set_agents(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
    ApiJson(body): ApiJson<AgentsBody>,
) -> Answer<Json<GroupAgents>> {
    let group = store::manage(&state, &group, &caller).await?;
    let change = agents::Change {
        agents: body.agents.map(|agents| {
            agents.into_iter().map(|chosen| (chosen.agent_id, chosen.trigger)).collect()
        }),
        paused: body.paused,
        max_rounds: body.max_rounds,
        cooldown_secs: body.cooldown_secs,
    };
    agents::set(&state, &group, caller.id(), change).await?;
    let group = store::enter(&state, group.id(), &caller).await?;
    group_agents(&state, &group).await
}
