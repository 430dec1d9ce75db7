//! Work on a group that outlives the call that began it, and what an archive answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ArchiveId, GroupId, Problem, TaskId, Timestamp, archive::Digest, keys::Jwks};

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Writes a group's snapshot and takes the group out of service.
    Archive,
    /// Brings an archived group back.
    Restore,
    /// Removes a group for good.
    Delete,
    /// Tells a controller that its group is not archived after all.
    Thaw,
    /// Removes what the controller still has of an archived group.
    Wipe,
    /// Removes what a restore that failed has left with the controller.
    CleanUp,
    /// Looks once more that nothing of a deleted group is in the store of archives.
    Purge,
}

impl TaskKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Archive,
        Self::Restore,
        Self::Delete,
        Self::Thaw,
        Self::Wipe,
        Self::CleanUp,
        Self::Purge,
    ];

    /// The kind as it stands in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Archive => "archive",
            Self::Restore => "restore",
            Self::Delete => "delete",
            Self::Thaw => "thaw",
            Self::Wipe => "wipe",
            Self::CleanUp => "clean_up",
            Self::Purge => "purge",
        }
    }

    /// The kind with that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// How a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Somebody works on it, or will.
    Running,
    /// It did what it was to do.
    Done,
    /// It did not, and will not; `problem` says why.
    Failed,
}

impl TaskStatus {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Running, Self::Done, Self::Failed];

    /// The status as it stands in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// The status with that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// `GET /infra/tasks/{id}`, and with 202 the answer of a call that takes longer than it may wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Task {
    /// The task.
    pub task_id: TaskId,
    /// What it does.
    pub kind: TaskKind,
    /// With which group.
    pub group_id: GroupId,
    /// How it stands.
    pub status: TaskStatus,
    /// What it is at, in a word.
    pub step: String,
    /// How much of `total` is done; lines while a snapshot is written or read.
    pub done: u64,
    /// How much there is to do; 0 while that is not known.
    pub total: u64,
    /// Why it failed, or why it has to be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// What the call would have answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// When it began.
    pub created_at: Timestamp,
    /// When this was last written.
    pub updated_at: Timestamp,
}

/// `POST /infra/groups/{id}/archive`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveRequest {
    /// Why, for the audit: at most 200 characters.
    pub reason: String,
}

/// `POST /infra/groups/{id}/adopt`: answered with the routing record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdoptRequest {
    /// Which snapshot of the group; the latest one in the store when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<Digest>,
    /// The app whose the group and its organization are from now on; our own when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The public keys of the Orchestrator that has signed it; this one's own when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<Jwks>,
}

/// The answer to an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Archived {
    /// The group.
    pub group_id: GroupId,
    /// Which attempt it was.
    pub archive_id: ArchiveId,
    /// The snapshot's id.
    pub snapshot_id: Digest,
    /// Where its lines are in the store of archives.
    pub path: String,
    /// SHA-256 of the uncompressed lines.
    pub checksum: Digest,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the uncompressed lines.
    pub plain_bytes: u64,
    /// How many messages it has, deleted ones included.
    pub messages: u64,
    /// How many events it has.
    pub events: u64,
    /// The number of the last event.
    pub last_seq: u64,
}
