//! Rates: how often somebody may do something, by key, in memory and bounded.
//!
//! The generic cell rate algorithm: each key has the time at which it will have earned all that it has
//! taken. What a key may take is said with each call, since it is its organization's. Time is passed
//! in. A key that has taken nothing for a minute costs nothing once it was swept.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::Timestamp;

/// Keys that one limiter counts at a time; beyond it further keys are refused.
pub const MAX_KEYS: usize = 100_000;

const MINUTE_MS: u64 = 60_000;

/// Who took how much lately.
#[derive(Debug)]
pub struct RateLimiter<K> {
    capacity: usize,
    /// When each key will have earned what it has taken, in microseconds.
    earned_at: Mutex<HashMap<K, u64>>,
}

/// Too often: it may be tried again after this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooOften {
    /// The time.
    pub retry_after: Duration,
}

impl<K: Eq + Hash> Default for RateLimiter<K> {
    fn default() -> Self {
        Self::new(MAX_KEYS)
    }
}

impl<K: Eq + Hash> RateLimiter<K> {
    /// A limiter that counts so many keys at a time.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { capacity, earned_at: Mutex::default() }
    }

    /// Takes one of `per_minute`: so many at once, which are earned again evenly over the minute.
    ///
    /// # Errors
    /// [`TooOften`], and nothing is taken; also when too many keys are counted already.
    pub fn take(&self, key: K, per_minute: u32, now: Timestamp) -> Result<(), TooOften> {
        let now = now.millis() * 1_000;
        let window = MINUTE_MS * 1_000;
        let each = window / u64::from(per_minute.max(1));
        let mut earned_at = self.earned_at.lock().unwrap_or_else(PoisonError::into_inner);
        if earned_at.len() >= self.capacity && !earned_at.contains_key(&key) {
            earned_at.retain(|_, at| *at > now);
            if earned_at.len() >= self.capacity {
                return Err(TooOften { retry_after: Duration::from_micros(each) });
            }
        }
        let of_key = earned_at.entry(key).or_insert(now);
        let next = (*of_key).max(now) + each;
        // Rounding must not cost the last of a minute.
        let most = now + each * u64::from(per_minute.max(1));
        if next > most {
            return Err(TooOften { retry_after: Duration::from_micros(next - most) });
        }
        *of_key = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    #[test]
    fn so_many_are_taken_at_once_and_then_they_are_earned_evenly() {
        for per_minute in [1, 7, 60, 10_000] {
            let limiter = RateLimiter::default();
            for nth in 0..per_minute {
                assert_eq!(limiter.take("a", per_minute, at(0)), Ok(()), "{nth} of {per_minute}");
            }
            let refused = limiter.take("a", per_minute, at(0)).unwrap_err();
            let micros = refused.retry_after.as_micros() as u64;
            assert_eq!(micros, 60_000_000 / u64::from(per_minute));
            assert_eq!(limiter.take("b", per_minute, at(0)), Ok(()), "another key has its own");
            let later = at(micros.div_ceil(1_000));
            assert_eq!(limiter.take("a", per_minute, later), Ok(()));
        }
    }

    #[test]
    fn what_is_refused_takes_nothing() {
        let limiter = RateLimiter::default();
        assert!(limiter.take("a", 1, at(0)).is_ok());
        for _ in 0..100 {
            assert!(limiter.take("a", 1, at(30_000)).is_err());
        }
        assert!(limiter.take("a", 1, at(59_999)).is_err());
        assert!(limiter.take("a", 1, at(60_000)).is_ok());
    }

    #[test]
    fn a_lowered_rate_holds_at_once_and_a_raised_one_too() {
        let limiter = RateLimiter::default();
        for _ in 0..30 {
            limiter.take("a", 60, at(0)).unwrap();
        }
        assert!(limiter.take("a", 2, at(0)).is_ok(), "half of a minute is earned under any rate");
        assert!(limiter.take("a", 2, at(0)).is_err());
        assert!(limiter.take("a", 60, at(0)).is_err());
        assert!(limiter.take("a", 60, at(1_000)).is_ok());
    }

    #[test]
    fn keys_are_bounded_and_those_that_took_nothing_lately_make_room() {
        let limiter = RateLimiter::new(2);
        limiter.take(1, 60, at(0)).unwrap();
        limiter.take(2, 60, at(0)).unwrap();
        assert!(limiter.take(3, 60, at(999)).is_err());
        assert!(limiter.take(3, 60, at(1_000)).is_ok());
    }
}
