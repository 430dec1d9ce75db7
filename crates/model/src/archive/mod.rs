//! What a snapshot of a group consists of, and the calls by which a group is frozen, exported,
//! thawed, wiped and imported.
//!
//! Owns the lines ([`mod@line`]), the manifest ([`manifest`]), the bodies of the controllers' calls
//! ([`calls`]) and where snapshots are kept. Never compresses, reads or writes: that is the crate
//! `convene-archive`.

pub mod calls;
mod digest;
pub mod line;
pub mod manifest;

pub use calls::{
    BeginImport, DeleteQuery, ExportQuery, ExportSection, FreezeRequest, Frozen, ImportProgress,
    ImportQuery, NEXT_HEADER, ThawRequest, WipeRequest,
};
pub use digest::{Digest, InvalidDigest};
pub use line::{Header, Line, LineError, LineKind, MessageLine, RunLine, StateLine, Trailer};
pub use manifest::{IndexEntry, Manifest};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{GroupId, record::Chain};

/// The format that is written.
pub const FORMAT: u32 = 1;

/// A part of a snapshot; they follow each other in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Section {
    /// What the snapshot is of: one line.
    Header,
    /// The controller's state: one line, or none.
    State,
    /// The messages in their current form and the runs that ended, by number.
    Messages,
    /// The events, by number, without gaps.
    Events,
    /// The counts: one line.
    Trailer,
}

impl Section {
    /// The section as it stands in a manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::State => "state",
            Self::Messages => "messages",
            Self::Events => "events",
            Self::Trailer => "trailer",
        }
    }
}

/// The id of a snapshot: it follows from the content alone, so that the same group in the same
/// state has one snapshot.
#[must_use]
pub fn snapshot_id(group_id: &GroupId, epoch: u64, last_seq: u64, chain: &Chain) -> Digest {
    let mut hash = Sha256::new();
    hash.update(b"convene snapshot v1\0");
    hash.update(group_id.as_str().as_bytes());
    hash.update(b"\0");
    hash.update(epoch.to_be_bytes());
    hash.update(last_seq.to_be_bytes());
    hash.update(chain);
    Digest(hash.finalize().into())
}

/// Under what everything of a group is kept in the store of archives, without a `/` at its end.
#[must_use]
pub fn group_prefix(group_id: &GroupId) -> String {
    format!("groups/{group_id}")
}

/// Where a snapshot's lines are kept.
#[must_use]
pub fn content_path(group_id: &GroupId, snapshot_id: &Digest) -> String {
    format!("groups/{group_id}/archives/{snapshot_id}.ndjson.gz")
}

/// Where a snapshot's manifest is kept.
#[must_use]
pub fn manifest_path(group_id: &GroupId, snapshot_id: &Digest) -> String {
    format!("groups/{group_id}/archives/{snapshot_id}.manifest.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_id_follows_from_group_epoch_number_and_chain_alone() {
        let group = GroupId::new("g1").unwrap();
        let id = snapshot_id(&group, 1, 2, &[3; 32]);
        assert_eq!(id, snapshot_id(&group, 1, 2, &[3; 32]));
        for other in [
            snapshot_id(&GroupId::new("g2").unwrap(), 1, 2, &[3; 32]),
            snapshot_id(&group, 2, 2, &[3; 32]),
            snapshot_id(&group, 1, 3, &[3; 32]),
            snapshot_id(&group, 1, 2, &[4; 32]),
        ] {
            assert_ne!(id, other);
        }
        assert_eq!(content_path(&group, &id), format!("groups/g1/archives/{id}.ndjson.gz"));
        assert!(manifest_path(&group, &id).starts_with(&group_prefix(&group)));
    }
}
