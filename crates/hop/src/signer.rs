//! Minting of service tokens with a fresh `jti` at the current time.

use std::{fmt, sync::Arc};

use convene_model::{
    Timestamp, claims::TokenType, keys::SigningKey, signing_keys::SigningKeys, token,
};
use uuid::Uuid;

/// Where the time comes from; tests pass their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A service's signing keys and clock.
#[derive(Clone)]
pub struct Signer {
    keys: SigningKeys,
    clock: Clock,
}

impl Signer {
    /// A signer.
    #[must_use]
    pub fn new(keys: impl Into<SigningKeys>, clock: Clock) -> Self {
        Self { keys: keys.into(), clock }
    }

    /// A token for `aud` that holds from now on for the longest time of its type.
    #[must_use]
    pub fn mint<C: TokenType>(&self, aud: &str, claims: C) -> String {
        token::mint(&self.key(), aud, claims, self.now(), Uuid::new_v4().simple().to_string())
    }

    /// The current time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The key that signs at this moment.
    #[must_use]
    pub fn key(&self) -> Arc<SigningKey> {
        self.keys.signing()
    }

    /// All keys of the service.
    #[must_use]
    pub fn keys(&self) -> &SigningKeys {
        &self.keys
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({:?})", self.keys)
    }
}
