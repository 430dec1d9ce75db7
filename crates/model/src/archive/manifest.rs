//! The manifest of a snapshot: what it is of, what it must read back as, where each part lies, and
//! the Orchestrator's signature over all of it.

use serde::{Deserialize, Serialize};

use crate::{
    ArchiveId, GroupId, HistoryId, OrgId,
    infra::HistoryMode,
    keys::{SigningKey, TrustedKeys},
    token::TokenError,
};

use super::{Digest, Section, content_path, manifest_path};

/// What the signature is for; see [`SigningKey::sign_bytes`].
const PURPOSE: &str = "snapshot manifest";

/// The manifest of a snapshot. Its file is its canonical form: the JSON of exactly these members in
/// this order, without white space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format of the snapshot.
    pub format: u32,
    /// Its id; see [`super::snapshot_id`].
    pub snapshot_id: Digest,
    /// The group.
    pub group_id: GroupId,
    /// Whose it is.
    pub org_id: OrgId,
    /// The attempt that made it.
    pub archive_id: ArchiveId,
    /// The epoch that the group was frozen under.
    pub epoch: u64,
    /// The numbering that its events belong to.
    pub history: HistoryId,
    /// Where its history was kept.
    pub history_mode: HistoryMode,
    /// The number of its first event: 1.
    pub first_seq: u64,
    /// The number of its last event.
    pub last_seq: u64,
    /// The chain after that event.
    pub chain: Digest,
    /// How many messages it has.
    pub messages: u64,
    /// How many ended runs it has.
    pub runs: u64,
    /// How many events it has.
    pub events: u64,
    /// SHA-256 of the uncompressed lines.
    pub checksum: Digest,
    /// How many bytes the uncompressed lines have.
    pub plain_bytes: u64,
    /// SHA-256 of the file as it is stored.
    pub file_checksum: Digest,
    /// How many bytes the file has.
    pub bytes: u64,
    /// The file's gzip members, in order.
    pub index: Vec<IndexEntry>,
    /// Whose key signed it.
    pub issuer: String,
    /// The id of the key that signed it.
    pub signed_by: String,
    /// EdDSA over the canonical form without this member, unpadded base64url. The last member.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub signature: String,
}

/// One gzip member of a snapshot: whole lines of one section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexEntry {
    /// Which section.
    pub section: Section,
    /// The number of its first line; 0 for header and trailer.
    pub first_seq: u64,
    /// The number of its last line; 0 for header and trailer.
    pub last_seq: u64,
    /// How many lines.
    pub lines: u64,
    /// How many of them are messages.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub messages: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// How many bytes it has in the file.
    pub bytes: u64,
    /// How many bytes its lines have uncompressed.
    pub plain_bytes: u64,
    /// SHA-256 of its uncompressed lines.
    pub checksum: Digest,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Manifest {
    /// Where the snapshot's lines are.
    #[must_use]
    pub fn content_path(&self) -> String {
        content_path(&self.group_id, &self.snapshot_id)
    }

    /// Where this manifest is.
    #[must_use]
    pub fn path(&self) -> String {
        manifest_path(&self.group_id, &self.snapshot_id)
    }

    /// The canonical form.
    ///
    /// # Panics
    /// Never: it has only text keys.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has only text keys")
    }

    /// The same manifest, signed.
    #[must_use]
    pub fn sign(mut self, key: &SigningKey) -> Self {
        key.issuer().clone_into(&mut self.issuer);
        key.kid().clone_into(&mut self.signed_by);
        self.signature.clear();
        self.signature = key.sign_bytes(PURPOSE, &self.to_bytes());
        self
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`TokenError::UnknownKey`] or [`TokenError::BadSignature`].
    pub fn verify_signature(&self, keys: &TrustedKeys) -> Result<(), TokenError> {
        let unsigned = Self { signature: String::new(), ..self.clone() };
        keys.verify_bytes(
            &self.issuer,
            &self.signed_by,
            PURPOSE,
            &unsigned.to_bytes(),
            &self.signature,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::snapshot_id;

    fn manifest() -> Manifest {
        let group_id = GroupId::new("g1").unwrap();
        Manifest {
            format: 1,
            snapshot_id: snapshot_id(&group_id, 1, 2, &[3; 32]),
            group_id,
            org_id: OrgId::new("o1").unwrap(),
            archive_id: ArchiveId::new("a1").unwrap(),
            epoch: 1,
            history: HistoryId::new("h1").unwrap(),
            history_mode: HistoryMode::Internal,
            first_seq: 1,
            last_seq: 2,
            chain: Digest([3; 32]),
            messages: 1,
            runs: 0,
            events: 2,
            checksum: Digest([4; 32]),
            plain_bytes: 10,
            file_checksum: Digest([5; 32]),
            bytes: 9,
            index: vec![IndexEntry {
                section: Section::Events,
                first_seq: 1,
                last_seq: 2,
                lines: 2,
                messages: 0,
                offset: 0,
                bytes: 9,
                plain_bytes: 10,
                checksum: Digest([6; 32]),
            }],
            issuer: String::new(),
            signed_by: String::new(),
            signature: String::new(),
        }
    }

    #[test]
    fn a_signed_manifest_reads_back_and_holds_for_its_key_alone() {
        let key = SigningKey::from_seed("orchestrator", &[7; 32]);
        let keys = TrustedKeys::of("orchestrator", &key.jwks()).unwrap();
        let signed = manifest().sign(&key);
        let back: Manifest = serde_json::from_slice(&signed.to_bytes()).unwrap();
        assert_eq!(back, signed);
        assert_eq!(back.to_bytes(), signed.to_bytes());
        assert_eq!(back.verify_signature(&keys), Ok(()));

        let other = SigningKey::from_seed("orchestrator", &[8; 32]);
        let others = TrustedKeys::of("orchestrator", &other.jwks()).unwrap();
        assert_eq!(back.verify_signature(&others), Err(TokenError::UnknownKey));
        let changed = Manifest { messages: 2, ..signed.clone() };
        assert_eq!(changed.verify_signature(&keys), Err(TokenError::BadSignature));
        let unsigned = Manifest { signature: String::new(), ..signed };
        assert_eq!(unsigned.verify_signature(&keys), Err(TokenError::BadSignature));
    }
}
