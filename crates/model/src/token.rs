//! Minting and verification of tokens: JWT (RFC 7519), EdDSA only, explicit types (RFC 8725).
//!
//! Signatures and encodings are the library's; times, audience, type and lifetime are checked here
//! against the time that is passed in.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    Code, Problem, Timestamp,
    claims::{
        Access, AgentAccessClaims, Registered, RequestBound, RoutingClaims, TokenType, service,
    },
    keys::{SigningKey, TrustedKeys},
    limits::{CLOCK_LEEWAY, RUN_TOKEN_TTL},
    replay::ReplayGuard,
};

/// Bytes of a token at most; a longer one is refused unread.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// A token's claims, verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token<C> {
    /// The claims that every token has.
    #[serde(flatten)]
    pub registered: Registered,
    /// The claims of its type.
    #[serde(flatten)]
    pub claims: C,
}

/// Why a token does not hold. All of them are answered with 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("a token is missing")]
    Missing,
    /// It is not a token, or lacks a claim.
    #[error("the token is malformed or lacks a required claim")]
    Malformed,
    /// Its algorithm is not EdDSA.
    #[error("the token's algorithm is not accepted")]
    WrongAlgorithm,
    /// Its header's `typ` is another.
    #[error("the token is of another type")]
    WrongType,
    /// Its issuer has no such key, or is not trusted here.
    #[error("the token's issuer has no such key here")]
    UnknownKey,
    /// Its signature does not hold.
    #[error("the token's signature does not hold")]
    BadSignature,
    /// It is for somebody else.
    #[error("the token is for another audience")]
    WrongAudience,
    /// It is past its `exp`.
    #[error("the token has expired")]
    Expired,
    /// It is before its `nbf` or `iat`.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It lives longer than its type may.
    #[error("the token's lifetime is longer than its type allows")]
    TooLongLived,
    /// It was used before.
    #[error("the token has been used before")]
    Replayed,
    /// It was made for another method, path or body.
    #[error("the token is bound to another request")]
    WrongRequest,
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::Expired => Code::TokenExpired,
            TokenError::Replayed => Code::TokenReplayed,
            TokenError::Missing
            | TokenError::Malformed
            | TokenError::WrongAlgorithm
            | TokenError::WrongType
            | TokenError::UnknownKey
            | TokenError::BadSignature
            | TokenError::WrongAudience
            | TokenError::NotYetValid
            | TokenError::TooLongLived
            | TokenError::WrongRequest => Code::Unauthorized,
        };
        Self::new(code).detail(error.to_string())
    }
}

/// Signs a token of type `C` for `aud`, valid from `now` for the longest lifetime of its type.
///
/// `jti` must be unique (a random UUID).
#[must_use]
pub fn mint<C: TokenType>(
    key: &SigningKey,
    aud: &str,
    claims: C,
    now: Timestamp,
    jti: String,
) -> String {
    let registered = Registered {
        iss: key.issuer().to_owned(),
        aud: aud.to_owned(),
        iat: now.secs(),
        nbf: now.secs(),
        exp: now.secs() + C::MAX_LIFETIME_SECS,
        jti,
    };
    sign(key, &Token { registered, claims })
}

/// Signs exactly the claims that are given.
///
/// # Panics
/// Never: an Ed25519 key signs any bytes, and claims have only text keys.
#[must_use]
pub fn sign<C: TokenType>(key: &SigningKey, token: &Token<C>) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some(C::TYP.to_owned());
    header.kid = Some(key.kid().to_owned());
    jsonwebtoken::encode(&header, token, key.encoding()).expect("an Ed25519 key signs any claims")
}

/// Checks a token of type `C`: form, algorithm, type, issuer's key, signature, audience and times.
///
/// # Errors
/// [`TokenError`], the first check that fails.
pub fn verify<C: TokenType>(
    keys: &TrustedKeys,
    aud: &str,
    token: &str,
    now: Timestamp,
) -> Result<Token<C>, TokenError> {
    let verified = verify_signature::<C>(keys, aud, token, now)?;
    if now.secs() > verified.registered.exp + CLOCK_LEEWAY.as_secs() {
        return Err(TokenError::Expired);
    }
    Ok(verified)
}

/// Like [`verify`], but for an agent-access token that comes as `act` of a `worker+jwt`: its own
/// `exp` is not looked at, and the caller must check its `run_exp` instead.
///
/// # Errors
/// [`TokenError`], the first check that fails.
pub fn verify_past_expiry<C: TokenType>(
    keys: &TrustedKeys,
    aud: &str,
    token: &str,
    now: Timestamp,
) -> Result<Token<C>, TokenError> {
    verify_signature(keys, aud, token, now)
}

/// Checks the agent-access token of a run that a call is made for: an own one of the controllers,
/// honoured until its `run_exp`.
///
/// # Errors
/// [`TokenError`], the first check that fails.
pub fn verify_run(
    controllers: &TrustedKeys,
    token: &str,
    now: Timestamp,
) -> Result<AgentAccessClaims, TokenError> {
    let run: Token<AgentAccessClaims> =
        verify_past_expiry(controllers, service::AGENTS, token, now)?;
    let Token { registered, claims } = run;
    if registered.iss != service::CONTROLLERS {
        return Err(TokenError::UnknownKey);
    }
    if claims.run_exp.saturating_sub(registered.iat) > RUN_TOKEN_TTL.as_secs() {
        return Err(TokenError::TooLongLived);
    }
    if now.secs() > claims.run_exp.saturating_add(CLOCK_LEEWAY.as_secs()) {
        return Err(TokenError::Expired);
    }
    Ok(claims)
}

fn verify_signature<C: TokenType>(
    keys: &TrustedKeys,
    aud: &str,
    token: &str,
    now: Timestamp,
) -> Result<Token<C>, TokenError> {
    if token.is_empty() {
        return Err(TokenError::Missing);
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::Malformed);
    }
    // Issuer and kid are read before the signature is checked, only to find the key to check with.
    let unverified = UnverifiedHeader::read(token)?;
    if unverified.alg != "EdDSA" {
        return Err(TokenError::WrongAlgorithm);
    }
    if unverified.typ != C::TYP {
        return Err(TokenError::WrongType);
    }
    let issuer = jsonwebtoken::dangerous::insecure_decode_claims::<Issuer>(token)
        .map_err(|_| TokenError::Malformed)?;
    let key = keys.find(&issuer.iss, &unverified.kid).ok_or(TokenError::UnknownKey)?;

    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    let token: Token<C> = jsonwebtoken::decode(token, &key, &validation)
        .map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => TokenError::BadSignature,
            _ => TokenError::Malformed,
        })?
        .claims;

    let Registered { iat, nbf, exp, .. } = token.registered;
    if token.registered.aud != aud {
        return Err(TokenError::WrongAudience);
    }
    if exp < iat || exp - iat > C::MAX_LIFETIME_SECS {
        return Err(TokenError::TooLongLived);
    }
    let latest = now.secs() + CLOCK_LEEWAY.as_secs();
    if nbf > latest || iat > latest {
        return Err(TokenError::NotYetValid);
    }
    if token.registered.jti.is_empty() {
        return Err(TokenError::Malformed);
    }
    Ok(token)
}

/// Verifies a routing token and keeps what an attach needs of it.
///
/// # Errors
/// [`TokenError`], the first check that fails.
pub fn verify_routing(
    keys: &TrustedKeys,
    token: &str,
    now: Timestamp,
) -> Result<Access, TokenError> {
    let token = verify::<RoutingClaims>(keys, crate::claims::service::CONTROLLERS, token, now)?;
    Ok(Access {
        issued_at: Timestamp::from_secs(token.registered.iat),
        expires_at: Timestamp::from_secs(token.registered.exp),
        claims: token.claims,
    })
}

/// What a token says of itself, unverified: enough to look its key up, and for nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Who claims to have signed it.
    pub issuer: String,
    /// The key that it claims to be signed with.
    pub kid: String,
    /// The token that it carries along, if it does.
    pub act: Option<String>,
}

/// Reads which key a token names; `None` for what is no token. Nothing is verified.
#[must_use]
pub fn named(token: &str) -> Option<Named> {
    #[derive(Deserialize)]
    struct Payload {
        iss: String,
        #[serde(default)]
        act: Option<String>,
    }
    if token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let header = UnverifiedHeader::read(token).ok()?;
    let payload = token.split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let Payload { iss, act } = serde_json::from_slice(&payload).ok()?;
    Some(Named { issuer: iss, kid: header.kid, act })
}

#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

#[derive(Deserialize)]
struct UnverifiedHeader {
    alg: String,
    typ: String,
    kid: String,
}

impl UnverifiedHeader {
    fn read(token: &str) -> Result<Self, TokenError> {
        let (header, _) = token.split_once('.').ok_or(TokenError::Malformed)?;
        let json = URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Malformed)?;
        serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)
    }
}

/// The claim `bh`: unpadded base64url of the body's SHA-256, also of an empty body.
#[must_use]
pub fn body_hash(body: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(body))
}

/// A request as far as a token can be bound to it.
#[derive(Debug, Clone, Copy)]
pub struct RequestLine<'a> {
    /// The value of its `authorization` header.
    pub authorization: Option<&'a str>,
    /// Its method.
    pub method: &'a str,
    /// Its path, without the query.
    pub path: &'a str,
    /// Its body.
    pub body: &'a [u8],
}

/// Verifies the bearer token of a request, with its binding to method, path and body, and uses up
/// its `jti` where a `replay` memory is given.
///
/// # Errors
/// [`TokenError`], the first check that fails; a refused token is not used up.
pub fn authorize<C: TokenType + RequestBound>(
    keys: &TrustedKeys,
    aud: &str,
    request: RequestLine<'_>,
    now: Timestamp,
    replay: Option<&ReplayGuard>,
) -> Result<Token<C>, TokenError> {
    let token = verify::<C>(keys, aud, bearer(request.authorization)?, now)?;
    check_binding(token.claims.binding(), request.method, request.path, request.body)?;
    if let Some(replay) = replay {
        replay.use_up(&token.registered, now)?;
    }
    Ok(token)
}

/// Checks that a token's `htm`, `htu` and `bh` name this request.
///
/// # Errors
/// [`TokenError::WrongRequest`] when one of them names another.
pub fn check_binding(
    (htm, htu, bh): (&str, &str, Option<&str>),
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<(), TokenError> {
    let bound = htm == method
        && htu == path
        && bh.is_none_or(|bh| same_secret(bh.as_bytes(), body_hash(body).as_bytes()));
    if bound { Ok(()) } else { Err(TokenError::WrongRequest) }
}

/// Whether two byte strings are equal, in a time that does not tell where they differ.
#[must_use]
pub fn same_secret(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// The token in an `authorization: Bearer …` header's value.
///
/// # Errors
/// [`TokenError::Missing`] when there is none.
pub fn bearer(header: Option<&str>) -> Result<&str, TokenError> {
    let value = header.ok_or(TokenError::Missing)?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(TokenError::Missing),
    }
}
