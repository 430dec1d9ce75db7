//! Encryption of values and keys: XChaCha20-Poly1305 with the place of a value as associated data.
//!
//! What is sealed opens only at the place that it was sealed for, so a row that is copied over
//! another one is of no use. Never reads a database and never keeps what it opened.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use convene_model::{Code, Problem};
use zeroize::{Zeroize, Zeroizing};

/// What a sealed text begins with.
const PREFIX: &str = "v2.";
/// What it began with when one key sealed everything, with the secret's id as associated data.
const FIRST_PREFIX: &str = "v1.";
const NONCE_BYTES: usize = 24;

/// Thirty-two secret bytes; shown by nothing.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key(Zeroizing<[u8; 32]>);

impl Key {
    pub(super) fn random() -> Result<Self, Problem> {
        let mut bytes = Zeroizing::new([0; 32]);
        fill(bytes.as_mut())?;
        Ok(Self(bytes))
    }

    /// A key of its own for each purpose, from one key.
    pub(super) fn derive(purpose: &str, from: &[u8; 32]) -> Self {
        Self(Zeroizing::new(blake3::derive_key(purpose, from)))
    }

    /// Encrypts `plain` for one place.
    pub(super) fn seal(&self, place: &str, plain: &[u8]) -> Result<String, Problem> {
        let mut nonce = [0; NONCE_BYTES];
        fill(&mut nonce)?;
        let payload = Payload { msg: plain, aad: place.as_bytes() };
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| Problem::new(Code::Internal))?;
        let mut bytes = nonce.to_vec();
        bytes.extend_from_slice(&sealed);
        Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Decrypts what was sealed for `place` with this key; `None` for anything else.
    pub(super) fn open(&self, place: &str, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
        self.decrypt(place, sealed.strip_prefix(PREFIX)?)
    }

    /// Decrypts what the first form sealed, where the place is the secret's id alone.
    pub(super) fn open_first_form(&self, id: &str, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
        self.decrypt(id, sealed.strip_prefix(FIRST_PREFIX)?)
    }

    /// Encrypts another key for one place.
    pub(super) fn wrap(&self, place: &str, key: &Self) -> Result<String, Problem> {
        self.seal(place, key.0.as_ref())
    }

    /// Decrypts a key that was wrapped for `place`.
    pub(super) fn unwrap(&self, place: &str, wrapped: &str) -> Option<Self> {
        let bytes = self.open(place, wrapped)?;
        let key: [u8; 32] = bytes.as_slice().try_into().ok()?;
        Some(Self(Zeroizing::new(key)))
    }

    fn decrypt(&self, place: &str, text: &str) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
        let payload = Payload { msg: sealed, aad: place.as_bytes() };
        self.cipher().decrypt(&XNonce::from(nonce), payload).ok().map(Zeroizing::new)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*self.0).into())
    }
}

/// Text from opened bytes; what is no text is wiped.
pub(super) fn text(bytes: Zeroizing<Vec<u8>>) -> Option<Zeroizing<String>> {
    match String::from_utf8(bytes.to_vec()) {
        Ok(text) => Some(Zeroizing::new(text)),
        Err(error) => {
            error.into_bytes().zeroize();
            None
        }
    }
}

fn fill(bytes: &mut [u8]) -> Result<(), Problem> {
    getrandom::fill(bytes).map_err(|error| {
        tracing::error!(%error, "the system gave no random bytes");
        Problem::new(Code::Internal)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        Key::derive("test", &[byte; 32])
    }

    #[test]
    fn a_value_opens_at_its_own_place_and_with_its_own_key_only() {
        let sealed = key(1).seal("s1/1", b"sk-plain").unwrap();
        assert!(!sealed.contains("sk-plain"));
        assert_eq!(key(1).open("s1/1", &sealed).unwrap().as_slice(), b"sk-plain");
        assert!(key(1).open("s1/2", &sealed).is_none());
        assert!(key(1).open("s2/1", &sealed).is_none());
        assert!(key(2).open("s1/1", &sealed).is_none());
        assert_ne!(key(1).seal("s1/1", b"sk-plain").unwrap(), sealed, "each has its own nonce");
    }

    #[test]
    fn a_changed_or_cut_value_does_not_open() {
        let sealed = key(1).seal("s1", b"sk-plain").unwrap();
        let mut changed = sealed.clone().into_bytes();
        changed[10] = if changed[10] == b'A' { b'B' } else { b'A' };
        assert!(key(1).open("s1", std::str::from_utf8(&changed).unwrap()).is_none());
        for cut in [0, 2, 3, 10, sealed.len() - 4] {
            assert!(key(1).open("s1", &sealed[..cut]).is_none(), "{cut}");
        }
        let first = sealed.replacen(PREFIX, FIRST_PREFIX, 1);
        assert!(key(1).open("s1", &first).is_none(), "the forms are not mixed up");
        assert!(key(1).open_first_form("s1", &first).is_some());
    }

    #[test]
    fn a_wrapped_key_comes_back_whole_or_not_at_all() {
        let inner = Key::random().unwrap();
        let wrapped = key(1).wrap("o1/k1", &inner).unwrap();
        assert!(key(1).unwrap("o1/k1", &wrapped) == Some(inner));
        assert!(key(1).unwrap("o2/k1", &wrapped).is_none());
        let short = key(1).seal("o1/k1", b"short").unwrap();
        assert!(key(1).unwrap("o1/k1", &short).is_none());
    }

    #[test]
    fn bytes_that_are_no_text_are_nothing() {
        assert!(text(Zeroizing::new(vec![0xff])).is_none());
        assert_eq!(text(Zeroizing::new(b"a".to_vec())).unwrap().as_str(), "a");
    }
}
