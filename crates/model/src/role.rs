//! What a user is in a group.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A user's role in a group, computed by the App.
///
/// `member` and `agent` change only their own messages; `owner` and `admin` those of others too.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A program that takes part as an agent.
    Agent,
    /// Somebody who belongs to the workspace.
    Member,
    /// Somebody who may manage the workspace.
    Admin,
    /// Somebody who made the workspace or was made its owner.
    Owner,
}

impl Role {
    /// Whether this role may manage people, agents and groups.
    #[must_use]
    pub const fn manages(self) -> bool {
        match self {
            Self::Owner | Self::Admin => true,
            Self::Member | Self::Agent => false,
        }
    }

    /// The role's name as it stands in tokens and rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// The role with that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Agent, Self::Member, Self::Admin, Self::Owner]
            .into_iter()
            .find(|role| role.as_str() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
