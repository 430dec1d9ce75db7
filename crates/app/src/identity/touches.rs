//! When sessions and bearer tokens were used last, written beside the requests that use them: a thousand clients
//! that come back at the same moment wait for no commit of it.

use std::{collections::HashMap, time::Duration};

use convene_db::{Statement, params};
use convene_model::Timestamp;
use parking_lot::Mutex;

use crate::state::AppState;

/// How long uses are gathered before they are written in one transaction.
const GATHER: Duration = Duration::from_millis(250);

/// How exactly the last use of a token is known. What is open with one for longer uses it all the time.
pub(crate) const PRECISION: Duration = Duration::from_secs(60);

/// How exactly the last use of a session is known. There are far more of them, and people look for the day.
pub(crate) const SESSION_PRECISION: Duration = Duration::from_secs(10 * 60);

/// Whose sessions or tokens they are, which stand in different tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// A person's browser: a session, by its digest.
    Browser,
    /// A person's.
    Person,
    /// An outside agent's.
    Agent,
}

impl Holder {
    const fn precision(self) -> Duration {
        match self {
            Self::Browser => SESSION_PRECISION,
            Self::Person | Self::Agent => PRECISION,
        }
    }
}

/// Uses that are not written yet, by the id. As many as there are sessions and tokens at most.
#[derive(Default)]
pub(crate) struct Touches(Mutex<HashMap<(Holder, String), Timestamp>>);

impl Touches {
    /// Notes a use, unless one that was `noted` is as good. A crash before it is written forgets it, which
    /// is all that can happen.
    pub(crate) fn note(
        &self,
        state: &AppState,
        holder: Holder,
        id: &str,
        noted: Option<Timestamp>,
        now: Timestamp,
    ) {
        if noted.is_some_and(|noted| now.since(noted) < holder.precision()) {
            return;
        }
        let mut waiting = self.0.lock();
        let first = waiting.is_empty();
        waiting.insert((holder, id.to_owned()), now);
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
    const SESSIONS: &str = "UPDATE sessions SET last_used_at = $2 WHERE token_hash = $1";
    const PERSONS: &str = "UPDATE api_tokens SET last_used_at = $2 WHERE token_id = $1";
    const AGENTS: &str = "UPDATE agent_tokens SET last_used_at = $2 WHERE token_id = $1";
    let noted = std::mem::take(&mut *state.touches.0.lock());
    let statements = noted.iter().map(|((holder, id), at)| {
        let sql = match holder {
            Holder::Browser => SESSIONS,
            Holder::Person => PERSONS,
            Holder::Agent => AGENTS,
        };
        Statement::new(sql, params![id, at.millis()])
    });
    if let Err(error) = state.db.batch(statements.collect()).await {
        tracing::warn!(%error, "the last use of some sessions or tokens could not be noted");
    }
}
