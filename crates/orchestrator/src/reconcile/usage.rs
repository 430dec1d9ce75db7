//! Usage: reports are added up in batches, groups that have sent as many bytes as they may are closed,
//! and reservations whose runs never settled them are settled at their full amount.

use std::sync::Arc;

use convene_db::DbError;

use crate::{Shared, directory::usage::REPORTS_PER_BATCH, reconcile};

/// Batches that are added up in one round at most.
const BATCHES_PER_ROUND: usize = 64;

/// What a round has done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Round {
    pub(super) folded: u64,
    pub(super) expired: u64,
}

pub(super) async fn run(shared: &Arc<Shared>) -> Result<Round, DbError> {
    let now = shared.now();
    shared.directory.begin_month(now).await?;
    let expired = shared.directory.settle_expired(now).await?;
    if expired > 0 {
        tracing::warn!(expired, "runs did not say what they used; their full reservations count");
    }
    let mut folded = 0;
    for _ in 0..BATCHES_PER_ROUND {
        let batch = shared.directory.fold_reports().await?;
        folded += batch;
        if batch < REPORTS_PER_BATCH as u64 {
            break;
        }
    }
    if folded > 0 && shared.directory.close_for_egress(now).await? > 0 {
        reconcile::tell(shared).await?;
    }
    Ok(Round { folded, expired })
}
