//! Tells controllers what has changed for many groups at once: an epoch that was raised, limits.

use std::sync::Arc;

use convene_db::DbError;
use futures_util::future::join_all;

use crate::Shared;

/// Controllers that are told at the same time.
const AT_ONCE: usize = 16;

pub(crate) async fn tell(shared: &Arc<Shared>) -> Result<u64, DbError> {
    let mut told = 0;
    loop {
        let untold = shared.directory.untold(AT_ONCE).await?;
        let asked = untold.len();
        let knows = untold.iter().map(async |untold| {
            let knows = shared.controllers.init(&untold.found).await.is_ok();
            if knows { shared.directory.told(untold).await.map(|()| 1) } else { Ok(0) }
        });
        let mut more = 0;
        for knows in join_all(knows).await {
            more += knows?;
        }
        told += more;
        // Those that are away are told in the next round.
        if asked < AT_ONCE || more == 0 {
            return Ok(told);
        }
    }
}
