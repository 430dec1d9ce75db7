//! Copies the WAL of the journal's file into the file, beside the committer.
//!
//! SQLite would do that within a commit, and every post that waits for the commit would wait for
//! megabytes to be copied and synced. Here a thread of low priority copies what has been committed by
//! then while the committer goes on; the few pages that came meanwhile are left to the committer, which
//! then begins the WAL anew, in place.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{Builder, JoinHandle},
};

use rusqlite::{Connection, config::DbConfig};

use crate::sqlite::{Durability, open_writer};

/// Pages of the WAL from which on they are copied.
const CHECKPOINT_PAGES: i32 = 8000;

/// Pages that are little enough to be copied between two commits.
const FEW_PAGES: i64 = 200;
/// How often the thread copies what came while it did, before the committer is left with the rest.
const MAX_ROUNDS: usize = 4;

/// Nothing is asked.
const IDLE: u8 = 0;
/// The thread copies, or will.
const ASKED: u8 = 1;
/// It has copied what there was: the committer does the rest.
const COPIED: u8 = 2;

/// The thread that copies, as the committer knows it.
pub(crate) struct Checkpointer {
    requests: Option<Sender<Request>>,
    state: Arc<AtomicU8>,
    thread: Option<JoinHandle<()>>,
}

struct Request {
    /// The file; `None` when none is to be kept open any more.
    path: Option<PathBuf>,
    state: Arc<AtomicU8>,
}

impl Checkpointer {
    /// Begins the thread.
    pub(crate) fn spawn() -> std::io::Result<Self> {
        let (requests, received) = channel();
        let thread = Builder::new().name("convene-checkpt".into()).spawn(move || run(&received))?;
        Ok(Self { requests: Some(requests), state: Arc::default(), thread: Some(thread) })
    }

    /// Sees to the WAL after a commit that has left it with so many pages: has it copied, or does the
    /// rest of it. Nothing depends on success: what is not copied now is copied later.
    pub(crate) fn tend(&self, connection: &Connection, path: impl FnOnce() -> PathBuf, pages: i32) {
        match self.state.load(Ordering::Acquire) {
            IDLE if pages >= CHECKPOINT_PAGES => {
                self.state.store(ASKED, Ordering::Release);
                self.ask(Some(path()));
            }
            COPIED => {
                self.state.store(IDLE, Ordering::Release);
                let _ = copy(connection);
            }
            _ => {}
        }
    }

    /// Lets go of the file: another one is written from now on.
    pub(crate) fn forget(&mut self) {
        // What was asked about the former file says nothing about the next.
        self.state = Arc::default();
        self.ask(None);
    }

    fn ask(&self, path: Option<PathBuf>) {
        if let Some(requests) = &self.requests {
            // A thread that is gone copies nothing; the WAL then grows until the file is full.
            let _ = requests.send(Request { path, state: Arc::clone(&self.state) });
        }
    }
}

impl Drop for Checkpointer {
    /// Waits until the thread has let go of the file.
    fn drop(&mut self) {
        self.requests = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the journal's checkpointer panicked");
        }
    }
}

fn run(requests: &Receiver<Request>) {
    convene_threads::become_background();
    let mut open: Option<(PathBuf, Connection)> = None;
    while let Ok(Request { path, state }) = requests.recv() {
        let Some(path) = path else {
            open = None;
            continue;
        };
        if open.as_ref().is_none_or(|(opened, _)| *opened != path) {
            open = match open_beside(&path) {
                Ok(connection) => Some((path, connection)),
                Err(error) => {
                    tracing::warn!(%error, "the journal's WAL cannot be copied beside its commits");
                    None
                }
            };
        }
        if let Some((_, connection)) = &open {
            let mut copied = 0;
            for _ in 0..MAX_ROUNDS {
                let Some(progress) = copy(connection) else { break };
                // The committer went on meanwhile.
                let came_since = progress.pages - copied;
                copied = progress.copied;
                if came_since <= FEW_PAGES || copied < progress.pages {
                    break;
                }
            }
        }
        // However it went: the committer tries as well, and asks again.
        state.store(COPIED, Ordering::Release);
    }
}

/// A connection beside the committer's; closing it leaves the file and its WAL alone.
fn open_beside(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = open_writer(path, Durability::Full, "")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// How far the copying has come.
struct Progress {
    /// Pages of the WAL.
    pages: i64,
    /// Pages of it that are copied.
    copied: i64,
}

/// Copies as much as can be without waiting for anybody.
fn copy(connection: &Connection) -> Option<Progress> {
    let copied = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        Ok(Progress { pages: row.get(1)?, copied: row.get(2)? })
    });
    copied.inspect_err(|error| tracing::warn!(%error, "the journal's WAL is not copied yet")).ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// A file as the journal has them, with a table, and the pages in its WAL.
    fn file(path: &Path) -> (Connection, Arc<std::sync::atomic::AtomicI32>) {
        let mut connection = open_writer(path, Durability::Full, "").unwrap();
        connection.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        connection.execute_batch("CREATE TABLE rows (body BLOB)").unwrap();
        let pages = crate::journal::files::count_pages(&mut connection).unwrap();
        (connection, pages)
    }

    fn commit(connection: &Connection, bytes: usize) {
        connection.execute("INSERT INTO rows VALUES (zeroblob(?1))", [bytes as i64]).unwrap();
    }

    /// Commits a little and tends until the WAL has begun anew.
    fn until_anew(
        checkpointer: &Checkpointer,
        connection: &Connection,
        path: &Path,
        pages: &std::sync::atomic::AtomicI32,
    ) {
        let began = Instant::now();
        while pages.load(Ordering::Relaxed) >= CHECKPOINT_PAGES {
            assert!(began.elapsed() < Duration::from_secs(60), "the WAL was never begun anew");
            std::thread::yield_now();
            checkpointer.tend(connection, || path.to_owned(), pages.load(Ordering::Relaxed));
            if checkpointer.state.load(Ordering::Acquire) == IDLE {
                commit(connection, 10);
            }
        }
    }

    #[test]
    fn a_long_wal_is_copied_beside_the_commits_and_begun_anew_and_a_short_one_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let (connection, pages) = file(&path);
        let checkpointer = Checkpointer::spawn().unwrap();
        commit(&connection, 10);
        checkpointer.tend(&connection, || unreachable!("nothing is asked"), 3);
        for _ in 0..3 {
            while pages.load(Ordering::Relaxed) < CHECKPOINT_PAGES {
                commit(&connection, 4 << 20);
            }
            until_anew(&checkpointer, &connection, &path, &pages);
        }
        let count = |table: &str| -> i64 {
            connection
                .query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0))
                .unwrap()
        };
        assert!(count("rows") > 20);
        let wal = std::fs::metadata(dir.path().join("a.db-wal")).unwrap().len();
        let bound = 2 * u64::from(CHECKPOINT_PAGES.unsigned_abs()) * 4096;
        assert!(wal < bound, "the WAL has {wal} bytes and is not begun anew in place");
    }

    #[test]
    fn a_file_that_is_let_go_of_is_closed_with_its_wal_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let (connection, pages) = file(&path);
        let mut checkpointer = Checkpointer::spawn().unwrap();
        while pages.load(Ordering::Relaxed) < CHECKPOINT_PAGES {
            commit(&connection, 4 << 20);
        }
        until_anew(&checkpointer, &connection, &path, &pages);
        checkpointer.forget();
        drop(checkpointer);
        // Nobody but this connection holds the file, so that it may do what needs it alone.
        let busy: i64 =
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
        assert_eq!(busy, 0);
        drop(connection);
        let open = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| {
            let open = std::fs::read_link(fd.ok()?.path()).ok()?;
            open.starts_with(dir.path()).then_some(open)
        });
        assert_eq!(open.collect::<Vec<_>>(), Vec::<PathBuf>::new());
    }
}
