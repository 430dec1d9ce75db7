//! Password hashes: argon2id, off the async threads, a few at a time.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use convene_model::{Code, Problem};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Memory of one hash in KiB; with [`ITERATIONS`] and [`LANES`] what OWASP recommends.
pub const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over the memory.
pub const ITERATIONS: u32 = 2;
/// Lanes.
pub const LANES: u32 = 1;
/// Hashes computed at the same time; they bound the memory to so many times [`MEMORY_KIB`].
pub const MAX_HASHES_AT_ONCE: usize = 4;
/// Hashes computed or waiting; beyond it a request is refused as overloaded.
pub const MAX_HASHES_WAITING: usize = 128;

/// Makes and checks password hashes.
pub(crate) struct Passwords {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    refused: AtomicU64,
    /// The hash of a password that nobody knows: checked where there is no account, so that an
    /// unknown address takes as long as a known one.
    decoy: String,
}

impl Passwords {
    /// Computes the decoy.
    pub(crate) async fn open() -> Result<Self, String> {
        let mut unknown = Zeroizing::new([0_u8; 32]);
        getrandom::fill(unknown.as_mut()).map_err(|error| error.to_string())?;
        let decoy = tokio::task::spawn_blocking(move || compute(unknown.as_ref()))
            .await
            .map_err(|error| error.to_string())??;
        Ok(Self {
            running: Arc::new(Semaphore::new(MAX_HASHES_AT_ONCE)),
            waiting: Arc::new(Semaphore::new(MAX_HASHES_WAITING)),
            refused: AtomicU64::new(0),
            decoy,
        })
    }

    /// Hashes that are computed or wait.
    pub(crate) fn waiting(&self) -> usize {
        MAX_HASHES_WAITING - self.waiting.available_permits()
    }

    /// Requests that were refused since the process began.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The hash to keep for a password, as a PHC string with its own salt.
    pub(crate) async fn hash(&self, password: Zeroizing<String>) -> Result<String, Problem> {
        self.work(move || compute(password.as_bytes())).await
    }

    /// Whether a password is the one behind `hash`; without a hash the same work is done and the
    /// answer is no.
    pub(crate) async fn verify(
        &self,
        password: Zeroizing<String>,
        hash: Option<String>,
    ) -> Result<bool, Problem> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.decoy.clone());
        let holds = self
            .work(move || {
                let hash = PasswordHash::new(&hash).map_err(|error| error.to_string())?;
                Ok(argon2()?.verify_password(password.as_bytes(), &hash).is_ok())
            })
            .await?;
        Ok(known && holds)
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, Problem> {
        let overloaded = || Problem::new(Code::Overloaded).with("retry_after_ms", 1000);
        let failed = |error: String| {
            tracing::error!(%error, "a password hash failed");
            Problem::new(Code::Internal)
        };
        let _waiting = self.waiting.try_acquire().map_err(|_| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            overloaded()
        })?;
        let permit = Arc::clone(&self.running).acquire_owned().await.map_err(|_| overloaded())?;
        // The permit goes along: a request that is given up does not free it before its hash ends.
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.map_err(|error| failed(error.to_string()))?.map_err(failed)
    }
}

fn argon2() -> Result<Argon2<'static>, String> {
    let params =
        Params::new(MEMORY_KIB, ITERATIONS, LANES, None).map_err(|error| error.to_string())?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The hash of a password, computed right here: for programs that do nothing else meanwhile.
pub(crate) fn compute(password: &[u8]) -> Result<String, String> {
    let hash: PasswordHash =
        argon2()?.hash_password(password).map_err(|error| error.to_string())?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_holds_for_its_own_hash_only() {
        let passwords = Passwords::open().await.unwrap();
        let hash = passwords.hash(password("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify(password("correct horse"), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify(password("battery"), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify(password("correct horse"), None).await.unwrap());
        let again = passwords.hash(password("correct horse")).await.unwrap();
        assert_ne!(hash, again, "each hash has its own salt");
    }

    #[tokio::test]
    async fn an_unknown_account_costs_the_same_work() {
        let passwords = Passwords::open().await.unwrap();
        assert!(passwords.decoy.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    }

    #[tokio::test]
    async fn too_many_waiting_are_refused_as_overloaded() {
        let passwords = Passwords::open().await.unwrap();
        let _all = passwords.waiting.acquire_many(MAX_HASHES_WAITING as u32).await.unwrap();
        let problem = passwords.verify(password("x"), None).await.unwrap_err();
        assert_eq!(problem.code, Code::Overloaded);
    }
}
