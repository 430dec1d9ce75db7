//! A folder as an object store: durable when a call returns, for its owner only.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use object_store::local::LocalFileSystem;

use super::{Store, unhurried::Unhurried};

/// How long an upload may stand still before its file counts as left over by a crash.
const ABANDONED_AFTER: Duration = Duration::from_secs(60 * 60);

/// What becomes of the files of uploads that a crash cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// They are removed: nobody else writes to the folder.
    Remove,
    /// They are removed an hour after their last byte: other processes may write to the folder.
    RemoveOld,
    /// They stay: who opens the folder only looks.
    Keep,
}

/// A folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The system refuses it.
    #[error("{}: {source}", path.display())]
    Io {
        /// The folder or a file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder's path cannot be one of a store.
    #[error(transparent)]
    Store(#[from] object_store::Error),
}

/// Opens the folder at `path`, makes it where there is none, and removes what uploads left behind
/// that a crash cut off.
///
/// # Errors
/// [`FolderError`] when it cannot be made or read.
pub fn open_folder(path: &Path, leftovers: Leftovers) -> Result<Store, FolderError> {
    let failed = |source| FolderError::Io { path: path.to_owned(), source };
    make_private(path).map_err(failed)?;
    match leftovers {
        Leftovers::Remove => remove_leftovers(path, Duration::ZERO).map_err(failed)?,
        Leftovers::RemoveOld => remove_leftovers(path, ABANDONED_AFTER).map_err(failed)?,
        Leftovers::Keep => {}
    }
    let folder = LocalFileSystem::new_with_prefix(path)?;
    Ok(Arc::new(Unhurried(folder.with_fsync(true).with_automatic_cleanup(true))))
}

/// Snapshots hold all that was said: nobody but the owner may look into the folder.
fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// An upload under way is a file beside its goal with `#` and a number at the end of its name; no
/// object has such a name.
fn remove_leftovers(dir: &Path, abandoned_after: Duration) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (kind, path) = (entry.file_type()?, entry.path());
        if kind.is_dir() {
            remove_leftovers(&path, abandoned_after)?;
        } else if kind.is_file() && is_upload(&entry.file_name().to_string_lossy()) {
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if age >= abandoned_after {
                tracing::info!(path = %path.display(), "what a crash left of an upload is removed");
                fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

fn is_upload(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, number)| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_folder_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/archives");
        open_folder(&path, Leftovers::Remove).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(open_folder(&path, Leftovers::Remove).is_ok(), "it opens again");
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(open_folder(&dir.path().join("file"), Leftovers::Remove).is_err());
    }

    #[test]
    fn what_a_crash_cut_off_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("groups/g1/archives");
        fs::create_dir_all(&inner).unwrap();
        for name in ["x.ndjson.gz", "x.ndjson.gz#1", "y.ndjson.gz#12", "z#", "z#a1"] {
            fs::write(inner.join(name), "text").unwrap();
        }
        let hour_old = inner.join("y.ndjson.gz#12");
        let then = fs::metadata(&hour_old).unwrap().modified().unwrap()
            - ABANDONED_AFTER
            - Duration::from_secs(60);
        fs::File::options().write(true).open(&hour_old).unwrap().set_modified(then).unwrap();

        open_folder(dir.path(), Leftovers::Keep).unwrap();
        assert!(hour_old.exists());
        open_folder(dir.path(), Leftovers::RemoveOld).unwrap();
        assert!(!hour_old.exists());
        assert!(inner.join("x.ndjson.gz#1").exists());
        open_folder(dir.path(), Leftovers::Remove).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(&inner).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["x.ndjson.gz", "z#", "z#a1"]);
    }
}
