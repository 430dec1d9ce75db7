//! A running service's own keys: looks for rotations beside its key file and changes over in time.
//!
//! What cannot be read changes nothing: the service goes on with the keys that it has, and says so.

use std::time::Duration;

use convene_hop::{Clock, LIFECYCLE};
use convene_model::{Timestamp, signing_keys::SigningKeys};
use tokio_util::sync::CancellationToken;

use super::ring::{KeyFiles, Ring, RotationError, Version};

/// How often a running process looks for a change.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The keys of one service, and what they were read from.
pub(crate) struct OwnKeys {
    files: KeyFiles,
    keys: SigningKeys,
    version: Option<Version>,
    ring: Ring,
    /// What was wrong at the last look, so that it is logged once.
    failing: Option<String>,
}

impl OwnKeys {
    /// Reads a service's keys; its first one is made where there is none.
    ///
    /// # Errors
    /// [`RotationError`] when they cannot be read, or none of them signs at `now`.
    pub(crate) fn open(files: KeyFiles, now: Timestamp) -> Result<Self, RotationError> {
        let version = files.version();
        let ring = files.read()?;
        let signing = ring.signing(now).ok_or_else(|| none_signs(&files))?;
        let keys = SigningKeys::from(files.secret(signing)?);
        let mut own = Self { files, keys, version, ring, failing: None };
        own.apply(now)?;
        Ok(own)
    }

    /// The keys, shared with whoever signs and verifies.
    pub(crate) fn keys(&self) -> SigningKeys {
        self.keys.clone()
    }

    /// Looks for changes until the process stops.
    pub(crate) async fn follow(mut self, clock: Clock, stopping: CancellationToken) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            self.look(clock());
        }
    }

    fn look(&mut self, now: Timestamp) {
        let looked = self.read_again().and_then(|()| self.apply(now));
        let failing = looked.err().map(|error| error.to_string());
        if let Some(error) = failing.as_ref().filter(|_| failing != self.failing) {
            let service = self.files.service();
            tracing::error!(service, error, "the service's keys cannot be read; the old ones stay");
        }
        self.failing = failing;
    }

    fn read_again(&mut self) -> Result<(), RotationError> {
        let version = self.files.version();
        if version == self.version && self.failing.is_none() {
            return Ok(());
        }
        // A document that was there is never lost on purpose; a fresh key would sign unknown.
        if version.is_none() && self.version.is_some() {
            let why = format!("the rotation of {} has lost its document", self.files.service());
            return Err(RotationError::Refused(why));
        }
        self.ring = self.files.read()?;
        self.version = version;
        Ok(())
    }

    /// Brings the shared keys to what the ring says of this moment.
    fn apply(&mut self, now: Timestamp) -> Result<(), RotationError> {
        let signing = self.ring.signing(now).ok_or_else(|| none_signs(&self.files))?;
        let (published, retired) = self.ring.public();
        let changes_over = signing.kid != self.keys.signing().kid();
        let all = published.keys.len() + retired.keys.len();
        let known = self.keys.with_retired().keys.len() == all;
        if !changes_over && known && published == self.keys.published() {
            return Ok(());
        }
        let key = if changes_over {
            self.files.secret(signing)?
        } else {
            self.keys.signing().as_ref().clone()
        };
        let (service, kid, count) =
            (self.files.service(), signing.kid.clone(), published.keys.len());
        self.keys
            .replace(key, published, retired)
            .map_err(|error| RotationError::Refused(format!("{service}: {error}")))?;
        tracing::info!(target: LIFECYCLE, service, signing = kid, published = count, "signing keys changed");
        Ok(())
    }
}

fn none_signs(files: &KeyFiles) -> RotationError {
    RotationError::Refused(format!("{} has no key that signs now", files.service()))
}

#[cfg(test)]
mod tests {
    use convene_model::keys::TrustedKeys;

    use super::*;
    use crate::keys::ring::MIN_PUBLISHED;

    const START: Timestamp = Timestamp::from_secs(1_700_000_000);

    #[test]
    fn a_running_service_publishes_changes_over_and_retires_without_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let files = KeyFiles::new("app", dir.path().join("app.key"), false);
        let mut own = OwnKeys::open(files.clone(), START).unwrap();
        let keys = own.keys();
        let trusted = TrustedKeys::new();
        keys.keep(&trusted).unwrap();
        let first = keys.signing().kid().to_owned();

        let next = files.rotate(START, MIN_PUBLISHED).unwrap().kid;
        own.look(START);
        assert_eq!(keys.signing().kid(), first);
        assert!(trusted.has("app", &first) && trusted.has("app", &next));

        let later = START + MIN_PUBLISHED;
        own.look(later);
        assert_eq!(keys.signing().kid(), next);
        assert!(trusted.has("app", &first), "its tokens are under way");

        files.retire(later, None, true).unwrap();
        own.look(later);
        assert!(!trusted.has("app", &first));
        assert_eq!(keys.with_retired().keys.len(), 2);
        let reopened = OwnKeys::open(files, later).unwrap().keys();
        assert_eq!(reopened.signing().kid(), next);
        assert_eq!(reopened.with_retired(), keys.with_retired());
    }

    #[test]
    fn a_document_that_is_broken_or_lost_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let files = KeyFiles::new("app", dir.path().join("app.key"), false);
        let mut own = OwnKeys::open(files.clone(), START).unwrap();
        let kid = own.keys().signing().kid().to_owned();
        let document = dir.path().join("app.keys.json");
        std::fs::write(&document, "{").unwrap();
        own.look(START);
        assert!(own.failing.is_some());
        std::fs::remove_file(&document).unwrap();

        files.rotate(START, MIN_PUBLISHED).unwrap();
        own.look(START);
        assert!(own.failing.is_none());
        std::fs::remove_file(&document).unwrap();
        own.look(START + MIN_PUBLISHED);
        assert!(own.failing.is_some());
        assert_eq!(own.keys().published().keys.len(), 2);
        assert_eq!(own.keys().signing().kid(), kid, "nothing is signed that others do not know");
    }
}
