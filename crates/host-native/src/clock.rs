//! The one place where the time is read.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use convene_hop::Clock;
use convene_model::Timestamp;

/// The current time by the system's clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "everything else is handed the time")]
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(since_epoch.as_millis() as u64)
}

/// The system's clock.
#[must_use]
pub fn system() -> Clock {
    Arc::new(now)
}
