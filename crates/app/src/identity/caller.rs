//! Who calls, and what proved it.

use convene_model::UserId;

use super::accounts::User;
use crate::ui::view::Me;

/// A person whose session or bearer token was found to hold.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Who.
    pub(crate) user: User,
    /// By what.
    pub(crate) credential: Credential,
}

/// What a request was authenticated by.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    /// The session's cookie; here by the token's digest.
    Session { digest: String },
    /// A bearer token, by its id.
    Bearer { token_id: String },
}

impl Caller {
    pub(crate) fn id(&self) -> &UserId {
        &self.user.user_id
    }

    pub(crate) fn me(&self) -> Me {
        Me {
            id: self.user.user_id.clone(),
            name: self.user.name.clone(),
            email: self.user.email.clone(),
        }
    }
}
