//! Bodies of the Orchestrator's calls to a group's controller while it is archived, restored or
//! deleted: `/groups/{id}/freeze`, `export`, `thaw`, `wipe`, `import` and `DELETE /groups/{id}`.

use serde::{Deserialize, Serialize};

use crate::{ArchiveId, HistoryId, ImportId, infra::HistoryMode};

use super::{Digest, Section};

/// The header in an export's answer that names the `after` of the next call; absent at the end.
pub const NEXT_HEADER: &str = "x-convene-next";

/// `POST /groups/{id}/freeze`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeRequest {
    /// For which attempt to archive.
    pub archive_id: ArchiveId,
    /// The group's epoch.
    pub epoch: u64,
}

/// A frozen group, exactly: the answer to `freeze`, the same for each repeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// What it was frozen for.
    pub archive_id: ArchiveId,
    /// The epoch that it was frozen under.
    pub epoch: u64,
    /// The numbering that its events belong to.
    pub history: HistoryId,
    /// Where its history is kept.
    pub history_mode: HistoryMode,
    /// The number of its last event, `group.frozen`.
    pub last_seq: u64,
    /// The chain after that event.
    pub chain: Digest,
    /// How many messages it has, deleted ones included.
    pub messages: u64,
    /// How many events it has.
    pub events: u64,
    /// About how many bytes its lines will have.
    pub bytes_estimate: u64,
}

/// `POST /groups/{id}/thaw`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThawRequest {
    /// What it was frozen for.
    pub archive_id: ArchiveId,
    /// Its epoch from now on: higher than the one that it was frozen under.
    pub epoch: u64,
}

/// `POST /groups/{id}/wipe`: carried out only while the group is frozen at exactly this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WipeRequest {
    /// What it was frozen for.
    pub archive_id: ArchiveId,
    /// The epoch that it was frozen under.
    pub epoch: u64,
    /// The number of its last event.
    pub last_seq: u64,
    /// The checksum of its snapshot, for the log.
    pub checksum: Digest,
}

/// `DELETE /groups/{id}?epoch=`: removes what the controller has, without a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteQuery {
    /// An epoch higher than the group's own.
    pub epoch: u64,
}

/// A section that a controller exports; the others are the Orchestrator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportSection {
    /// The controller's state.
    State,
    /// Messages and ended runs.
    Messages,
    /// Events.
    Events,
}

impl ExportSection {
    /// All of them, in the order of a snapshot.
    pub const ALL: [Self; 3] = [Self::State, Self::Messages, Self::Events];

    /// The section as it stands in the query.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.section().as_str()
    }

    /// The section of the snapshot.
    #[must_use]
    pub const fn section(self) -> Section {
        match self {
            Self::State => Section::State,
            Self::Messages => Section::Messages,
            Self::Events => Section::Events,
        }
    }
}

/// `GET /groups/{id}/export?…`: whole lines (see [`super::line`]) as `application/x-ndjson`, in
/// ascending order, at most `MAX_EXPORT_BYTES` but at least one; [`NEXT_HEADER`] while there is
/// more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportQuery {
    /// What the group was frozen for.
    pub archive_id: ArchiveId,
    /// The epoch that it was frozen under.
    pub epoch: u64,
    /// What to export.
    pub section: ExportSection,
    /// Only lines with a larger number.
    #[serde(default)]
    pub after: u64,
}

/// `POST /groups/{id}/import`: begins an import, or goes on with it. Answered with
/// [`ImportProgress`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeginImport {
    /// Which attempt to restore.
    pub import_id: ImportId,
    /// What the snapshot was made by; `group.restored` names it.
    pub archive_id: ArchiveId,
    /// The group's epoch from now on.
    pub epoch: u64,
    /// The number of the snapshot's last event.
    pub last_seq: u64,
    /// The chain after that event.
    pub chain: Digest,
}

/// How far an import has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportProgress {
    /// The number of the event that comes next; `last_seq + 1` when all are there.
    pub next_seq: u64,
}

/// `PUT /groups/{id}/import/{import_id}?from=`: the body is event lines in order, at most
/// `MAX_IMPORT_BYTES`. Answered with [`ImportProgress`], also as the figure `next_seq` of the
/// problem when `from` is another number. `POST /groups/{id}/import/{import_id}/finish` then has
/// the state line as its body, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportQuery {
    /// The number of the first event in the body.
    pub from: u64,
}
