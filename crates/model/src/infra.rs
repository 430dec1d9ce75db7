//! Bodies of the Orchestrator's infra API and of the controllers' calls behind it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{GroupId, HistoryId, OrgId, Role, Timestamp, UserId};

/// Where a group's history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HistoryMode {
    /// In the group's own durable storage.
    #[default]
    Internal,
    /// By the organization's own history service.
    External,
}

/// Where a group stands in its life. A group without a record is inactive, which is no status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupStatus {
    /// Awake, or ready to wake.
    Active,
    /// Asleep: nobody is attached and nothing runs.
    Idle,
    /// Frozen while its snapshot is written.
    Archiving,
    /// In its snapshot only: read there, and restored from there.
    Archived,
    /// Being brought back from its snapshot.
    Restoring,
    /// Being removed, with its snapshots.
    Deleting,
    /// The tombstone of a group that was removed; for ever.
    Deleted,
}

impl GroupStatus {
    /// Every status.
    pub const ALL: [Self; 7] = [
        Self::Active,
        Self::Idle,
        Self::Archiving,
        Self::Archived,
        Self::Restoring,
        Self::Deleting,
        Self::Deleted,
    ];

    /// The status as it stands in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Archiving => "archiving",
            Self::Archived => "archived",
            Self::Restoring => "restoring",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
        }
    }

    /// The status with that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether a group that stands so counts against its organization's limit.
    #[must_use]
    pub const fn counts(self) -> bool {
        match self {
            Self::Active | Self::Idle | Self::Archiving | Self::Restoring | Self::Deleting => true,
            Self::Archived | Self::Deleted => false,
        }
    }
}

/// `POST /infra/groups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActivateRequest {
    /// The group.
    pub group_id: GroupId,
    /// Whose it is.
    pub org_id: OrgId,
    /// Where its history is kept.
    #[serde(default)]
    pub history_mode: HistoryMode,
    /// Where it should run, for hosts that know regions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// The answer to an activation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Activation {
    /// The group.
    pub group_id: GroupId,
    /// Its controller, derived from the group's id.
    pub group_controller_id: String,
    /// Where it stands.
    pub status: GroupStatus,
    /// Where its history is kept.
    pub history_mode: HistoryMode,
    /// Its epoch.
    pub epoch: u64,
}

/// `GET /infra/groups/{id}`: the routing record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoutingRecord {
    /// The group.
    pub group_id: GroupId,
    /// Whose it is.
    pub org_id: OrgId,
    /// Its controller.
    pub group_controller_id: String,
    /// Where it stands.
    pub group_status: GroupStatus,
    /// Where its history is kept.
    pub history_mode: HistoryMode,
    /// Its epoch.
    pub epoch: u64,
    /// When it was last known to be used.
    pub last_active: Timestamp,
    /// Since when it is idle, while it is.
    pub idle_at: Option<Timestamp>,
    /// Where it runs, for hosts that know regions.
    pub region: Option<String>,
}

/// `POST /infra/routing-token`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoutingTokenRequest {
    /// The group.
    pub group_id: GroupId,
    /// For whom.
    pub user_id: UserId,
    /// What that user is in the group.
    pub role: Role,
}

/// A routing token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoutingToken {
    /// The token, a JWT of type `routing+jwt`.
    pub routing_token: String,
    /// When it expires.
    pub expires_at: Timestamp,
}

impl std::fmt::Debug for RoutingToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoutingToken").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// `POST /infra/groups/{id}/revoke`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// Whose routing tokens become void.
    pub user_id: UserId,
}

/// `POST /infra/groups/{id}/epoch`: raises the epoch, so that every token of the group becomes void
/// and every connection is closed. Answered with the [`RoutingRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RaiseEpochRequest {
    /// The epoch that the caller knows; a repeat after it was raised is success.
    pub from: u64,
    /// Why, for the log.
    pub reason: String,
}

/// `POST /infra/cleanup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CleanupRequest {
    /// The group.
    pub group_id: GroupId,
    /// What it is now: `active` or `idle`; the other states are nobody's to report.
    pub status: GroupStatus,
    /// Why, for the log.
    pub reason: String,
}

/// `POST /groups/{id}/init` on the controllers: brings a group to life; an equal repeat is success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InitRequest {
    /// Whose it is.
    pub org_id: OrgId,
    /// Where its history is kept.
    pub history_mode: HistoryMode,
    /// Its epoch; a higher one than the controller's is taken over and voids older tokens.
    pub epoch: u64,
    /// What its organization's limits leave to it.
    #[serde(default, skip_serializing_if = "GroupLimits::are_none")]
    pub limits: GroupLimits,
}

/// The limits that the host of a group's controller keeps. What is not said is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupLimits {
    /// Messages that one user may post in a minute, over all groups of the organization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_posts_per_minute: Option<u32>,
    /// Messages that may be posted in a minute, over all groups and users of the organization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_posts_per_minute: Option<u32>,
    /// Connections that one user may attach in a minute, over all groups of the organization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_attaches_per_minute: Option<u32>,
    /// The group has sent as many bytes as it may, and is closed until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_until: Option<Timestamp>,
}

impl GroupLimits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The answer to an init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Initialized {
    /// The epoch that the controller works under.
    pub epoch: u64,
    /// The group's last event number.
    pub head: u64,
    /// The numbering that its events belong to.
    pub history: HistoryId,
}

/// `GET /infra/orgs/{id}/limits` and `PUT`, which sets all of them. What is not said is not limited,
/// but for `auto_archive_after_secs`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrgLimits {
    /// How many groups of the organization may be in service at a time: all but those that are
    /// archived or deleted.
    pub max_active_groups: u64,
    /// A group that sleeps for so many seconds is archived; 0 is never. Not said, it is the
    /// Orchestrator's own setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_archive_after_secs: Option<u64>,
    /// Tokens that agents may use in a month of the calendar (UTC). Without room for what a run may
    /// use at most, the run does not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_tokens: Option<u64>,
    /// Bytes that may leave for clients in a month of the calendar (UTC), over all groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_egress_bytes: Option<u64>,
    /// Bytes that may leave for clients of one group in a day (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_daily_egress_bytes: Option<u64>,
    /// Messages that one user may post in a minute, over all groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_posts_per_minute: Option<u32>,
    /// Messages that may be posted in a minute, over all groups and users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_posts_per_minute: Option<u32>,
    /// Connections that one user may attach in a minute, over all groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_attaches_per_minute: Option<u32>,
    /// Groups that may be activated in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activations_per_minute: Option<u32>,
}

/// `PUT /infra/orgs/{id}/block`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlockRequest {
    /// Whether the organization is to be blocked.
    pub blocked: bool,
    /// Why, for the operators: at most 200 characters.
    pub reason: String,
}

/// Whether an organization is blocked: the answer to `GET` and `PUT /infra/orgs/{id}/block`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrgBlock {
    /// The organization.
    pub org_id: OrgId,
    /// Whether it is blocked.
    pub blocked: bool,
    /// Why, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_at: Option<Timestamp>,
}
