//! The journal's files: `journal-000001.db`, `journal-000002.db`, …; the last one is written.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
};

use rusqlite::{Connection, ErrorCode, config::DbConfig, hooks::Wal, params};

use crate::{
    control::Control,
    journal::{
        checkpointer::Checkpointer,
        row::{self, JournalRow, SCHEMA},
    },
    pending::Pending,
    sqlite::{Durability, open_writer},
    store::error::StoreError,
};

/// Tells one data directory's journal from another's.
pub(crate) type JournalId = [u8; 16];

/// The file that is being written.
pub(crate) struct JournalFile {
    connection: Connection,
    /// Pages of its WAL.
    wal_pages: Arc<AtomicI32>,
    checkpointer: Checkpointer,
    dir: PathBuf,
    journal_id: JournalId,
    number: u64,
    next_pos: u64,
    /// Bytes appended to this file.
    bytes: u64,
    buffer: Vec<u8>,
    /// Whether it was found with a row from which on nothing of its group is left.
    wiped: bool,
}

/// A file that is written no more.
pub(crate) struct RetiredFile {
    /// Still open when the file was retired while the store ran; closing it takes a moment.
    pub(crate) connection: Option<Connection>,
    pub(crate) path: PathBuf,
    /// The position of its last row.
    pub(crate) last_pos: u64,
}

/// What was found in one file.
struct Found {
    connection: Connection,
    path: PathBuf,
    number: u64,
    journal_id: JournalId,
    first_pos: u64,
    last_pos: u64,
    /// Whether it has a row from which on nothing of its group is left.
    wiped: bool,
}

/// The journal as it was found, or as it was begun.
pub(crate) struct OpenedJournal {
    pub(crate) file: JournalFile,
    pub(crate) retired: Vec<RetiredFile>,
    /// The first position that its files still hold, or would hold.
    pub(crate) first_pos: u64,
}

impl OpenedJournal {
    /// Opens the files of a directory, in order, and begins the first if there is none and
    /// `may_begin`.
    ///
    /// Each file's WAL is checkpointed before anything is read: a commit whose outcome was unknown
    /// stands from here on, or is gone.
    pub(crate) fn open(dir: &Path, may_begin: bool) -> Result<Self, StoreError> {
        fs::create_dir_all(dir)?;
        let mut found: Vec<Found> = Vec::new();
        for (number, path) in list(dir)? {
            let previous = found.last();
            let expected_pos = previous.map(|file| file.last_pos + 1);
            if previous.is_some_and(|previous| previous.number + 1 != number) {
                return Err(StoreError::Refused(format!(
                    "a journal file is missing before {}",
                    path.display()
                )));
            }
            let journal_id = previous.map(|file| file.journal_id);
            let file = open_existing(path, number, journal_id, expected_pos)?;
            found.push(file);
        }
        if found.is_empty() {
            if !may_begin {
                return Err(StoreError::Refused(format!(
                    "the journal is missing in {}, but what follows it is there",
                    dir.display()
                )));
            }
            let id = *uuid::Uuid::new_v4().as_bytes();
            found.push(create(dir, 1, id, 1)?);
        }
        let first_pos = found.first().map_or(1, |file| file.first_pos);
        let Some(last) = found.pop() else {
            return Err(StoreError::Failed("the journal has no file".into()));
        };
        let retired = found
            .into_iter()
            .map(|file| RetiredFile { connection: None, path: file.path, last_pos: file.last_pos })
            .collect();
        let bytes = fs::metadata(&last.path)?.len();
        let mut connection = last.connection;
        let file = JournalFile {
            wal_pages: count_pages(&mut connection)?,
            connection,
            checkpointer: Checkpointer::spawn()?,
            dir: dir.to_owned(),
            journal_id: last.journal_id,
            number: last.number,
            next_pos: last.last_pos + 1,
            bytes,
            buffer: Vec::new(),
            wiped: last.wiped,
        };
        Ok(Self { file, retired, first_pos })
    }

    /// Which journal this is.
    pub(crate) fn journal_id(&self) -> JournalId {
        self.file.journal_id
    }

    /// The position of the last row.
    pub(crate) fn last_pos(&self) -> u64 {
        self.file.next_pos - 1
    }

    /// Hands out each row after `position`, in order.
    pub(crate) fn rows_after(
        &self,
        position: u64,
        mut each: impl FnMut(JournalRow) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut read = |connection: &Connection| -> Result<(), StoreError> {
            let sql = format!("SELECT {} FROM journal WHERE pos > ?1 ORDER BY pos", row::COLUMNS);
            let mut statement = connection.prepare(&sql)?;
            let mut rows = statement.query([position as i64])?;
            while let Some(row) = rows.next()? {
                each(JournalRow::read(row)?.map_err(StoreError::Refused)?)?;
            }
            Ok(())
        };
        for retired in &self.retired {
            if retired.last_pos > position {
                read(&open(&retired.path)?)?;
            }
        }
        read(&self.file.connection)
    }
}

impl JournalFile {
    /// Writes one transaction: a row for each group's batches. Returns the position of the first
    /// row. After an error the outcome is unknown.
    pub(crate) fn commit(&mut self, rows: &[Vec<&Arc<Pending>>]) -> Result<u64, rusqlite::Error> {
        let first_pos = self.next_pos;
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for (row, pos) in rows.iter().zip(first_pos..) {
            row::append(&self.connection, pos, row, &mut self.buffer)?;
            self.bytes += self.buffer.len() as u64 + 128;
        }
        if rows.iter().flatten().any(|pending| pending.control.is_some()) {
            self.connection.pragma_update(None, "user_version", row::FORMAT_WITH_CONTROLS)?;
        }
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        self.next_pos += rows.len() as u64;
        Ok(first_pos)
    }

    /// Sees to the WAL: called when those who waited for a commit have been told.
    pub(crate) fn tend(&self) {
        let path = || file_path(&self.dir, self.number);
        self.checkpointer.tend(&self.connection, path, self.wal_pages.load(Ordering::Relaxed));
    }

    /// Bytes appended to the file, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the file that was found still has what a wiped group had: a crash came between the wipe and the
    /// file that should have followed.
    pub(crate) fn has_wiped(&self) -> bool {
        self.wiped
    }

    /// Begins the next file and returns the one before. After an error this file goes on, as if the
    /// next had never been begun.
    ///
    /// # Errors
    /// The outer one is fatal: what there is of the next file could not be removed.
    pub(crate) fn rotate(&mut self) -> Result<Result<RetiredFile, StoreError>, StoreError> {
        let next = match create(&self.dir, self.number + 1, self.journal_id, self.next_pos) {
            Ok(next) => next,
            Err(error) => {
                let path = file_path(&self.dir, self.number + 1);
                match fs::remove_file(&path) {
                    Ok(()) => {}
                    Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => {}
                    Err(stays) => return Err(stays.into()),
                }
                remove_companions(&path);
                File::open(&self.dir)?.sync_all()?;
                return Ok(Err(error));
            }
        };
        let mut connection = next.connection;
        self.wal_pages = count_pages(&mut connection)?;
        self.checkpointer.forget();
        let retired = RetiredFile {
            connection: Some(std::mem::replace(&mut self.connection, connection)),
            path: file_path(&self.dir, self.number),
            last_pos: self.next_pos - 1,
        };
        self.number = next.number;
        self.bytes = 0;
        self.wiped = false;
        Ok(Ok(retired))
    }

    /// Copies the WAL into the file, for a shutdown that leaves nothing to recover.
    pub(crate) fn close(self) -> Result<(), StoreError> {
        drop(self.checkpointer);
        checkpoint(&self.connection)
    }

    #[cfg(test)]
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl RetiredFile {
    /// Closes the file without copying its WAL: recovery reads the WAL as well, and most retired
    /// files are soon removed.
    pub(crate) fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            let kept = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            if let Err(error) = kept {
                tracing::debug!(%error, "a retired journal file is checkpointed as it is closed");
            }
        }
    }

    /// Removes the file. The database goes first: what is left of it then is never read.
    pub(crate) fn remove(&mut self) -> std::io::Result<()> {
        self.close();
        fs::remove_file(&self.path)?;
        remove_companions(&self.path);
        Ok(())
    }
}

fn open_existing(
    path: PathBuf,
    number: u64,
    journal_id: Option<JournalId>,
    expected_pos: Option<u64>,
) -> Result<Found, StoreError> {
    let connection = open(&path)?;
    let has_meta: bool = connection.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE name = 'meta'",
        [],
        |row| row.get(0),
    )?;
    if !has_meta {
        // A crash came between the file's creation and its first transaction. Nothing was ever
        // written to it, and a file is only begun when the one before is complete.
        let id = journal_id.unwrap_or_else(|| *uuid::Uuid::new_v4().as_bytes());
        return begin(connection, path, number, id, expected_pos.unwrap_or(1));
    }
    let format: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if !(row::FORMAT..=row::FORMAT_WITH_CONTROLS).contains(&format) {
        return Err(StoreError::Refused(format!(
            "{} has format {format}, this version knows {}",
            path.display(),
            row::FORMAT_WITH_CONTROLS
        )));
    }
    settle(&connection, &path)?;
    let (id, file, first_pos): (JournalId, i64, i64) =
        connection.query_row("SELECT journal_id, file, first_pos FROM meta", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    let last: Option<i64> =
        connection.query_row("SELECT max(pos) FROM journal", [], |row| row.get(0))?;
    let first_pos = first_pos as u64;
    let belongs = file as u64 == number
        && journal_id.is_none_or(|expected| expected == id)
        && expected_pos.is_none_or(|expected| expected == first_pos);
    if !belongs {
        return Err(StoreError::Refused(format!(
            "{} does not continue the journal files before it",
            path.display()
        )));
    }
    let last_pos = last.map_or(first_pos - 1, |last| last as u64);
    let wiped = format == row::FORMAT_WITH_CONTROLS && ends_a_group(&connection)?;
    Ok(Found { connection, path, number, journal_id: id, first_pos, last_pos, wiped })
}

/// Whether a file has a row from which on nothing of its group is left.
fn ends_a_group(connection: &Connection) -> Result<bool, StoreError> {
    let mut controls = connection.prepare("SELECT body FROM journal WHERE n = 0")?;
    let mut rows = controls.query([])?;
    while let Some(row) = rows.next()? {
        let body: Vec<u8> = row.get(0)?;
        // What cannot be read is refused where the rows are read.
        if Control::decode(&body).is_ok_and(|control| control.ends_the_group()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn create(
    dir: &Path,
    number: u64,
    journal_id: JournalId,
    first_pos: u64,
) -> Result<Found, StoreError> {
    let path = file_path(dir, number);
    remove_companions(&path);
    let connection = open(&path)?;
    let found = begin(connection, path, number, journal_id, first_pos)?;
    File::open(dir)?.sync_all()?;
    Ok(found)
}

fn begin(
    connection: Connection,
    path: PathBuf,
    number: u64,
    journal_id: JournalId,
    first_pos: u64,
) -> Result<Found, StoreError> {
    let mut connection = connection;
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute(
        "INSERT INTO meta (journal_id, file, first_pos) VALUES (?1, ?2, ?3)",
        params![&journal_id[..], number as i64, first_pos as i64],
    )?;
    transaction.commit()?;
    let last_pos = first_pos - 1;
    Ok(Found { connection, path, number, journal_id, first_pos, last_pos, wiped: false })
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let failed = |error| StoreError::Failed(format!("{}: {error}", path.display()));
    let connection = open_writer(path, Durability::Full, "").map_err(failed)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(failed)?;
    Ok(connection)
}

/// Keeps count of the pages in the WAL of a connection.
pub(crate) fn count_pages(connection: &mut Connection) -> Result<Arc<AtomicI32>, rusqlite::Error> {
    let pages = Arc::new(AtomicI32::new(0));
    let counted = Arc::clone(&pages);
    connection.wal_hook(Some(move |_: &mut Wal, pages| {
        counted.store(pages, Ordering::Relaxed);
        Ok(())
    }))?;
    Ok(pages)
}

/// Makes what is in a file and its WAL stand, whatever became of the commits that wrote it.
fn settle(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let busy = match connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
    {
        // Without room for a checkpoint the WAL itself is synced: it stands just as well.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
            tracing::warn!(path = %path.display(), "no room to checkpoint; its WAL stays");
            let mut wal = path.as_os_str().to_owned();
            wal.push("-wal");
            File::open(PathBuf::from(wal))?.sync_all()?;
            0
        }
        found => found?,
    };
    if busy != 0 {
        return Err(StoreError::Failed("another process holds the journal".into()));
    }
    Ok(())
}

fn checkpoint(connection: &Connection) -> Result<(), StoreError> {
    let busy: i64 =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy != 0 {
        return Err(StoreError::Failed("another process holds the journal".into()));
    }
    Ok(())
}

fn file_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("journal-{number:06}.db"))
}

/// The journal files of a directory, by number.
pub(crate) fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("journal-")?.strip_suffix(".db"))
            .and_then(|digits| digits.parse::<u64>().ok());
        if let Some(number) = number {
            files.push((number, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

/// Removes what SQLite keeps beside a database that is not there.
fn remove_companions(path: &Path) {
    for suffix in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match fs::remove_file(PathBuf::from(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "a file beside a journal file stays"),
        }
    }
}
