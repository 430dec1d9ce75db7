//! Who calls, and what proved it.

use convene_model::{Timestamp, UserId};

use super::accounts::User;
use crate::{rooms::Proof, ui::view::Me};

/// A person whose session or bearer token was found to hold.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Who.
    pub(crate) user: User,
    /// By what.
    pub(crate) credential: Credential,
    /// Until when that holds, if it ends by itself.
    pub(crate) expires_at: Option<Timestamp>,
}

/// What the names of sessions begin with among the credentials of a user.
const SESSION: &str = "session ";

/// What a request was authenticated by.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    /// The session's cookie; here by the token's digest.
    Session { digest: String },
    /// A bearer token, by its id.
    Bearer { token_id: String },
}

impl Credential {
    /// A name of the credential among those of its user; not the credential itself.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Session { digest } => format!("{SESSION}{digest}"),
            Self::Bearer { token_id } => format!("token {token_id}"),
        }
    }

    /// The digest of the session that such a name is of, if it is one.
    pub(crate) fn session_of(id: &str) -> Option<&str> {
        id.strip_prefix(SESSION)
    }
}

impl Caller {
    pub(crate) fn id(&self) -> &UserId {
        &self.user.user_id
    }

    /// What proved it, for whatever stays open longer than a request.
    pub(crate) fn proof(&self) -> Proof {
        let token_id = match &self.credential {
            Credential::Session { .. } => None,
            Credential::Bearer { token_id } => Some(token_id.clone()),
        };
        let (id, expires_at) = (self.credential.id(), self.expires_at);
        Proof { id, expires_at, is_agent: false, token_id }
    }

    pub(crate) fn me(&self) -> Me {
        Me {
            id: self.user.user_id.clone(),
            name: self.user.name.clone(),
            email: self.user.email.clone(),
        }
    }
}
