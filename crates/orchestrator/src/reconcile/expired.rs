//! Removes what is kept for a while only: idempotency keys, tasks that ended, and events of falling
//! asleep and waking. The other events of a group's life are kept for ever.

use std::sync::Arc;

use convene_db::DbError;

use crate::Shared;

pub(super) async fn run(shared: &Arc<Shared>) -> Result<u64, DbError> {
    let until = shared.now() - shared.times.keep_ended;
    let keys = shared.idempotency.forget_expired().await?;
    let tasks = shared.directory.forget_tasks(until).await?;
    let events = shared.directory.forget_naps(until).await?;
    Ok(keys + tasks + events)
}
