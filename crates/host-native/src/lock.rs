//! The lock on the data directory: one process at a time.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// Held as long as the process uses the directory; the operating system lets go of it when the
/// process ends, however it ends.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "another process is using the data directory {0}; stop it, or choose another --data-dir"
    )]
    InUse(String),
    /// It cannot be made or opened.
    #[error("the data directory {0} cannot be used: {1}")]
    Unusable(String, io::Error),
}

impl DataDirLock {
    /// Makes the directory where it is missing, readable by the owner only, and locks it.
    ///
    /// # Errors
    /// [`LockError`] when another process has it or it cannot be used.
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        let shown = || dir.display().to_string();
        let unusable = |error| LockError::Unusable(shown(), error);
        if !dir.exists() {
            fs::create_dir_all(dir).map_err(unusable)?;
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(unusable)?;
        }
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::InUse(shown())),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        file.set_len(0).map_err(unusable)?;
        writeln!(file, "{}", std::process::id()).map_err(unusable)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_used_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDirLock::acquire(dir.path()).unwrap();
        assert!(matches!(DataDirLock::acquire(dir.path()), Err(LockError::InUse(_))));
        drop(held);
        assert!(DataDirLock::acquire(dir.path()).is_ok());
    }
}
