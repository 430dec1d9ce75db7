//! Asks the controllers of groups that have been active for long whether they still are: a report
//! that a group fell asleep may have been lost with the process that was to make it.
//!
//! Asking wakes the group if it sleeps, and it then reports that it falls asleep again.

use std::{sync::Arc, time::Duration};

use convene_db::DbError;

use crate::Shared;

/// A group is asked again after this time.
const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Groups that are asked in one round.
const PER_ROUND: usize = 16;

pub(super) async fn run(shared: &Arc<Shared>) -> Result<u64, DbError> {
    let now = shared.now();
    let mut asked = 0;
    for found in shared.directory.long_active(now - EVERY, PER_ROUND).await? {
        if shared.controllers.init(&found).await.is_err() {
            // The others are most likely behind the same door; they are asked in the next round.
            break;
        }
        shared.directory.asked(&found, now).await?;
        asked += 1;
    }
    Ok(asked)
}
