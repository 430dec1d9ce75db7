//! Pages of what the Orchestrator knows, for operators and for apps of their own: groups,
//! organizations, tasks, and what has become of a group in its life.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    GroupId, LifeEventId, OrgId, TaskId, Timestamp,
    infra::{GroupStatus, RoutingRecord},
    limits::{DEFAULT_PAGE, MAX_PAGE},
    tasks::{Task, TaskStatus},
};

/// How many entries a page has.
///
/// # Errors
/// `Err(limit)` when it is 0 or above [`MAX_PAGE`].
pub fn page_size(limit: Option<usize>) -> Result<usize, usize> {
    match limit {
        None => Ok(DEFAULT_PAGE),
        Some(limit) if (1..=MAX_PAGE).contains(&limit) => Ok(limit),
        Some(limit) => Err(limit),
    }
}

/// `GET /infra/groups`: which groups, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupsQuery {
    /// Only this organization's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_id: Option<OrgId>,
    /// Only those that stand so. Deleted ones are listed when they are asked for and not else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<GroupStatus>,
    /// Only those behind this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<GroupId>,
    /// 1 to [`MAX_PAGE`]; [`DEFAULT_PAGE`] when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// A page of groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupsPage {
    /// Their routing records.
    pub groups: Vec<RoutingRecord>,
    /// What to ask with as `after` for the rest, while there is more.
    pub next: Option<GroupId>,
}

/// `GET /infra/orgs`: which organizations, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrgsQuery {
    /// Only those that are blocked, or only those that are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<bool>,
    /// Only those behind this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<OrgId>,
    /// 1 to [`MAX_PAGE`]; [`DEFAULT_PAGE`] when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// A page of organizations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrgsPage {
    /// The organizations.
    pub orgs: Vec<OrgSummary>,
    /// What to ask with as `after` for the rest, while there is more.
    pub next: Option<OrgId>,
}

/// How an organization stands with the Orchestrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrgSummary {
    /// The organization.
    pub org_id: OrgId,
    /// The app whose it is; nobody's while only a limit or a block was set for it.
    pub issuer: Option<String>,
    /// How many of its groups count against the limit.
    pub active_groups: u64,
    /// The limit.
    pub max_active_groups: u64,
    /// Since when it is blocked, while it is.
    pub blocked_at: Option<Timestamp>,
    /// Why, while it is.
    pub block_reason: Option<String>,
}

/// `GET /infra/tasks`: which tasks, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TasksQuery {
    /// Only this group's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<GroupId>,
    /// Only those that stand so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
    /// Only those behind this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<TaskId>,
    /// 1 to [`MAX_PAGE`]; [`DEFAULT_PAGE`] when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// A page of tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TasksPage {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// What to ask with as `after` for the rest, while there is more.
    pub next: Option<TaskId>,
}

/// `GET /infra/groups/{id}/events`: the steps of a group's life, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LifeEventsQuery {
    /// Only those before this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<LifeEventId>,
    /// 1 to [`MAX_PAGE`]; [`DEFAULT_PAGE`] when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// A page of a group's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LifeEventsPage {
    /// The steps.
    pub events: Vec<LifeEvent>,
    /// What to ask with as `after` for the rest, while there is more.
    pub next: Option<LifeEventId>,
}

/// A step of a group's life. All are kept for ever but falling asleep and waking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LifeEvent {
    /// Which.
    pub event_id: LifeEventId,
    /// When it was taken.
    pub at: Timestamp,
    /// Where the group stood; nothing for one that had no record.
    pub from: Option<GroupStatus>,
    /// Where it stood then.
    pub to: GroupStatus,
    /// Its epoch then.
    pub epoch: u64,
    /// Who took it: an app, `controllers`, or `orchestrator` for scheduled work.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// The task that it began, if it did.
    pub task_id: Option<TaskId>,
}
