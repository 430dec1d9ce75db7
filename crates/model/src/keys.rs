//! Keys: one to sign with, several to verify with, found by issuer and `kid` together.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::token::TokenError;

/// The DER of a PKCS#8 v1 Ed25519 key up to its 32-byte seed (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A set of public keys as published under `/.well-known/jwks.json` (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Jwks {
    /// The keys.
    pub keys: Vec<Jwk>,
}

/// An Ed25519 public key (RFC 8037).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Jwk {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    pub crv: String,
    /// The public key, unpadded base64url.
    pub x: String,
    /// The key's id.
    pub kid: String,
    /// `EdDSA`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// `sig`.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key is not an Ed25519 key for signatures.
    #[error("key {kid:?} is not an Ed25519 signature key")]
    NotEd25519 {
        /// Which.
        kid: String,
    },
    /// The key's bytes are not a key.
    #[error("key {kid:?} has a malformed public key")]
    Malformed {
        /// Which.
        kid: String,
    },
    /// A key would sign that nobody could verify.
    #[error("key {kid:?} signs and is not published")]
    Unpublished {
        /// Which.
        kid: String,
    },
    /// Two keys of one issuer share an id.
    #[error("key id {kid:?} occurs twice")]
    Repeated {
        /// Which.
        kid: String,
    },
}

/// A private key of one issuer.
#[derive(Clone)]
pub struct SigningKey {
    issuer: Arc<str>,
    jwk: Jwk,
    encoding: EncodingKey,
}

impl SigningKey {
    /// A key from its 32-byte seed; its `kid` follows from the public key.
    #[must_use]
    pub fn from_seed(issuer: &str, seed: &[u8; 32]) -> Self {
        let public = ed25519_dalek::SigningKey::from_bytes(seed).verifying_key().to_bytes();
        let mut der = Zeroizing::new(PKCS8_PREFIX.to_vec());
        der.extend_from_slice(seed);
        let digest = Sha256::digest(public);
        Self {
            issuer: Arc::from(issuer),
            jwk: Jwk {
                kty: "OKP".into(),
                crv: "Ed25519".into(),
                x: URL_SAFE_NO_PAD.encode(public),
                kid: URL_SAFE_NO_PAD.encode(&digest[..12]),
                alg: Some("EdDSA".into()),
                usage: Some("sig".into()),
            },
            encoding: EncodingKey::from_ed_der(&der),
        }
    }

    /// Who signs with it.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The key's id.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.jwk.kid
    }

    /// The public half.
    #[must_use]
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// The public half as a set, for publishing and for verifiers.
    #[must_use]
    pub fn jwks(&self) -> Jwks {
        Jwks { keys: vec![self.jwk.clone()] }
    }

    /// Signs bytes that are no token; `purpose` keeps a signature from holding for anything else.
    /// Unpadded base64url.
    ///
    /// # Panics
    /// Never: an Ed25519 key signs any bytes.
    #[must_use]
    pub fn sign_bytes(&self, purpose: &str, bytes: &[u8]) -> String {
        jsonwebtoken::crypto::sign(&signed(purpose, bytes), &self.encoding, Algorithm::EdDSA)
            .expect("an Ed25519 key signs any bytes")
    }

    pub(crate) fn encoding(&self) -> &EncodingKey {
        &self.encoding
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}/{})", self.issuer, self.jwk.kid)
    }
}

/// The public keys that one verifier trusts for one purpose, by issuer and `kid`.
///
/// Cheap to clone; clones share the keys, so that a refreshed set is seen everywhere.
#[derive(Clone, Default)]
pub struct TrustedKeys {
    keys: Arc<RwLock<BTreeMap<String, BTreeMap<String, DecodingKey>>>>,
}

impl TrustedKeys {
    /// Trusts nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts one issuer's keys.
    ///
    /// # Errors
    /// See [`TrustedKeys::replace`].
    pub fn of(issuer: &str, jwks: &Jwks) -> Result<Self, KeyError> {
        let keys = Self::new();
        keys.replace(issuer, jwks)?;
        Ok(keys)
    }

    /// Puts `jwks` in the place of all keys of `issuer`.
    ///
    /// # Errors
    /// [`KeyError`] when a key cannot be used; nothing is changed then.
    pub fn replace(&self, issuer: &str, jwks: &Jwks) -> Result<(), KeyError> {
        let mut keys = BTreeMap::new();
        for jwk in &jwks.keys {
            let kid = || jwk.kid.clone();
            let for_signatures = jwk.usage.as_deref().is_none_or(|usage| usage == "sig")
                && jwk.alg.as_deref().is_none_or(|alg| alg == "EdDSA" || alg == "Ed25519");
            if jwk.kty != "OKP" || jwk.crv != "Ed25519" || !for_signatures {
                return Err(KeyError::NotEd25519 { kid: kid() });
            }
            let bytes = URL_SAFE_NO_PAD.decode(&jwk.x).ok();
            let valid = bytes
                .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
                .and_then(|bytes| ed25519_dalek::VerifyingKey::from_bytes(&bytes).ok())
                .is_some_and(|key| !key.is_weak());
            let key = DecodingKey::from_ed_components(&jwk.x).ok().filter(|_| valid);
            let key = key.ok_or_else(|| KeyError::Malformed { kid: kid() })?;
            if keys.insert(kid(), key).is_some() {
                return Err(KeyError::Repeated { kid: kid() });
            }
        }
        let mut all = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(issuer.to_owned(), keys);
        Ok(())
    }

    /// Whether `issuer` is trusted at all.
    #[must_use]
    pub fn knows(&self, issuer: &str) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).contains_key(issuer)
    }

    /// Whether `issuer` has a key with this id.
    #[must_use]
    pub fn has(&self, issuer: &str, kid: &str) -> bool {
        self.find(issuer, kid).is_some()
    }

    /// Whether `signature` is that of `issuer`'s key `kid` over `bytes` for `purpose`; see
    /// [`SigningKey::sign_bytes`].
    ///
    /// # Errors
    /// [`TokenError::UnknownKey`] or [`TokenError::BadSignature`].
    pub fn verify_bytes(
        &self,
        issuer: &str,
        kid: &str,
        purpose: &str,
        bytes: &[u8],
        signature: &str,
    ) -> Result<(), TokenError> {
        let key = self.find(issuer, kid).ok_or(TokenError::UnknownKey)?;
        let bytes = signed(purpose, bytes);
        match jsonwebtoken::crypto::verify(signature, &bytes, &key, Algorithm::EdDSA) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(TokenError::BadSignature),
        }
    }

    pub(crate) fn find(&self, issuer: &str, kid: &str) -> Option<DecodingKey> {
        let all = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        all.get(issuer)?.get(kid).cloned()
    }
}

/// What is signed for bytes that are no token. No token begins like it: a token's text has neither
/// spaces nor a zero byte.
fn signed(purpose: &str, bytes: &[u8]) -> Vec<u8> {
    [b"convene signature: ", purpose.as_bytes(), b"\0", bytes].concat()
}

impl fmt::Debug for TrustedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_map()
            .entries(all.iter().map(|(issuer, keys)| (issuer, keys.keys().collect::<Vec<_>>())))
            .finish()
    }
}
