//! Identifiers: validated once where they enter, trusted afterwards.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::limits::MAX_ID_LEN;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id is 1 to {MAX_ID_LEN} characters of [A-Za-z0-9_-]")]
pub struct InvalidId;

/// Whether `text` is 1 to [`MAX_ID_LEN`] characters of `[A-Za-z0-9_-]`.
#[must_use]
pub fn is_valid_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_ID_LEN
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 1 to 64 characters of `[A-Za-z0-9_-]`; cheap to clone.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and makes an id of it.
            ///
            /// # Errors
            /// [`InvalidId`] when it is empty, too long or has another character.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidId> {
                let text = text.as_ref();
                if is_valid_id(text) { Ok(Self(Arc::from(text))) } else { Err(InvalidId) }
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "minLength": 1,
                    "maxLength": MAX_ID_LEN,
                    "pattern": "^[A-Za-z0-9_-]+$",
                })
            }

            fn inline_schema() -> bool {
                true
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A group: one long-lived conversation.
    GroupId
);
id!(
    /// An organization, shown to people as a workspace.
    OrgId
);
id!(
    /// A person.
    UserId
);
id!(
    /// An agent of an organization.
    AgentId
);
id!(
    /// A message, chosen by its author; makes posting idempotent.
    MessageId
);
id!(
    /// Somebody who can be mentioned: a user or an agent.
    ParticipantId
);
id!(
    /// One run of an agent; attempts of the same run share it.
    RunId
);
id!(
    /// A call of a tool, unique within its run.
    CallId
);
id!(
    /// A permission that an agent asks for.
    ApprovalId
);
id!(
    /// A connection of one user, scoped to the upstream that carries it.
    ConnId
);
id!(
    /// What a client calls one of its frames; the answer repeats it.
    Ref
);
id!(
    /// One numbering of a group's events: it changes when a backup is adopted, so that nobody
    /// mistakes reused numbers for their own.
    HistoryId
);
id!(
    /// One attempt to archive a group: what it was frozen for.
    ArchiveId
);
id!(
    /// One attempt to bring an archived group back.
    ImportId
);
id!(
    /// A piece of work that outlives the call that began it: an archive, a restore, a delete.
    TaskId
);
id!(
    /// A step in a group's life, as the audit has it.
    LifeEventId
);

impl GroupId {
    /// The id of the group's controller: 64 hexadecimal digits, derived from the group's id alone,
    /// so that every process derives the same one.
    #[must_use]
    pub fn controller_id(&self) -> String {
        let mut out = String::with_capacity(64);
        for byte in self.controller_digest() {
            out.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            out.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        }
        out
    }

    /// The fixed-size key under which storage keeps the group's rows.
    #[must_use]
    pub fn key(&self) -> GroupKey {
        let digest = self.controller_digest();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        GroupKey(key)
    }

    fn controller_digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"convene group controller v1\0");
        hash.update(self.as_str().as_bytes());
        hash.finalize().into()
    }
}

/// The first 16 bytes of a group's controller id: what storage uses in place of the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey(pub [u8; 16]);

/// Which upstream of a group a connection belongs to; chosen by the host, unique while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UpstreamId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_to_sixty_four_safe_characters() {
        assert!(GroupId::new("a").is_ok());
        assert!(GroupId::new("A-z_09").is_ok());
        assert!(GroupId::new("x".repeat(MAX_ID_LEN)).is_ok());
        assert_eq!(GroupId::new("x".repeat(MAX_ID_LEN + 1)), Err(InvalidId));
        for bad in ["", "a b", "a/b", "ä", "a\"b", "a.b", "\u{0}"] {
            assert_eq!(GroupId::new(bad), Err(InvalidId), "{bad:?}");
        }
    }

    #[test]
    fn an_id_from_json_is_checked_too() {
        assert!(serde_json::from_str::<GroupId>("\"ok\"").is_ok());
        assert!(serde_json::from_str::<GroupId>("\"not ok\"").is_err());
    }

    #[test]
    fn a_controller_id_is_the_same_for_the_same_group_and_another_for_another() {
        let a = GroupId::new("g1").unwrap();
        let b = GroupId::new("g2").unwrap();
        assert_eq!(a.controller_id().len(), 64);
        assert_ne!(a.controller_id(), b.controller_id());
        assert_eq!(a.controller_id(), GroupId::new("g1").unwrap().controller_id());
        assert!(a.controller_id().starts_with(&hex(&a.key().0)));
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }
}
