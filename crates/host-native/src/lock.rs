//! The locks on a data directory: one process with everything, or several with a role each, of
//! which one at most has the groups.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use crate::config::Role;

/// Held as long as the process uses the directory; the operating system lets go of it when the
/// process ends, however it ends.
#[derive(Debug)]
pub struct DataDirLock {
    _files: Vec<File>,
}

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "another process is using the data directory {0}; stop it, or choose another --data-dir"
    )]
    InUse(String),
    /// Another process has the groups in it.
    #[error(
        "another controllers process has the groups of the data directory {0}; one at a time may"
    )]
    GroupsInUse(String),
    /// It cannot be made or opened.
    #[error("the data directory {0} cannot be used: {1}")]
    Unusable(String, io::Error),
}

impl DataDirLock {
    /// Makes the directory where it is missing, readable by the owner only, and locks it: for one
    /// process alone without a `role`, else beside other roles.
    ///
    /// # Errors
    /// [`LockError`] when another process has it or it cannot be used.
    pub fn acquire(dir: &Path, role: Option<Role>) -> Result<Self, LockError> {
        let shown = || dir.display().to_string();
        let unusable = |error| LockError::Unusable(shown(), error);
        if !dir.exists() {
            fs::create_dir_all(dir).map_err(unusable)?;
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(unusable)?;
        }
        let open = |name: &str| {
            let path = dir.join(name);
            OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(unusable)
        };
        let file = open("lock")?;
        let locked = if role.is_none() { file.try_lock() } else { file.try_lock_shared() };
        held(locked, || LockError::InUse(shown()), unusable)?;
        let mut files = vec![file];
        if role.is_none_or(|role| role == Role::Controllers) {
            let groups = open("groups.lock")?;
            held(groups.try_lock(), || LockError::GroupsInUse(shown()), unusable)?;
            files.push(groups);
        }
        Ok(Self { _files: files })
    }
}

fn held(
    locked: Result<(), TryLockError>,
    taken: impl FnOnce() -> LockError,
    unusable: impl FnOnce(io::Error) -> LockError,
) -> Result<(), LockError> {
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(taken()),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_used_by_one_process_with_everything_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDirLock::acquire(dir.path(), None).unwrap();
        for role in [None, Some(Role::App), Some(Role::Controllers)] {
            let refused = DataDirLock::acquire(dir.path(), role);
            assert!(matches!(refused, Err(LockError::InUse(_))), "{role:?}");
        }
        drop(held);
        assert!(DataDirLock::acquire(dir.path(), None).is_ok());
    }

    #[test]
    fn roles_share_a_directory_but_the_groups_have_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let held: Vec<_> = [Role::App, Role::App, Role::Orchestrator, Role::Controllers]
            .map(|role| DataDirLock::acquire(dir.path(), Some(role)).unwrap())
            .into();
        let second = DataDirLock::acquire(dir.path(), Some(Role::Controllers));
        assert!(matches!(second, Err(LockError::GroupsInUse(_))));
        assert!(matches!(DataDirLock::acquire(dir.path(), None), Err(LockError::InUse(_))));
        drop(held);
        assert!(DataDirLock::acquire(dir.path(), None).is_ok());
    }
}
