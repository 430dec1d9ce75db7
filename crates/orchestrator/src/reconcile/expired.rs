//! Removes what is kept for a while only: idempotency keys, tasks that ended, events of falling asleep
//! and waking, reports of usage that are in the sums, reservations that ended, and flags of abuse. The sums and the
//! other events of a group's life are kept for ever.

use std::sync::Arc;

use convene_db::DbError;

use crate::Shared;

pub(super) async fn run(shared: &Arc<Shared>) -> Result<u64, DbError> {
    let until = shared.now() - shared.times.keep_ended;
    let keys = shared.idempotency.forget_expired().await?;
    let tasks = shared.directory.forget_tasks(until).await?;
    let events = shared.directory.forget_naps(until).await?;
    let reports = shared.directory.forget_reports(until, shared.now()).await?;
    let reservations = shared.directory.forget_reservations(until).await?;
    let flags = shared.directory.forget_flags(until).await?;
    Ok(keys + tasks + events + reports + reservations + flags)
}
