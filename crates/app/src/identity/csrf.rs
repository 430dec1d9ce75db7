//! CSRF tokens: derived, never stored.
//!
//! A session's token is a keyed hash of the session's digest, so it lives and dies with the
//! session. Somebody who is not signed in gets a random cookie, and the token of their forms is a
//! keyed hash of that cookie (a signed double-submit cookie).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use convene_model::token::same_secret;
use zeroize::Zeroizing;

use super::caller::{Caller, Credential};

/// The key of all CSRF tokens.
pub(crate) struct CsrfKey(Zeroizing<[u8; 32]>);

impl CsrfKey {
    pub(crate) fn derive(master: &[u8; 32]) -> Self {
        Self(Zeroizing::new(blake3::derive_key("convene app csrf tokens v1", master)))
    }

    /// The token of a session; empty for a bearer, who needs none.
    pub(crate) fn of_session(&self, caller: &Caller) -> String {
        match &caller.credential {
            Credential::Session { digest } => self.mac(b"session\0", digest),
            Credential::Bearer { .. } => String::new(),
        }
    }

    /// The token of the forms behind a cookie.
    pub(crate) fn of_form(&self, cookie: &str) -> String {
        self.mac(b"form\0", cookie)
    }

    pub(crate) fn holds_for_session(&self, caller: &Caller, given: &[u8]) -> bool {
        let expected = self.of_session(caller);
        !expected.is_empty() && same_secret(expected.as_bytes(), given)
    }

    pub(crate) fn holds_for_form(&self, cookie: &str, given: &[u8]) -> bool {
        !cookie.is_empty() && same_secret(self.of_form(cookie).as_bytes(), given)
    }

    fn mac(&self, purpose: &[u8], text: &str) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(purpose);
        hasher.update(text.as_bytes());
        URL_SAFE_NO_PAD.encode(hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use convene_model::UserId;

    use super::*;
    use crate::identity::accounts::User;

    fn caller(digest: &str) -> Caller {
        let user =
            User { user_id: UserId::new("u1").unwrap(), email: "a@b".into(), name: "A".into() };
        let credential = Credential::Session { digest: digest.into() };
        Caller { user, credential, expires_at: None }
    }

    #[test]
    fn a_token_holds_for_its_own_session_and_key_only() {
        let key = CsrfKey::derive(&[1; 32]);
        let token = key.of_session(&caller("s1"));
        assert!(key.holds_for_session(&caller("s1"), token.as_bytes()));
        assert!(!key.holds_for_session(&caller("s2"), token.as_bytes()));
        assert!(!CsrfKey::derive(&[2; 32]).holds_for_session(&caller("s1"), token.as_bytes()));
        assert!(!key.holds_for_form("s1", token.as_bytes()));
        assert!(!key.holds_for_session(&caller("s1"), b""));
    }

    #[test]
    fn a_bearer_has_no_token_and_an_empty_one_never_holds() {
        let key = CsrfKey::derive(&[1; 32]);
        let mut bearer = caller("s1");
        bearer.credential = Credential::Bearer { token_id: "t".into() };
        assert!(!key.holds_for_session(&bearer, b""));
        assert!(!key.holds_for_form("", key.of_form("").as_bytes()));
        assert!(key.holds_for_form("c", key.of_form("c").as_bytes()));
    }
}
