//! The rotation of a service's signing key, as it stands beside its key file.
//!
//! Without a rotation a service has one key file and nothing else. The first rotation writes a
//! document beside it (`app.key` → `app.keys.json`): every key with its public half and times, no
//! secret. What a key is at a moment follows from the times alone, so several processes change over
//! together without talking to each other. Secrets stay in files of their own, 32 bytes each, and
//! are removed with the retirement; public halves stay for ever.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use convene_model::{
    Timestamp,
    keys::{Jwk, Jwks, SigningKey},
};
use serde::{Deserialize, Serialize};

use super::{KeyFileError, load, load_or_make, make};

/// How long a new key is published at least before it signs: running processes look for changes
/// every [`super::watch::LOOK_EVERY`], and other services read published keys again for a token of
/// an unknown key.
pub const MIN_PUBLISHED: Duration = Duration::from_secs(10);
/// How long after its last signature a key is retired at the earliest: the longest that any token
/// is honoured (a run's agent-access token, 15 minutes), with room for clocks that differ.
pub const RETIRE_AFTER: Duration = Duration::from_secs(20 * 60);
/// Keys of one service at most that are not retired.
pub const MAX_LIVE_KEYS: usize = 4;

/// Why a rotation was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// A key file cannot be used.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The document is not one.
    #[error("{path}: {problem}")]
    Document {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The step is not possible now.
    #[error("{0}")]
    Refused(String),
}

/// What a key is at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// Published, and will sign.
    Next,
    /// Signs.
    Signing,
    /// Signed until the next one did; still verifies tokens.
    Previous,
    /// Verifies nothing but what is kept for long.
    Retired,
}

/// One key of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// Its id.
    pub kid: String,
    /// The public half, unpadded base64url.
    pub x: String,
    /// The file of its secret, in the folder of the document.
    file: String,
    /// When it was made, milliseconds.
    pub made_at: Timestamp,
    /// When it begins to sign, milliseconds; 0 for the first.
    pub signs_from: Timestamp,
    /// When it was retired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<Timestamp>,
}

/// All keys that a service ever had, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ring {
    format: u32,
    service: String,
    keys: Vec<KeyEntry>,
}

/// The key files of one service.
#[derive(Debug, Clone)]
pub struct KeyFiles {
    service: &'static str,
    key_file: PathBuf,
    must_exist: bool,
}

/// What tells one version of a document from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version(u64, i64, i64, u64);

impl KeyFiles {
    /// The files of `service` beside `key_file`; `must_exist` when the configuration names it.
    #[must_use]
    pub fn new(service: &'static str, key_file: PathBuf, must_exist: bool) -> Self {
        Self { service, key_file, must_exist }
    }

    /// Whose they are.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// Whether the service has any key here.
    #[must_use]
    pub fn exist(&self) -> bool {
        self.key_file.exists() || self.document().exists()
    }

    /// The service's keys; its first one is made where there is none and none must be there.
    ///
    /// # Errors
    /// [`RotationError`] when a file cannot be read or is not what it should be.
    pub fn read(&self) -> Result<Ring, RotationError> {
        let path = self.document();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.single(),
            Err(source) => return Err(KeyFileError::Io { path, source }.into()),
        };
        let invalid = |problem: String| RotationError::Document { path: path.clone(), problem };
        let ring: Ring =
            serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        ring.check(self.service).map_err(invalid)?;
        Ok(ring)
    }

    /// The secret of a key.
    ///
    /// # Errors
    /// [`RotationError`] when its file cannot be read or holds another key.
    pub fn secret(&self, entry: &KeyEntry) -> Result<SigningKey, RotationError> {
        let path = self.folder().join(&entry.file);
        let key = SigningKey::from_seed(self.service, &*load(&path)?);
        if key.kid() != entry.kid {
            let problem = format!("it does not hold the key {}", entry.kid);
            return Err(RotationError::Document { path, problem });
        }
        Ok(key)
    }

    /// Makes a key and publishes it; it signs after `after`.
    ///
    /// # Errors
    /// [`RotationError::Refused`] while another key is waiting to sign, when there are too many, or
    /// when `after` is too short.
    pub fn rotate(&self, now: Timestamp, after: Duration) -> Result<KeyEntry, RotationError> {
        if after < MIN_PUBLISHED {
            let least = MIN_PUBLISHED.as_secs();
            let why = format!("a key is published for at least {least} s before it signs");
            return Err(RotationError::Refused(why));
        }
        // The first key makes the folder.
        self.read()?;
        let _alone = self.lock()?;
        let mut ring = self.read()?;
        if let Some((next, _)) = ring.at(now).find(|(_, state)| *state == KeyState::Next) {
            let why = format!(
                "{}: the key {} is published already and signs in {} s",
                self.service,
                next.kid,
                next.signs_from.since(now).as_secs()
            );
            return Err(RotationError::Refused(why));
        }
        if ring.at(now).filter(|(_, state)| *state != KeyState::Retired).count() >= MAX_LIVE_KEYS {
            let why = format!(
                "{}: {MAX_LIVE_KEYS} keys still verify tokens; retire the older ones first",
                self.service
            );
            return Err(RotationError::Refused(why));
        }
        let fresh = self.folder().join(format!("{}.fresh.key", self.stem()));
        // What a broken off rotation left behind was never published.
        remove(&fresh)?;
        make(&fresh).map_err(|source| KeyFileError::Io { path: fresh.clone(), source })?;
        let key = SigningKey::from_seed(self.service, &*load(&fresh)?);
        let file = format!("{}.{}.key", self.stem(), key.kid());
        let path = self.folder().join(&file);
        fs::rename(&fresh, &path).map_err(|source| KeyFileError::Io { path, source })?;
        let entry = KeyEntry {
            kid: key.kid().to_owned(),
            x: key.jwk().x.clone(),
            file,
            made_at: now,
            signs_from: now + after,
            retired_at: None,
        };
        ring.keys.push(entry.clone());
        self.write(&ring)?;
        Ok(entry)
    }

    /// Retires a key, or all that no longer sign: no token of theirs is honoured from now on, and
    /// their secrets are removed. Returns which.
    ///
    /// # Errors
    /// [`RotationError::Refused`] for the key that signs, for an unknown one, and, unless it is
    /// forced, for one whose tokens may still be under way.
    pub fn retire(
        &self,
        now: Timestamp,
        kid: Option<&str>,
        force: bool,
    ) -> Result<Vec<KeyEntry>, RotationError> {
        let _alone = self.lock()?;
        let mut ring = self.read()?;
        let wanted: Vec<(String, KeyState)> = ring
            .at(now)
            .filter(|(entry, state)| match kid {
                Some(kid) => entry.kid == kid,
                None => *state == KeyState::Previous,
            })
            .map(|(entry, state)| (entry.kid.clone(), state))
            .collect();
        if let (Some(kid), true) = (kid, wanted.is_empty()) {
            let why = format!("{} has no key {kid}", self.service);
            return Err(RotationError::Refused(why));
        }
        let mut retired = Vec::new();
        for (kid, state) in wanted {
            match state {
                KeyState::Signing => {
                    let why = format!("the key {kid} signs; rotate first");
                    return Err(RotationError::Refused(why));
                }
                KeyState::Previous => {
                    let since =
                        ring.stopped_signing(&kid).map(|at| now.since(at)).unwrap_or_default();
                    if since < RETIRE_AFTER && !force {
                        let why = format!(
                            "tokens of the key {kid} may still be under way for {} s; \
                             --force retires it all the same",
                            (RETIRE_AFTER - since).as_secs()
                        );
                        return Err(RotationError::Refused(why));
                    }
                }
                KeyState::Next => {}
                KeyState::Retired => continue,
            }
            for entry in ring.keys.iter_mut().filter(|entry| entry.kid == kid) {
                entry.retired_at = Some(now);
                retired.push(entry.clone());
            }
        }
        if retired.is_empty() {
            return Ok(retired);
        }
        self.write(&ring)?;
        for entry in &retired {
            remove(&self.folder().join(&entry.file))?;
        }
        Ok(retired)
    }

    /// What stands on the disk at this moment, to notice a change by.
    pub(super) fn version(&self) -> Option<Version> {
        let of = fs::metadata(self.document()).ok()?;
        Some(Version(of.ino(), of.mtime(), of.mtime_nsec(), of.len()))
    }

    /// A service without any rotation.
    fn single(&self) -> Result<Ring, RotationError> {
        let path = &self.key_file;
        let seed = if self.must_exist { load(path)? } else { load_or_make(path)? };
        let key = SigningKey::from_seed(self.service, &seed);
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let entry = KeyEntry {
            kid: key.kid().to_owned(),
            x: key.jwk().x.clone(),
            file,
            made_at: Timestamp::from_millis(0),
            signs_from: Timestamp::from_millis(0),
            retired_at: None,
        };
        Ok(Ring { format: 1, service: self.service.to_owned(), keys: vec![entry] })
    }

    fn write(&self, ring: &Ring) -> Result<(), RotationError> {
        let path = self.document();
        let io = |source| RotationError::from(KeyFileError::Io { path: path.clone(), source });
        let text = serde_json::to_vec_pretty(ring).map_err(io::Error::other).map_err(io)?;
        let fresh = path.with_extension("json.new");
        let written = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(self.folder())?.sync_all()
        };
        written().map_err(io)
    }

    /// Held while the document is changed: two commands at once would lose a key.
    fn lock(&self) -> Result<File, RotationError> {
        let path = self.folder().join(format!("{}.keys.lock", self.stem()));
        let locked = || {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)?;
            file.lock()?;
            Ok(file)
        };
        locked().map_err(|source| KeyFileError::Io { path: path.clone(), source }.into())
    }

    fn folder(&self) -> &Path {
        self.key_file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn stem(&self) -> String {
        self.key_file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn document(&self) -> PathBuf {
        self.folder().join(format!("{}.keys.json", self.stem()))
    }
}

impl Ring {
    /// Each key with what it is at `now`, the oldest first.
    pub fn at(&self, now: Timestamp) -> impl Iterator<Item = (&KeyEntry, KeyState)> {
        let signing = self.signing(now).map(|entry| entry.kid.as_str());
        self.keys.iter().map(move |entry| {
            let state = if entry.retired_at.is_some() {
                KeyState::Retired
            } else if entry.signs_from > now {
                KeyState::Next
            } else if Some(entry.kid.as_str()) == signing {
                KeyState::Signing
            } else {
                KeyState::Previous
            };
            (entry, state)
        })
    }

    /// The key that signs at `now`.
    #[must_use]
    pub fn signing(&self, now: Timestamp) -> Option<&KeyEntry> {
        let live = self.keys.iter().filter(|entry| entry.retired_at.is_none());
        live.filter(|entry| entry.signs_from <= now).max_by_key(|entry| entry.signs_from)
    }

    /// When a waiting key begins to sign.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        self.at(now)
            .filter(|(_, state)| *state == KeyState::Next)
            .map(|(entry, _)| entry.signs_from)
            .min()
    }

    /// The public halves of the keys that tokens are verified with, and of the retired ones.
    #[must_use]
    pub fn public(&self) -> (Jwks, Jwks) {
        let (live, retired) = self.keys.iter().partition::<Vec<_>, _>(|e| e.retired_at.is_none());
        let set =
            |keys: Vec<&KeyEntry>| Jwks { keys: keys.into_iter().map(KeyEntry::jwk).collect() };
        (set(live), set(retired))
    }

    /// When the key that came after `kid` began to sign.
    fn stopped_signing(&self, kid: &str) -> Option<Timestamp> {
        let own = self.keys.iter().find(|entry| entry.kid == kid)?;
        let later = self.keys.iter().filter(|entry| entry.signs_from > own.signs_from);
        later.map(|entry| entry.signs_from).min()
    }

    fn check(&self, service: &str) -> Result<(), String> {
        if self.format != 1 {
            return Err(format!("format {} is not known here", self.format));
        }
        if self.service != service {
            return Err(format!("these are keys of {:?}, not of {service:?}", self.service));
        }
        let plain = |name: &str| !name.is_empty() && !name.contains('/') && !name.starts_with("..");
        if let Some(entry) = self.keys.iter().find(|entry| !plain(&entry.file)) {
            return Err(format!("{:?} is no file of this folder", entry.file));
        }
        Ok(())
    }
}

impl KeyEntry {
    fn jwk(&self) -> Jwk {
        Jwk {
            kty: "OKP".into(),
            crv: "Ed25519".into(),
            x: self.x.clone(),
            kid: self.kid.clone(),
            alg: Some("EdDSA".into()),
            usage: Some("sig".into()),
        }
    }
}

fn remove(path: &Path) -> Result<(), KeyFileError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(KeyFileError::Io { path: path.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_700_000_000);
    const SOON: Duration = Duration::from_secs(30);

    fn files(dir: &Path) -> KeyFiles {
        KeyFiles::new("app", dir.join("keys").join("app.key"), false)
    }

    fn states(files: &KeyFiles, now: Timestamp) -> Vec<KeyState> {
        files.read().unwrap().at(now).map(|(_, state)| state).collect()
    }

    #[test]
    fn a_key_is_published_then_signs_then_retires_and_its_secret_goes() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        let first = files.read().unwrap().signing(START).unwrap().clone();
        assert!(files.version().is_none(), "without a rotation there is no document");

        let next = files.rotate(START, SOON).unwrap();
        assert_eq!(states(&files, START), [KeyState::Signing, KeyState::Next]);
        let ring = files.read().unwrap();
        assert_eq!(ring.public().0.keys.len(), 2);
        assert_eq!(ring.next_change(START), Some(START + SOON));

        let later = START + SOON;
        assert_eq!(states(&files, later), [KeyState::Previous, KeyState::Signing]);
        assert_eq!(files.secret(ring.signing(later).unwrap()).unwrap().kid(), next.kid);

        let early = files.retire(later + SOON, None, false);
        assert!(matches!(early, Err(RotationError::Refused(_))), "its tokens may be under way");
        let retired = files.retire(later + RETIRE_AFTER, None, false).unwrap();
        assert_eq!(retired[0].kid, first.kid);
        let ring = files.read().unwrap();
        assert_eq!(states(&files, later), [KeyState::Retired, KeyState::Signing]);
        assert_eq!((ring.public().0.keys.len(), ring.public().1.keys.len()), (1, 1));
        assert!(!dir.path().join("keys").join("app.key").exists(), "the old secret is gone");
        assert!(files.secret(&first).is_err());
        assert!(files.exist() && files.read().is_ok(), "and no new one takes its place");
    }

    #[test]
    fn what_signs_or_would_confuse_verifiers_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        let signing = files.read().unwrap().signing(START).unwrap().kid.clone();
        let refused = |done: Result<_, RotationError>| {
            assert!(matches!(done, Err(RotationError::Refused(_))));
        };
        refused(files.rotate(START, MIN_PUBLISHED - Duration::from_millis(1)).map(|_| ()));
        refused(files.retire(START, Some(&signing), true).map(|_| ()));
        refused(files.retire(START, Some("unknown"), true).map(|_| ()));
        assert!(files.retire(START, None, false).unwrap().is_empty());

        let mut now = START;
        for _ in 1..MAX_LIVE_KEYS {
            files.rotate(now, MIN_PUBLISHED).unwrap();
            refused(files.rotate(now, MIN_PUBLISHED).map(|_| ()));
            now = now + MIN_PUBLISHED;
        }
        refused(files.rotate(now, MIN_PUBLISHED).map(|_| ()));
        assert_eq!(files.retire(now, None, true).unwrap().len(), MAX_LIVE_KEYS - 1);
        let next = files.rotate(now, MIN_PUBLISHED).unwrap();
        assert_eq!(files.retire(now, Some(&next.kid), false).unwrap().len(), 1, "it never signed");
        assert_eq!(files.read().unwrap().next_change(now), None);
    }

    #[test]
    fn a_document_of_another_service_or_with_a_path_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        files.rotate(START, SOON).unwrap();
        let path = files.document();
        let text = fs::read_to_string(&path).unwrap();
        for (from, to) in [
            ("\"app\"", "\"agents\""),
            ("\"format\": 1", "\"format\": 2"),
            ("app.key", "../app.key"),
            ("\"kid\"", "\"kit\""),
        ] {
            fs::write(&path, text.replace(from, to)).unwrap();
            assert!(matches!(files.read(), Err(RotationError::Document { .. })), "{to}");
        }
    }
}
