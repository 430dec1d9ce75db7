//! The look-up of a post by its message id, made for each post.
//!
//! A read transaction costs more than the look-up itself, so a connection keeps one open over many
//! look-ups. What it does not see yet is in the overlay: the keeper ends these transactions after
//! each commit of the projector, before it takes anything out of the overlay.

use std::path::Path;

use convene_model::{GroupKey, MessageId};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};

use crate::{sqlite::open_reader, store::types::FoundMessage};

/// Connections, over which the groups are spread.
const CONNECTIONS: usize = 2;

/// The connections for look-ups.
pub(crate) struct Lookup {
    connections: Vec<Mutex<Connection>>,
}

impl Lookup {
    pub(crate) fn open(path: &Path) -> Result<Self, rusqlite::Error> {
        let connections = (0..CONNECTIONS)
            .map(|_| open_reader(path).map(Mutex::new))
            .collect::<Result<_, rusqlite::Error>>()?;
        Ok(Self { connections })
    }

    /// The projected post of this message.
    pub(crate) fn find(
        &self,
        key: &GroupKey,
        message_id: &MessageId,
    ) -> Result<Option<FoundMessage>, rusqlite::Error> {
        let connection = self.connections[usize::from(key.0[1]) % CONNECTIONS].lock();
        if connection.is_autocommit() {
            connection.prepare_cached("BEGIN")?.execute([])?;
        }
        connection
            .prepare_cached(
                "SELECT seq, digest FROM message_ids WHERE group_key = ?1 AND message_id = ?2",
            )?
            .query_row(params![&key.0[..], message_id.as_str()], |row| {
                Ok(FoundMessage { seq: row.get::<_, i64>(0)? as u64, digest: row.get(1)? })
            })
            .optional()
    }

    /// Ends the transactions: the next look-up sees everything that is committed by now.
    pub(crate) fn refresh(&self) {
        for connection in &self.connections {
            let connection = connection.lock();
            if !connection.is_autocommit()
                && let Err(error) =
                    connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]))
            {
                tracing::error!(%error, "a look-up's transaction did not end");
            }
        }
    }
}
