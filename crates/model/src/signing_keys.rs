//! A service's own keys while they are rotated: the one that signs, those that others verify with,
//! and those that only verify what is kept for long, such as archives.
//!
//! Owns the order of a change: verifiers within the process know a key before anything is signed
//! with it. Knows neither files nor times.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use crate::keys::{Jwks, KeyError, SigningKey, TrustedKeys};

/// The keys of one service. Cheap to clone; clones share the keys, so that a rotation reaches all.
#[derive(Clone)]
pub struct SigningKeys {
    ring: Arc<RwLock<Ring>>,
}

struct Ring {
    signing: Arc<SigningKey>,
    published: Jwks,
    retired: Jwks,
    /// Who verifies this service's tokens within the process.
    verifiers: Vec<TrustedKeys>,
}

impl SigningKeys {
    /// The key to sign with.
    #[must_use]
    pub fn signing(&self) -> Arc<SigningKey> {
        Arc::clone(&self.read().signing)
    }

    /// The public keys that tokens are verified with: the one that signs, those that will, and
    /// those that did until a moment ago.
    #[must_use]
    pub fn published(&self) -> Jwks {
        self.read().published.clone()
    }

    /// All public keys that ever signed, retired ones included, for the signatures of what is kept.
    /// Never for tokens.
    #[must_use]
    pub fn with_retired(&self) -> Jwks {
        let ring = self.read();
        Jwks { keys: ring.published.keys.iter().chain(&ring.retired.keys).cloned().collect() }
    }

    /// Keeps `keys` at what is published, from now on and at every change.
    ///
    /// # Errors
    /// [`KeyError`] when a published key cannot be used.
    pub fn keep(&self, keys: &TrustedKeys) -> Result<(), KeyError> {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        keys.replace(ring.signing.issuer(), &ring.published)?;
        ring.verifiers.push(keys.clone());
        Ok(())
    }

    /// Puts others in the place of all keys. `published` contains the key that signs.
    ///
    /// # Errors
    /// [`KeyError`] when a key cannot be used or `published` lacks the one that signs; nothing is
    /// changed then.
    pub fn replace(
        &self,
        signing: SigningKey,
        published: Jwks,
        retired: Jwks,
    ) -> Result<(), KeyError> {
        let checked = TrustedKeys::of(signing.issuer(), &published)?;
        if !checked.has(signing.issuer(), signing.kid()) {
            return Err(KeyError::Unpublished { kid: signing.kid().to_owned() });
        }
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        for verifier in &ring.verifiers {
            verifier.replace(signing.issuer(), &published)?;
        }
        ring.signing = Arc::new(signing);
        ring.published = published;
        ring.retired = retired;
        Ok(())
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<SigningKey> for SigningKeys {
    fn from(key: SigningKey) -> Self {
        let ring = Ring {
            published: key.jwks(),
            signing: Arc::new(key),
            retired: Jwks::default(),
            verifiers: Vec::new(),
        };
        Self { ring: Arc::new(RwLock::new(ring)) }
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ring = self.read();
        let published = ring.published.keys.iter().map(|key| key.kid.as_str());
        write!(f, "SigningKeys({:?} of {:?})", ring.signing, published.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed("app", &[seed; 32])
    }

    fn set(keys: &[&SigningKey]) -> Jwks {
        Jwks { keys: keys.iter().map(|key| key.jwk().clone()).collect() }
    }

    #[test]
    fn verifiers_follow_what_is_published_and_forget_what_is_retired() {
        let (old, new) = (key(1), key(2));
        let keys = SigningKeys::from(old.clone());
        let clone = keys.clone();
        let trusted = TrustedKeys::new();
        trusted.replace("portal", &set(&[&key(9)])).unwrap();
        keys.keep(&trusted).unwrap();
        assert!(trusted.has("app", old.kid()) && trusted.knows("portal"));

        keys.replace(old.clone(), set(&[&old, &new]), Jwks::default()).unwrap();
        assert_eq!(clone.signing().kid(), old.kid());
        assert!(trusted.has("app", new.kid()));

        clone.replace(new.clone(), set(&[&new]), set(&[&old])).unwrap();
        assert_eq!(keys.signing().kid(), new.kid());
        assert!(!trusted.has("app", old.kid()) && trusted.knows("portal"));
        assert_eq!(keys.published(), set(&[&new]));
        assert_eq!(keys.with_retired(), set(&[&new, &old]));
    }

    #[test]
    fn a_key_that_nobody_could_verify_never_signs() {
        let (old, new) = (key(1), key(2));
        let keys = SigningKeys::from(old.clone());
        let refused = keys.replace(new.clone(), set(&[&old]), Jwks::default());
        assert_eq!(refused, Err(KeyError::Unpublished { kid: new.kid().to_owned() }));
        assert_eq!(keys.signing().kid(), old.kid());
    }
}
