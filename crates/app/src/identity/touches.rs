//! When bearer tokens were used last, written beside the requests that use them: a thousand clients
//! that come back at the same moment wait for no commit of it.

use std::{collections::HashMap, time::Duration};

use convene_db::{Statement, params};
use convene_model::Timestamp;
use parking_lot::Mutex;

use crate::state::AppState;

/// How long uses are gathered before they are written in one transaction.
const GATHER: Duration = Duration::from_millis(250);

/// Uses that are not written yet, by the token's id. As many as there are tokens at most.
#[derive(Default)]
pub(crate) struct Touches(Mutex<HashMap<String, Timestamp>>);

impl Touches {
    /// Notes a use. A crash before it is written forgets it, which is all that can happen.
    pub(crate) fn note(&self, state: &AppState, token_id: &str, now: Timestamp) {
        let mut waiting = self.0.lock();
        let first = waiting.is_empty();
        waiting.insert(token_id.to_owned(), now);
        if first {
            let state = state.clone();
            tokio::spawn(async move {
                tokio::time::sleep(GATHER).await;
                write(&state).await;
            });
        }
    }
}

async fn write(state: &AppState) {
    const SQL: &str = "UPDATE api_tokens SET last_used_at = $2 WHERE token_id = $1";
    let noted = std::mem::take(&mut *state.touches.0.lock());
    let statements =
        noted.iter().map(|(token, at)| Statement::new(SQL, params![token, at.millis()]));
    if let Err(error) = state.db.batch(statements.collect()).await {
        tracing::warn!(%error, "the last use of some tokens could not be noted");
    }
}
