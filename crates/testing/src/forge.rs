//! Tokens as an attacker or a broken peer would make them: any header, any claims, any signature.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use convene_model::{Timestamp, keys::SigningKey, token::body_hash};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

/// Somebody who signs: an issuer with one key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its key.
    pub key: SigningKey,
    seed: [u8; 32],
}

impl Identity {
    /// The identity whose key's seed is 32 times `number`.
    #[must_use]
    pub fn new(issuer: &str, number: u8) -> Self {
        let seed = [number; 32];
        Self { key: SigningKey::from_seed(issuer, &seed), seed }
    }

    /// Its name.
    #[must_use]
    pub fn issuer(&self) -> &str {
        self.key.issuer()
    }
}

/// How a forged token is signed.
#[derive(Debug, Clone)]
enum Signing {
    Ed25519([u8; 32]),
    Hmac(Vec<u8>),
    Not,
}

/// A token in the making.
#[derive(Debug, Clone)]
pub struct Forged {
    /// Its header.
    pub header: Value,
    /// Its claims.
    pub claims: Value,
    signing: Signing,
}

/// A request as a token is bound to it.
#[derive(Debug, Clone, Copy)]
pub struct Bound<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path.
    pub path: &'a str,
    /// Its body.
    pub body: &'a str,
}

impl Forged {
    fn new(by: &Identity, typ: &str, aud: &str, now: Timestamp, ttl: u64, own: Value) -> Self {
        let mut claims = json!({
            "iss": by.issuer(),
            "aud": aud,
            "iat": now.secs(),
            "nbf": now.secs(),
            "exp": now.secs() + ttl,
            "jti": uuid::Uuid::new_v4().to_string(),
        });
        for (name, value) in own.as_object().expect("a sound token has it") {
            claims[name] = value.clone();
        }
        Self {
            header: json!({ "alg": "EdDSA", "typ": typ, "kid": by.key.kid() }),
            claims,
            signing: Signing::Ed25519(by.seed),
        }
    }

    /// A sound `app+jwt` for a request.
    #[must_use]
    pub fn app(by: &Identity, now: Timestamp, request: Bound<'_>) -> Self {
        let own = json!({
            "sub": "tests",
            "htm": request.method,
            "htu": request.path,
            "bh": body_hash(request.body.as_bytes()),
        });
        Self::new(by, "app+jwt", "orchestrator", now, 60, own)
    }

    /// A sound `controller+jwt` for a request about a group.
    #[must_use]
    pub fn controller(
        by: &Identity,
        now: Timestamp,
        request: Bound<'_>,
        group: &str,
        epoch: u64,
    ) -> Self {
        let own = json!({
            "group_id": group,
            "epoch": epoch,
            "htm": request.method,
            "htu": request.path,
            "bh": body_hash(request.body.as_bytes()),
        });
        Self::new(by, "controller+jwt", "orchestrator", now, 60, own)
    }

    /// A sound `worker+jwt` for a request to the Orchestrator on behalf of the run of `act`.
    #[must_use]
    pub fn worker(by: &Identity, now: Timestamp, request: Bound<'_>, act: &str) -> Self {
        let own = json!({
            "htm": request.method,
            "htu": request.path,
            "bh": body_hash(request.body.as_bytes()),
            "act": act,
        });
        Self::new(by, "worker+jwt", "orchestrator", now, 60, own)
    }

    /// A sound `agent-access+jwt` of a run of agent `a1` in group `g1` of `o1`.
    #[must_use]
    pub fn agent_access(by: &Identity, now: Timestamp) -> Self {
        let own = json!({
            "group_id": "g1",
            "org_id": "o1",
            "agent_id": "a1",
            "run_id": "r1",
            "attempt": 1,
            "scope": "agent:invoke",
            "bh": body_hash(b""),
            "run_exp": now.secs() + 900,
        });
        Self::new(by, "agent-access+jwt", "agents", now, 60, own)
    }

    /// A sound `orchestrator+jwt` for a request about a group.
    #[must_use]
    pub fn orchestrator(
        by: &Identity,
        now: Timestamp,
        (method, path): (&str, &str),
        group: &str,
        epoch: u64,
    ) -> Self {
        let own = json!({ "group_id": group, "epoch": epoch, "htm": method, "htu": path });
        Self::new(by, "orchestrator+jwt", "controllers", now, 60, own)
    }

    /// A sound `routing+jwt` of user `u1` to group `g1` of `o1` under epoch 1.
    #[must_use]
    pub fn routing(by: &Identity, now: Timestamp) -> Self {
        let own = json!({
            "user_id": "u1",
            "org_id": "o1",
            "group_id": "g1",
            "role": "member",
            "epoch": 1,
        });
        Self::new(by, "routing+jwt", "controllers", now, 300, own)
    }

    /// The same with another claim.
    #[must_use]
    pub fn with(mut self, claim: &str, value: impl Into<Value>) -> Self {
        self.claims[claim] = value.into();
        self
    }

    /// The token as it travels.
    ///
    /// # Panics
    /// Never: any key signs any bytes.
    #[must_use]
    pub fn encode(&self) -> String {
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let message = format!("{}.{}", part(&self.header), part(&self.claims));
        let signature = match &self.signing {
            Signing::Ed25519(seed) => {
                // PKCS#8 v1 of RFC 8410, section 7, up to the seed.
                let mut der = vec![
                    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04,
                    0x22, 0x04, 0x20,
                ];
                der.extend_from_slice(seed);
                let key = EncodingKey::from_ed_der(&der);
                crypto::sign(message.as_bytes(), &key, Algorithm::EdDSA)
                    .expect("a sound token has it")
            }
            Signing::Hmac(secret) => {
                let key = EncodingKey::from_secret(secret);
                crypto::sign(message.as_bytes(), &key, Algorithm::HS256)
                    .expect("a sound token has it")
            }
            Signing::Not => String::new(),
        };
        format!("{message}.{signature}")
    }
}

/// What can be wrong with a token by itself; each of these is answered with 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is none.
    NoToken,
    /// It is no JWT.
    NoJwt,
    /// Another key signed it, under a known `kid`.
    WrongKey,
    /// Its `kid` is unknown.
    WrongKid,
    /// It is signed with another trusted issuer's key, under that key's `kid`.
    OtherIssuersKid,
    /// Its issuer is unknown.
    UnknownIssuer,
    /// Its algorithm is `none`, and it has no signature.
    AlgNone,
    /// Its algorithm is `none`, though it has a signature.
    AlgNoneWithSignature,
    /// It is signed by HMAC with the public key as the secret.
    Hs256WithThePublicKey,
    /// It is past its end by more than the leeway.
    Expired,
    /// It is before its `nbf` by more than the leeway.
    NotYetValid,
    /// It is before its `iat` by more than the leeway.
    IssuedInTheFuture,
    /// It lives longer than its type may.
    LivesTooLong,
    /// It lacks a claim.
    MissingClaim(&'static str),
    /// Its `jti` is empty.
    EmptyJti,
    /// It is for somebody else.
    WrongAudience,
    /// It is of another type.
    WrongTyp,
    /// It has no type.
    NoTyp,
    /// It names no key.
    NoKid,
    /// It was made for another method.
    WrongMethod,
    /// It was made for another path.
    WrongPath,
    /// It was made for another body.
    OtherBody,
}

/// The faults that every type of token can have.
pub const OF_EVERY_TYPE: &[Fault] = &[
    Fault::NoToken,
    Fault::NoJwt,
    Fault::WrongKey,
    Fault::WrongKid,
    Fault::OtherIssuersKid,
    Fault::UnknownIssuer,
    Fault::AlgNone,
    Fault::AlgNoneWithSignature,
    Fault::Hs256WithThePublicKey,
    Fault::Expired,
    Fault::NotYetValid,
    Fault::IssuedInTheFuture,
    Fault::LivesTooLong,
    Fault::MissingClaim("iss"),
    Fault::MissingClaim("aud"),
    Fault::MissingClaim("iat"),
    Fault::MissingClaim("nbf"),
    Fault::MissingClaim("exp"),
    Fault::MissingClaim("jti"),
    Fault::EmptyJti,
    Fault::WrongAudience,
    Fault::WrongTyp,
    Fault::NoTyp,
    Fault::NoKid,
];

/// The faults of tokens that are bound to one request.
pub const OF_BOUND_TYPES: &[Fault] = &[
    Fault::MissingClaim("htm"),
    Fault::MissingClaim("htu"),
    Fault::MissingClaim("bh"),
    Fault::WrongMethod,
    Fault::WrongPath,
    Fault::OtherBody,
];

impl Fault {
    /// The code of the 401 that the fault is answered with.
    #[must_use]
    pub fn code(self) -> &'static str {
        if self == Self::Expired { "token_expired" } else { "unauthorized" }
    }

    /// The header value or token that `sound` becomes; `None` is no token at all. `other` is an
    /// identity that the verifier trusts too, under its own name.
    ///
    /// # Panics
    /// When the sound token lacks the claim that is to be taken away.
    #[must_use]
    pub fn apply(self, sound: &Forged, by: &Identity, other: &Identity) -> Option<String> {
        let mut token = sound.clone();
        let secs =
            |claims: &Value, name: &str| claims[name].as_u64().expect("a sound token has it");
        match self {
            Self::NoToken => return None,
            Self::NoJwt => return Some("not-a-token".to_owned()),
            Self::WrongKey => token.signing = Signing::Ed25519([99; 32]),
            Self::WrongKid => token.header["kid"] = json!("nobody"),
            Self::OtherIssuersKid => {
                token.header["kid"] = json!(other.key.kid());
                token.signing = Signing::Ed25519(other.seed);
            }
            Self::UnknownIssuer => token.claims["iss"] = json!("stranger"),
            Self::AlgNone => {
                token.header["alg"] = json!("none");
                token.signing = Signing::Not;
            }
            Self::AlgNoneWithSignature => token.header["alg"] = json!("none"),
            Self::Hs256WithThePublicKey => {
                token.header["alg"] = json!("HS256");
                let public = URL_SAFE_NO_PAD.decode(&by.key.jwk().x).expect("a sound token has it");
                token.signing = Signing::Hmac(public);
            }
            Self::Expired => {
                // 6 s past its end: one more than the leeway.
                let lifetime = secs(&token.claims, "exp") - secs(&token.claims, "iat");
                for name in ["iat", "nbf", "exp"] {
                    let shifted = secs(&token.claims, name) - lifetime - 6;
                    token.claims[name] = json!(shifted);
                }
            }
            Self::NotYetValid => token.claims["nbf"] = json!(secs(&token.claims, "nbf") + 6),
            Self::IssuedInTheFuture => token.claims["iat"] = json!(secs(&token.claims, "iat") + 6),
            Self::LivesTooLong => token.claims["exp"] = json!(secs(&token.claims, "exp") + 1),
            Self::MissingClaim(name) => {
                token
                    .claims
                    .as_object_mut()
                    .expect("a sound token has it")
                    .remove(name)
                    .expect("a sound token has it");
            }
            Self::EmptyJti => token.claims["jti"] = json!(""),
            Self::WrongAudience => token.claims["aud"] = json!("nobody"),
            Self::WrongTyp => token.header["typ"] = json!("other+jwt"),
            Self::NoTyp => {
                token
                    .header
                    .as_object_mut()
                    .expect("a sound token has it")
                    .remove("typ")
                    .expect("a sound token has it");
            }
            Self::NoKid => {
                token
                    .header
                    .as_object_mut()
                    .expect("a sound token has it")
                    .remove("kid")
                    .expect("a sound token has it");
            }
            Self::WrongMethod => token.claims["htm"] = json!("PATCH"),
            Self::WrongPath => token.claims["htu"] = json!("/elsewhere"),
            Self::OtherBody => token.claims["bh"] = json!(body_hash(b"another body")),
        }
        Some(token.encode())
    }
}
