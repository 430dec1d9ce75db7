//! The look-up of a post by its message id, made for each post.
//!
//! A read transaction costs more than the look-up itself, so a connection keeps one open over many
//! look-ups. What it does not see yet is in the overlay: the keeper ends these transactions after
//! each commit of the projector, before it takes anything out of the overlay.

use std::path::Path;

use convene_model::{GroupKey, MessageId};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    sqlite::open_reader,
    store::{options::MAX_ROWS_PER_READ, types::FoundMessage},
};

/// Connections, over which the groups are spread.
const CONNECTIONS: usize = 2;

/// The connections for look-ups.
pub(crate) struct Lookup {
    connections: Vec<Mutex<Connection>>,
    /// For reading all ids of a group, page by page; it keeps no transaction open.
    pages: Mutex<Connection>,
}

impl Lookup {
    pub(crate) fn open(path: &Path) -> Result<Self, rusqlite::Error> {
        let connections = (0..CONNECTIONS)
            .map(|_| open_reader(path).map(Mutex::new))
            .collect::<Result<_, rusqlite::Error>>()?;
        Ok(Self { connections, pages: Mutex::new(open_reader(path)?) })
    }

    /// The projected message ids of a group after `after`, in order, at most
    /// [`MAX_ROWS_PER_READ`]. It sees everything that is committed by now.
    pub(crate) fn ids(
        &self,
        key: &GroupKey,
        after: &str,
    ) -> Result<Vec<MessageId>, rusqlite::Error> {
        let connection = self.pages.lock();
        let mut statement = connection.prepare_cached(
            "SELECT message_id FROM message_ids WHERE group_key = ?1 AND message_id > ?2
             ORDER BY message_id LIMIT ?3",
        )?;
        let mut rows = statement.query(params![&key.0[..], after, MAX_ROWS_PER_READ as i64])?;
        let mut ids = Vec::new();
        while let Some(row) = rows.next()? {
            let text: String = row.get(0)?;
            let id = MessageId::new(text).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(
                    0,
                    rusqlite::types::Type::Text,
                    Box::new(error),
                )
            })?;
            ids.push(id);
        }
        Ok(ids)
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
