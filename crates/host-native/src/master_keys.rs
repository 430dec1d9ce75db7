//! The master keys of the App: where they stand, and how one takes another's place.
//!
//! The key in use is `keys/master.key` in the data directory, a file that the configuration names,
//! or a value in the environment; former ones lie in `keys/retired`, until nothing needs them. An
//! organization's own key is `keys/organizations/ORG.key`. Never touches what the keys guard.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use convene_app::secrets::{MasterKeys, master_key_id};
use convene_model::OrgId;
use zeroize::Zeroizing;

use crate::{
    config::Config,
    keys::{self, KeyFileError},
};

/// A master key that cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MasterKeyError {
    /// A key file cannot be used.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file among the organizations' own keys is named like none.
    #[error("{}: its name is no organization's id with .key behind it", .0.display())]
    NoOrganization(PathBuf),
    /// The key in use is no file.
    #[error(
        "the master key is set as a value: put the former one as a file into {}, set the new \
         value and start again", .0.display()
    )]
    NoFile(PathBuf),
}

/// Where the master keys of an App stand.
#[derive(Debug, Clone)]
pub(crate) struct MasterKeyFiles {
    /// Bytes from the configuration, which win over any file.
    inline: Option<Zeroizing<[u8; 32]>>,
    file: PathBuf,
    /// Whether the file is made when it is missing.
    is_default: bool,
    own: PathBuf,
    retired: PathBuf,
}

impl MasterKeyFiles {
    pub(crate) fn of(config: &Config) -> Self {
        let folder = config.data_dir.join("keys");
        let named = config.app.master_key_file.clone();
        Self {
            inline: config.app.master_key.as_ref().map(|key| key.bytes()),
            is_default: named.is_none(),
            file: named.unwrap_or_else(|| folder.join("master.key")),
            own: folder.join("organizations"),
            retired: folder.join("retired"),
        }
    }

    /// Reads the keys; the default file is made at the first start.
    pub(crate) fn load(&self) -> Result<MasterKeys, MasterKeyError> {
        let current = match &self.inline {
            Some(key) => key.clone(),
            None if self.is_default => keys::load_or_make(&self.file)?,
            None => keys::load(&self.file)?,
        };
        let mut retired = Vec::new();
        for path in key_files(&self.retired)? {
            retired.push(keys::load(&path)?);
        }
        let mut own = BTreeMap::new();
        for path in key_files(&self.own)? {
            let org = path.file_stem().and_then(|stem| OrgId::new(stem.to_str()?).ok());
            let org = org.ok_or_else(|| MasterKeyError::NoOrganization(path.clone()))?;
            own.insert(org, keys::load(&path)?);
        }
        Ok(MasterKeys { current, own, retired })
    }

    /// Puts a new key in the place of the one in use, which is kept among the retired ones. A crash
    /// in between leaves one of the two in use and loses neither.
    pub(crate) fn replace(&self) -> Result<MasterKeys, MasterKeyError> {
        if self.inline.is_some() {
            return Err(MasterKeyError::NoFile(self.retired.clone()));
        }
        let former = keys::load(&self.file)?;
        let kept = self.retired.join(format!("{}.key", master_key_id(&former)));
        if !kept.is_file() {
            write(&kept, &former)?;
        }
        let mut fresh = Zeroizing::new([0; 32]);
        let random = getrandom::fill(fresh.as_mut()).map_err(io::Error::other);
        random.map_err(|source| MasterKeyError::Io { path: self.file.clone(), source })?;
        write(&self.file, &fresh)?;
        self.load()
    }

    /// Removes the retired keys; the caller has made sure that nothing needs them.
    pub(crate) fn forget_retired(&self) -> Result<usize, MasterKeyError> {
        let files = key_files(&self.retired)?;
        for path in &files {
            fs::remove_file(path)
                .map_err(|source| MasterKeyError::Io { path: path.clone(), source })?;
        }
        Ok(files.len())
    }
}

/// The key files of a folder, if there is one.
fn key_files(folder: &Path) -> Result<Vec<PathBuf>, MasterKeyError> {
    let io = |source| MasterKeyError::Io { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "key") {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Writes a key under another name first, so that no crash leaves half a key.
fn write(path: &Path, key: &[u8; 32]) -> Result<(), MasterKeyError> {
    let written = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        if !folder.is_dir() {
            fs::create_dir_all(folder)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
        let fresh = path.with_extension(format!("new-{}", std::process::id()));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(key)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        fs::File::open(folder)?.sync_all()
    };
    written().map_err(|source| MasterKeyError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path) -> MasterKeyFiles {
        MasterKeyFiles::of(&Config { data_dir: dir.to_owned(), ..Config::default() })
    }

    #[test]
    fn a_replaced_key_stays_among_the_retired_ones_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        let first = files.load().unwrap();
        assert!(first.retired.is_empty());
        let second = files.replace().unwrap();
        assert_ne!(second.current, first.current);
        assert_eq!(second.retired, std::slice::from_ref(&first.current));
        assert_eq!(files.load().unwrap().current, second.current);
        let third = files.replace().unwrap();
        assert_eq!(third.retired.len(), 2);
        assert_eq!(files.forget_retired().unwrap(), 2);
        assert!(files.load().unwrap().retired.is_empty());
        let mode = fs::metadata(&files.file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_is_a_value_is_changed_where_it_is_set() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = files(dir.path());
        files.inline = Some(Zeroizing::new([3; 32]));
        assert_eq!(files.load().unwrap().current, Zeroizing::new([3; 32]));
        assert!(!files.file.exists(), "no file is made beside it");
        assert!(matches!(files.replace(), Err(MasterKeyError::NoFile(_))));
    }
}
