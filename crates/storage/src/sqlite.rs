//! How every SQLite file of ours is opened: WAL, and a durability that is asserted, not hoped for.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use crate::paced;

/// How long a connection waits for a lock that another one holds.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// When a commit counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// At each commit the WAL is synced: what was committed survives a loss of power.
    Full,
    /// The WAL is synced at checkpoints: a loss of power may take back the last commits, in order.
    Normal,
}

impl Durability {
    fn level(self) -> i64 {
        match self {
            Self::Normal => 1,
            Self::Full => 2,
        }
    }
}

/// Opens a file for writing, in WAL mode, and checks that SQLite took both settings.
///
/// `before` runs on the bare connection, for settings that must precede the first write.
pub(crate) fn open_writer(
    path: &Path,
    durability: Durability,
    before: &str,
) -> Result<Connection, rusqlite::Error> {
    paced::install();
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch(before)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    connection.pragma_update(None, "synchronous", durability.level())?;
    let level: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
    if mode != "wal" || level != durability.level() {
        return Err(refused(format!(
            "{} runs with journal_mode {mode} and synchronous {level}; wal and {} are required",
            path.display(),
            durability.level()
        )));
    }
    Ok(connection)
}

/// Opens an existing file for reading only.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Opens an existing file for looking at it: closing it, too, leaves it as it is.
pub(crate) fn open_onlooker(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = open_reader(path)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// Whether the file system or the disk failed, rather than a statement.
pub(crate) fn is_unavailable(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode as Code;
    matches!(
        error.sqlite_error_code(),
        Some(
            Code::DatabaseBusy
                | Code::DatabaseLocked
                | Code::DatabaseCorrupt
                | Code::NotADatabase
                | Code::DiskFull
                | Code::CannotOpen
                | Code::ReadOnly
                | Code::SystemIoFailure
                | Code::FileLockingProtocolFailed
                | Code::OutOfMemory
                | Code::NoLargeFileSupport
        )
    )
}

fn refused(message: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
        Some(message),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_have_a_wal_is_refused() {
        let error = open_writer(Path::new(":memory:"), Durability::Full, "").unwrap_err();
        assert!(error.to_string().contains("wal and 2 are required"), "{error}");
    }

    #[test]
    fn a_writer_has_the_durability_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        for (durability, level) in [(Durability::Full, 2), (Durability::Normal, 1)] {
            let connection = open_writer(&dir.path().join("a.db"), durability, "").unwrap();
            let found: i64 =
                connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
            assert_eq!(found, level);
        }
    }

    #[test]
    fn a_reader_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        open_writer(&path, Durability::Full, "")
            .unwrap()
            .execute_batch("CREATE TABLE t(x)")
            .unwrap();
        assert!(open_reader(&path).unwrap().execute("INSERT INTO t VALUES (1)", []).is_err());
    }
}
