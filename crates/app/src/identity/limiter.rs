//! How often somebody may try: counts by key within a window, in memory and bounded.

use std::{collections::HashMap, time::Duration};

use convene_model::{Code, Problem, Timestamp};
use parking_lot::Mutex;

/// Wrong passwords for one mail address within [`SIGN_IN_WINDOW`].
pub const SIGN_INS_PER_EMAIL: u32 = 10;
/// Sign-ins, right or wrong, from one client address within [`SIGN_IN_WINDOW`].
pub const SIGN_INS_PER_ADDRESS: u32 = 60;
/// The window of both.
pub const SIGN_IN_WINDOW: Duration = Duration::from_secs(15 * 60);
/// Accounts made from one client address within [`SIGN_UP_WINDOW`].
pub const SIGN_UPS_PER_ADDRESS: u32 = 30;
/// The window of accounts made.
pub const SIGN_UP_WINDOW: Duration = Duration::from_secs(60 * 60);
/// Providers, servers and agents that one workspace tries out within [`PROBE_WINDOW`].
pub const PROBES_PER_ORG: u32 = 60;
/// The window of what is tried out.
pub const PROBE_WINDOW: Duration = Duration::from_secs(60);
/// Keys that one limiter counts at a time; beyond it further keys are refused.
pub const MAX_KEYS: usize = 100_000;

/// The limits of signing in and up.
pub(crate) struct Limits {
    pub(crate) sign_in_by_email: Limiter,
    pub(crate) sign_in_by_address: Limiter,
    pub(crate) sign_up_by_address: Limiter,
    pub(crate) probes_by_org: Limiter,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sign_in_by_email: Limiter::new(SIGN_INS_PER_EMAIL, SIGN_IN_WINDOW, MAX_KEYS),
            sign_in_by_address: Limiter::new(SIGN_INS_PER_ADDRESS, SIGN_IN_WINDOW, MAX_KEYS),
            sign_up_by_address: Limiter::new(SIGN_UPS_PER_ADDRESS, SIGN_UP_WINDOW, MAX_KEYS),
            probes_by_org: Limiter::new(PROBES_PER_ORG, PROBE_WINDOW, MAX_KEYS),
        }
    }
}

/// Counts attempts by key; a key's window begins with its first attempt.
pub(crate) struct Limiter {
    most: u32,
    window: Duration,
    capacity: usize,
    counts: Mutex<HashMap<String, Count>>,
}

struct Count {
    since: Timestamp,
    taken: u32,
}

impl Limiter {
    pub(crate) fn new(most: u32, window: Duration, capacity: usize) -> Self {
        Self { most, window, capacity, counts: Mutex::default() }
    }

    /// Counts one attempt, before it is made.
    ///
    /// # Errors
    /// [`Code::RateLimited`] with `retry_after_ms` when the key has had its attempts, or when too
    /// many keys are counted already.
    pub(crate) fn take(&self, key: &str, now: Timestamp) -> Result<(), Problem> {
        let mut counts = self.counts.lock();
        if counts.len() >= self.capacity && !counts.contains_key(key) {
            counts.retain(|_, count| now.since(count.since) < self.window);
            if counts.len() >= self.capacity {
                return Err(refused(self.window));
            }
        }
        let count = counts.entry(key.to_owned()).or_insert(Count { since: now, taken: 0 });
        if now.since(count.since) >= self.window {
            *count = Count { since: now, taken: 0 };
        }
        if count.taken >= self.most {
            return Err(refused(self.window.saturating_sub(now.since(count.since))));
        }
        count.taken += 1;
        Ok(())
    }

    /// Forgets a key's attempts.
    pub(crate) fn forgive(&self, key: &str) {
        self.counts.lock().remove(key);
    }
}

fn refused(wait: Duration) -> Problem {
    Problem::new(Code::RateLimited)
        .detail("Too many attempts. Try again later.")
        .with("retry_after_ms", wait.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(1000 + secs)
    }

    #[test]
    fn a_key_has_so_many_attempts_in_a_window_and_then_waits_for_its_end() {
        let limiter = Limiter::new(2, WINDOW, 10);
        assert!(limiter.take("a", at(0)).is_ok());
        assert!(limiter.take("a", at(4)).is_ok());
        let problem = limiter.take("a", at(4)).unwrap_err();
        assert_eq!(
            (problem.code, &problem.extra["retry_after_ms"]),
            (Code::RateLimited, &6000.into())
        );
        assert!(limiter.take("b", at(4)).is_ok());
        assert!(limiter.take("a", at(9)).is_err());
        assert!(limiter.take("a", at(10)).is_ok());
    }

    #[test]
    fn forgiving_starts_anew() {
        let limiter = Limiter::new(1, WINDOW, 10);
        assert!(limiter.take("a", at(0)).is_ok());
        limiter.forgive("a");
        assert!(limiter.take("a", at(0)).is_ok());
        assert!(limiter.take("a", at(0)).is_err());
    }

    #[test]
    fn a_full_memory_refuses_new_keys_until_old_windows_end() {
        let limiter = Limiter::new(5, WINDOW, 2);
        assert!(limiter.take("a", at(0)).is_ok());
        assert!(limiter.take("b", at(5)).is_ok());
        assert!(limiter.take("c", at(6)).is_err());
        assert!(limiter.take("a", at(6)).is_ok());
        assert!(limiter.take("c", at(10)).is_ok());
    }
}
