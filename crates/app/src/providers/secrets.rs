//! Secrets at rest: XChaCha20-Poly1305, with the row's id as associated data.
//!
//! A sealed value is `v1.` and the unpadded base64url of nonce and ciphertext. It opens only under
//! the id that it was sealed for, so a row that is copied over another one is of no use.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use convene_model::{Code, Problem};
use zeroize::{Zeroize, Zeroizing};

const VERSION: &str = "v1.";
const NONCE_BYTES: usize = 24;

/// The key of all secrets, derived from the master key.
pub(crate) struct SecretKey(Zeroizing<[u8; 32]>);

impl SecretKey {
    pub(crate) fn derive(master: &[u8; 32]) -> Self {
        Self(Zeroizing::new(blake3::derive_key("convene app secrets v1", master)))
    }

    /// Encrypts a value for the row `id`.
    pub(crate) fn seal(&self, id: &str, plain: &str) -> Result<String, Problem> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|error| {
            tracing::error!(%error, "the system gave no random bytes");
            Problem::new(Code::Internal)
        })?;
        let payload = Payload { msg: plain.as_bytes(), aad: id.as_bytes() };
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| Problem::new(Code::Internal))?;
        let mut bytes = nonce.to_vec();
        bytes.extend_from_slice(&sealed);
        Ok(format!("{VERSION}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Decrypts the value of the row `id`. The caller must keep it no longer than it is used.
    pub(crate) fn open(&self, id: &str, sealed: &str) -> Result<String, Problem> {
        self.decrypt(id, sealed).ok_or_else(|| {
            tracing::error!(
                secret_id = id,
                "a secret does not open: another master key, or a changed row"
            );
            Problem::new(Code::Internal)
        })
    }

    fn decrypt(&self, id: &str, sealed: &str) -> Option<String> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed.strip_prefix(VERSION)?).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
        let payload = Payload { msg: sealed, aad: id.as_bytes() };
        let plain = self.cipher().decrypt(&XNonce::from(nonce), payload).ok()?;
        String::from_utf8(plain).map_err(|error| error.into_bytes().zeroize()).ok()
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*self.0).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_under_its_own_id_and_key_only() {
        let key = SecretKey::derive(&[1; 32]);
        let sealed = key.seal("s1", "sk-plain").unwrap();
        assert!(!sealed.contains("sk-plain"));
        assert_eq!(key.open("s1", &sealed).unwrap(), "sk-plain");
        assert!(key.open("s2", &sealed).is_err());
        assert!(SecretKey::derive(&[2; 32]).open("s1", &sealed).is_err());
        assert_ne!(key.seal("s1", "sk-plain").unwrap(), sealed, "each has a nonce of its own");
    }

    #[test]
    fn a_changed_or_cut_value_does_not_open() {
        let key = SecretKey::derive(&[1; 32]);
        let sealed = key.seal("s1", "sk-plain").unwrap();
        let mut changed = sealed.clone().into_bytes();
        changed[10] = if changed[10] == b'A' { b'B' } else { b'A' };
        assert!(key.open("s1", std::str::from_utf8(&changed).unwrap()).is_err());
        for cut in [0, 2, 3, 10, sealed.len() - 4] {
            assert!(key.open("s1", &sealed[..cut]).is_err(), "{cut}");
        }
    }
}
