//! Copies of databases while others write to them, and the groups' store as a whole.
//!
//! A copy of the store is one that [`crate::GroupStore::open`] could have found after a crash: its
//! journal holds everything that its `rooms.db` does, and what follows. It carries a mark and is not
//! served before it was adopted, since its numbers will be used a second time.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{
    Connection,
    backup::{Backup, StepResult},
};

use crate::{
    journal::files,
    sqlite::open_onlooker,
    store::{ROOMS_FILE, error::StoreError},
};

/// The mark of a copy that was not adopted yet.
const UNADOPTED_FILE: &str = "backup-not-adopted";
/// Pages that are copied at a time.
const PAGES_PER_STEP: i32 = 256;
/// How long a copy waits when the source is busy for a moment.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Is told how many bytes more were copied.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// The bytes that [`copy_groups`] will copy, about.
///
/// # Errors
/// When the directory cannot be read.
pub fn size_of_groups(dir: &Path) -> Result<u64, StoreError> {
    let mut bytes = size_of_database(&dir.join(ROOMS_FILE));
    for (_, path) in files::list(dir)? {
        bytes += size_of_database(&path);
    }
    Ok(bytes)
}

/// The bytes that [`copy_database`] will copy, about; 0 when there is no such file.
#[must_use]
pub fn size_of_database(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Copies a store's files to `to`, an empty directory, whether a process uses them or not.
///
/// # Errors
/// [`StoreError::Failed`] when something cannot be read or written; what was copied stays.
pub fn copy_groups(from: &Path, to: &Path, progress: Progress<'_>) -> Result<(), StoreError> {
    // The mark comes first, so that a copy that breaks off is never taken for a store.
    let mark = OpenOptions::new().create_new(true).write(true).mode(0o600).open(mark_of(to))?;
    mark.sync_all()?;
    let rooms = open_source(&from.join(ROOMS_FILE))?;
    // As long as this transaction lasts, no checkpoint of `rooms.db` completes, so no journal file
    // is removed that has what comes after it.
    rooms.execute_batch("BEGIN")?;
    let position: i64 = rooms.query_row("SELECT pos FROM position", [], |row| row.get(0))?;
    copy(&rooms, &to.join(ROOMS_FILE), progress)?;
    let mut reaches_back = false;
    // The newest first: an old one that `rooms.db` covers may go at any moment, so none is touched.
    for (_, path) in files::list(from)?.into_iter().rev() {
        let name =
            path.file_name().ok_or_else(|| StoreError::Failed("a file without name".into()))?;
        let journal = open_source(&path)?;
        journal.execute_batch("BEGIN")?;
        let Some(first_pos) = first_pos(&journal)? else { continue };
        copy(&journal, &to.join(name), progress)?;
        if first_pos <= position + 1 {
            reaches_back = true;
            break;
        }
    }
    if !reaches_back {
        return Err(StoreError::Failed(format!("the journal has no row {}", position + 1)));
    }
    rooms.execute_batch("COMMIT")?;
    File::open(to)?.sync_all()?;
    Ok(())
}

/// The first row that a journal file may have; `None` when it was not begun yet.
fn first_pos(journal: &Connection) -> Result<Option<i64>, rusqlite::Error> {
    let begun: bool =
        journal.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'", [], |row| {
            row.get(0)
        })?;
    if !begun {
        return Ok(None);
    }
    journal.query_row("SELECT first_pos FROM meta", [], |row| row.get(0)).map(Some)
}

/// Copies one database as it is at the moment, whether others write to it or not.
///
/// # Errors
/// [`StoreError::Failed`] when it cannot be read or the copy cannot be written.
pub fn copy_database(from: &Path, to: &Path, progress: Progress<'_>) -> Result<(), StoreError> {
    let source = open_source(from)?;
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;")?;
    copy(&source, to, progress)
}

/// Whether a store is a copy that was not adopted yet.
pub(crate) fn is_unadopted(dir: &Path) -> bool {
    mark_of(dir).exists()
}

/// Takes the mark of a copy away: it is a store from now on.
///
/// # Errors
/// When the file system fails.
pub fn mark_adopted(dir: &Path) -> Result<(), StoreError> {
    match fs::remove_file(mark_of(dir)) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    Ok(File::open(dir)?.sync_all()?)
}

fn mark_of(dir: &Path) -> PathBuf {
    dir.join(UNADOPTED_FILE)
}

fn open_source(path: &Path) -> Result<Connection, StoreError> {
    open_onlooker(path).map_err(|error| StoreError::Failed(format!("{}: {error}", path.display())))
}

/// Copies what the source's transaction sees.
fn copy(source: &Connection, to: &Path, progress: Progress<'_>) -> Result<(), StoreError> {
    let page: u64 = source.query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0))? as u64;
    // Made by us, so that nobody else may read it for a moment.
    OpenOptions::new().create_new(true).write(true).mode(0o600).open(to)?;
    let mut target = Connection::open(to)?;
    {
        let backup = Backup::new(source, &mut target)?;
        let mut copied = 0;
        loop {
            let step = backup.step(PAGES_PER_STEP)?;
            let found = backup.progress();
            let now = (found.pagecount - found.remaining).max(0) as u64 * page;
            progress(now.saturating_sub(copied));
            copied = now;
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                StepResult::Busy | StepResult::Locked => std::thread::sleep(BUSY_PAUSE),
                other => return Err(StoreError::Failed(format!("the copy stopped: {other:?}"))),
            }
        }
    }
    target.close().map_err(|(_, error)| error)?;
    Ok(File::open(to)?.sync_all()?)
}
