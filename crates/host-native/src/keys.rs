//! The services' keys in the data directory: made at the first start, readable by the owner only.
//! How they are rotated stands in [`ring`], how running services notice in [`watch`].

pub mod ring;
pub mod watch;

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner may read it.
    #[error("{path}: others than its owner may read or write it; run `chmod 600` on it")]
    Exposed {
        /// Which file.
        path: PathBuf,
    },
    /// It is not a key.
    #[error("{path}: a key file has exactly 32 bytes")]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
}

/// Thirty-two secret bytes in a file of their own.
///
/// # Errors
/// [`KeyFileError`] when the file cannot be made or read, or is not a private key file.
pub fn load_or_make(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    match load(path) {
        Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            make(path).map_err(|source| KeyFileError::Io { path: path.to_owned(), source })?;
            load(path)
        }
        loaded => loaded,
    }
}

/// Thirty-two secret bytes in a file that must be there.
///
/// # Errors
/// [`KeyFileError`] when the file cannot be read or is not a private key file.
pub fn load(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned() });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(33));
    file.take(33).read_to_end(&mut bytes).map_err(io)?;
    let key: [u8; 32] = bytes
        .as_slice()
        .try_into()
        .map_err(|_| KeyFileError::Malformed { path: path.to_owned() })?;
    Ok(Zeroizing::new(key))
}

/// Writes a new key under another name first, so that a crash leaves no half a key, and gives it
/// its name only if there is none: of several processes that start at once, one makes the key.
fn make(path: &Path) -> io::Result<()> {
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(key.as_mut()).map_err(io::Error::other)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(key.as_ref())?;
    file.sync_all()?;
    let named = fs::hard_link(&fresh, path);
    fs::remove_file(&fresh)?;
    match named {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    if let Some(folder) = path.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys").join("app.key");
        assert!(load(&path).is_err(), "a key that is named must be there");
        let first = load_or_make(&path).unwrap();
        assert_eq!(load(&path).unwrap(), first);
        let other = load_or_make(&path.with_file_name("agents.key")).unwrap();
        assert_ne!(other, first);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2, "nothing is left");
    }

    #[test]
    fn a_key_that_another_process_has_just_made_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.key");
        make(&path).unwrap();
        let first = load(&path).unwrap();
        make(&path).unwrap();
        assert_eq!(load(&path).unwrap(), first);
    }

    #[test]
    fn an_exposed_or_malformed_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.key");
        fs::write(&path, [1; 32]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(load_or_make(&path), Err(KeyFileError::Exposed { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(load_or_make(&path).is_ok());
        for len in [31, 33] {
            fs::write(&path, vec![1; len]).unwrap();
            assert!(matches!(load_or_make(&path), Err(KeyFileError::Malformed { .. })));
        }
    }
}
