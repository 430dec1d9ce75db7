//! What happens to a group as a whole: it is wiped, or its events begin to come from a snapshot.
//!
//! A control is a row of the journal without events. Never holds anything that somebody wrote.

use convene_model::{ArchiveId, ImportId, archive::Digest};
use serde::{Deserialize, Serialize};

/// What happens to a group as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Control {
    /// Everything of the group goes; it may begin anew when that is carried out.
    Wipe,
    /// The same for a group in quarantine, wherever it stands: what is wrong with it goes along.
    Purge,
    /// The group's events come from a snapshot from here on; until all are there nobody sees it.
    Import(Import),
}

/// An import under way: which events are to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Which attempt.
    pub import_id: ImportId,
    /// What the group was frozen for.
    pub archive_id: ArchiveId,
    /// The epoch under which the group will go on.
    pub epoch: u64,
    /// The number of the last event.
    pub last_seq: u64,
    /// The chain after it.
    pub chain: Digest,
}

impl Control {
    /// Whether nothing of the group is left afterwards.
    pub(crate) const fn ends_the_group(&self) -> bool {
        match self {
            Self::Wipe | Self::Purge => true,
            Self::Import(_) => false,
        }
    }

    /// The control as the body of its row.
    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a control has only text keys")
    }

    /// The control in the body of a row without events.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(body).map_err(|error| format!("it is no control: {error}"))
    }
}
