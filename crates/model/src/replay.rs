//! Memory of single-use tokens: a `jti` is accepted once, until it has expired.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, PoisonError},
};

use crate::{Timestamp, claims::Registered, limits::CLOCK_LEEWAY, token::TokenError};

/// Remembers used tokens of one process. Bounded: full, it refuses rather than forgets.
#[derive(Debug)]
pub struct ReplayGuard {
    capacity: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    ids: HashSet<String>,
    by_expiry: BTreeMap<u64, Vec<String>>,
}

impl ReplayGuard {
    /// A memory for at most `capacity` tokens at a time.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { capacity, used: Mutex::default() }
    }

    /// Uses up a token that was verified.
    ///
    /// # Errors
    /// [`TokenError::Replayed`] when it was used before, or when the memory is full.
    pub fn use_up(&self, token: &Registered, now: Timestamp) -> Result<(), TokenError> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let Used { ids, by_expiry } = &mut *used;
        let past = now.secs().saturating_sub(CLOCK_LEEWAY.as_secs());
        while let Some(entry) = by_expiry.first_entry().filter(|entry| *entry.key() < past) {
            for id in entry.remove() {
                ids.remove(&id);
            }
        }
        if ids.len() >= self.capacity {
            return Err(TokenError::Replayed);
        }
        let id = format!("{}\0{}", token.iss, token.jti);
        if !ids.insert(id.clone()) {
            return Err(TokenError::Replayed);
        }
        by_expiry.entry(token.exp).or_default().push(id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(iss: &str, jti: &str, exp: u64) -> Registered {
        Registered { iss: iss.into(), aud: "app".into(), iat: 0, nbf: 0, exp, jti: jti.into() }
    }

    #[test]
    fn a_token_is_used_up_once_per_issuer() {
        let guard = ReplayGuard::new(10);
        let now = Timestamp::from_secs(100);
        assert_eq!(guard.use_up(&token("a", "1", 160), now), Ok(()));
        assert_eq!(guard.use_up(&token("a", "1", 160), now), Err(TokenError::Replayed));
        assert_eq!(guard.use_up(&token("b", "1", 160), now), Ok(()));
    }

    #[test]
    fn a_token_is_remembered_until_no_verifier_would_accept_it() {
        let guard = ReplayGuard::new(1);
        assert_eq!(guard.use_up(&token("a", "1", 160), Timestamp::from_secs(100)), Ok(()));
        let still = Timestamp::from_secs(165);
        assert_eq!(guard.use_up(&token("a", "1", 160), still), Err(TokenError::Replayed));
        assert_eq!(guard.use_up(&token("a", "2", 300), Timestamp::from_secs(166)), Ok(()));
    }

    #[test]
    fn a_full_memory_refuses_rather_than_forgets() {
        let guard = ReplayGuard::new(2);
        let now = Timestamp::from_secs(100);
        assert_eq!(guard.use_up(&token("a", "1", 160), now), Ok(()));
        assert_eq!(guard.use_up(&token("a", "2", 160), now), Ok(()));
        assert_eq!(guard.use_up(&token("a", "3", 160), now), Err(TokenError::Replayed));
    }
}
