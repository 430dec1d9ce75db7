//! The services' keys in the data directory: made at the first start, readable by the owner only.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use convene_model::keys::SigningKey;
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
    let io = |source| KeyFileError::Io { path: path.to_owned(), source };
    match fs::File::open(path) {
        Ok(file) => {
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
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path).map_err(io),
        Err(error) => Err(io(error)),
    }
}

/// Writes a new key under another name first, so that a crash leaves no half a key.
fn make(path: &Path) -> io::Result<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(key.as_mut()).map_err(io::Error::other)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    let fresh = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(key.as_ref())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(key)
}

/// The signing key of a service, kept in `folder`.
///
/// # Errors
/// See [`load_or_make`].
pub fn signing_key(folder: &Path, issuer: &str) -> Result<SigningKey, KeyFileError> {
    let seed = load_or_make(&folder.join(format!("{issuer}.key")))?;
    Ok(SigningKey::from_seed(issuer, &seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("keys");
        let first = signing_key(&folder, "app").unwrap();
        assert_eq!(signing_key(&folder, "app").unwrap().kid(), first.kid());
        assert_ne!(signing_key(&folder, "agents").unwrap().kid(), first.kid());
        let mode = fs::metadata(folder.join("app.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
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
