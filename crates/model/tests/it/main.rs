//! Tokens: what is minted verifies, and each way of being wrong is refused by its own name.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use convene_model::{
    GroupId, OrgId, Role, Timestamp, UserId,
    claims::{AppClaims, OrchestratorClaims, Registered, RoutingClaims, service},
    keys::{Jwks, KeyError, SigningKey, TrustedKeys},
    token::{self, Token, TokenError, body_hash, check_binding},
};
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(service::ORCHESTRATOR, &[seed; 32])
}

fn trusted() -> TrustedKeys {
    TrustedKeys::of(service::ORCHESTRATOR, &key(1).jwks()).unwrap()
}

fn claims() -> RoutingClaims {
    RoutingClaims {
        user_id: UserId::new("u1").unwrap(),
        org_id: OrgId::new("o1").unwrap(),
        group_id: GroupId::new("g1").unwrap(),
        role: Role::Member,
        epoch: 1,
    }
}

fn minted() -> String {
    token::mint(&key(1), service::CONTROLLERS, claims(), NOW, "j1".into())
}

fn verify(token: &str, now: Timestamp) -> Result<Token<RoutingClaims>, TokenError> {
    token::verify(&trusted(), service::CONTROLLERS, token, now)
}

fn refused(token: &str) -> TokenError {
    verify(token, NOW).unwrap_err()
}

/// The token with its header changed and its signature made anew by `signer`.
fn resigned(header: &Value, payload: &Value, signer: &SigningKey) -> String {
    // The library's own header type refuses to write such headers, so the parts are made by hand
    // and signed with the key that the signer's public half belongs to.
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(payload.to_string())
    );
    let seed = if signer.kid() == key(1).kid() { [1; 32] } else { [2; 32] };
    let signature = {
        use ed25519_dalek::Signer;
        ed25519_dalek::SigningKey::from_bytes(&seed).sign(message.as_bytes())
    };
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}

fn header() -> Value {
    json!({"alg": "EdDSA", "typ": "routing+jwt", "kid": key(1).kid()})
}

fn payload() -> Value {
    serde_json::to_value(Token {
        registered: Registered {
            iss: service::ORCHESTRATOR.into(),
            aud: service::CONTROLLERS.into(),
            iat: NOW.secs(),
            nbf: NOW.secs(),
            exp: NOW.secs() + 300,
            jti: "j1".into(),
        },
        claims: claims(),
    })
    .unwrap()
}

#[test]
fn what_is_minted_verifies_and_says_the_same() {
    let token = verify(&minted(), NOW).unwrap();
    assert_eq!(token.claims, claims());
    assert_eq!(token.registered.exp, NOW.secs() + 300);
    assert_eq!(verify(&resigned(&header(), &payload(), &key(1)), NOW).unwrap(), token);
}

#[test]
fn a_token_holds_from_its_start_to_its_end_give_or_take_the_leeway() {
    let at = |secs: i64| {
        verify(&minted(), Timestamp::from_secs(NOW.secs().saturating_add_signed(secs))).map(|_| ())
    };
    assert_eq!(at(-5), Ok(()));
    assert_eq!(at(-6), Err(TokenError::NotYetValid));
    assert_eq!(at(305), Ok(()));
    assert_eq!(at(306), Err(TokenError::Expired));
}

#[test]
fn a_missing_or_malformed_token_is_refused() {
    assert_eq!(refused(""), TokenError::Missing);
    for bad in ["x", "a.b", "a.b.c", "..", &minted()[1..]] {
        assert_eq!(refused(bad), TokenError::Malformed, "{bad}");
    }
    assert_eq!(refused(&"a".repeat(token::MAX_TOKEN_BYTES + 1)), TokenError::Malformed);
}

#[test]
fn each_claim_is_required() {
    for name in
        ["iss", "aud", "iat", "nbf", "exp", "jti", "user_id", "org_id", "group_id", "role", "epoch"]
    {
        let mut payload = payload();
        payload.as_object_mut().unwrap().remove(name);
        assert_eq!(
            refused(&resigned(&header(), &payload, &key(1))),
            TokenError::Malformed,
            "{name}"
        );
    }
    let mut payload = payload();
    payload["jti"] = json!("");
    assert_eq!(refused(&resigned(&header(), &payload, &key(1))), TokenError::Malformed);
}

#[test]
fn each_header_member_is_required() {
    for name in ["alg", "typ", "kid"] {
        let mut header = header();
        header.as_object_mut().unwrap().remove(name);
        assert_eq!(
            refused(&resigned(&header, &payload(), &key(1))),
            TokenError::Malformed,
            "{name}"
        );
    }
}

#[test]
fn another_key_is_refused_even_under_a_known_kid() {
    let foreign = token::mint(&key(2), service::CONTROLLERS, claims(), NOW, "j1".into());
    assert_eq!(refused(&foreign), TokenError::UnknownKey);
    assert_eq!(refused(&resigned(&header(), &payload(), &key(2))), TokenError::BadSignature);
}

#[test]
fn a_kid_of_another_issuer_is_refused() {
    let keys = trusted();
    let app = SigningKey::from_seed(service::APP, &[2; 32]);
    keys.replace(service::APP, &app.jwks()).unwrap();
    let mut header = header();
    header["kid"] = json!(app.kid());
    let token = resigned(&header, &payload(), &app);
    let refused = token::verify::<RoutingClaims>(&keys, service::CONTROLLERS, &token, NOW);
    assert_eq!(refused.unwrap_err(), TokenError::UnknownKey);
}

#[test]
fn no_algorithm_and_a_symmetric_algorithm_are_refused() {
    for alg in ["none", "HS256", "RS256", "ES256"] {
        let mut header = header();
        header["alg"] = json!(alg);
        assert_eq!(refused(&resigned(&header, &payload(), &key(1))), TokenError::WrongAlgorithm);
    }
    let unsigned = format!("{}.", minted().rsplit_once('.').unwrap().0);
    assert!(matches!(refused(&unsigned), TokenError::BadSignature | TokenError::Malformed));
    // The public key used as an HMAC secret.
    let public = URL_SAFE_NO_PAD.decode(&key(1).jwk().x).unwrap();
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    header.typ = Some("routing+jwt".into());
    header.kid = Some(key(1).kid().into());
    let secret = jsonwebtoken::EncodingKey::from_secret(&public);
    let forged = jsonwebtoken::encode(&header, &payload(), &secret).unwrap();
    assert_eq!(refused(&forged), TokenError::WrongAlgorithm);
}

#[test]
fn a_token_of_another_type_or_audience_is_refused() {
    let service_token = token::mint(
        &key(1),
        service::CONTROLLERS,
        OrchestratorClaims {
            group_id: claims().group_id,
            epoch: 1,
            htm: "GET".into(),
            htu: "/".into(),
        },
        NOW,
        "j1".into(),
    );
    assert_eq!(refused(&service_token), TokenError::WrongType);
    let for_app = token::mint(&key(1), service::APP, claims(), NOW, "j1".into());
    assert_eq!(refused(&for_app), TokenError::WrongAudience);
}

#[test]
fn a_lifetime_above_the_type_s_is_refused() {
    let mut payload = payload();
    payload["exp"] = json!(NOW.secs() + 301);
    assert_eq!(refused(&resigned(&header(), &payload, &key(1))), TokenError::TooLongLived);
    payload["exp"] = json!(NOW.secs() - 1);
    assert_eq!(refused(&resigned(&header(), &payload, &key(1))), TokenError::TooLongLived);
}

#[test]
fn a_changed_claim_breaks_the_signature() {
    let token = minted();
    let parts: Vec<&str> = token.split('.').collect();
    let mut payload = payload();
    payload["role"] = json!("owner");
    let forged =
        format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(payload.to_string()), parts[2]);
    assert_eq!(refused(&forged), TokenError::BadSignature);
}

#[test]
fn several_keys_verify_while_one_signs() {
    let keys = trusted();
    let both = Jwks { keys: vec![key(1).jwk().clone(), key(2).jwk().clone()] };
    keys.replace(service::ORCHESTRATOR, &both).unwrap();
    for signer in [key(1), key(2)] {
        let token = token::mint(&signer, service::CONTROLLERS, claims(), NOW, "j".into());
        assert!(token::verify::<RoutingClaims>(&keys, service::CONTROLLERS, &token, NOW).is_ok());
    }
    keys.replace(service::ORCHESTRATOR, &key(2).jwks()).unwrap();
    let retired = token::verify::<RoutingClaims>(&keys, service::CONTROLLERS, &minted(), NOW);
    assert_eq!(retired.unwrap_err(), TokenError::UnknownKey);
}

#[test]
fn a_key_set_with_an_unusable_key_changes_nothing() {
    let keys = trusted();
    let mut rsa = key(2).jwk().clone();
    rsa.kty = "RSA".into();
    let mut short = key(2).jwk().clone();
    short.x = "AAAA".into();
    for (bad, error) in [
        (vec![rsa.clone()], KeyError::NotEd25519 { kid: rsa.kid.clone() }),
        (vec![short.clone()], KeyError::Malformed { kid: short.kid.clone() }),
        (vec![key(2).jwk().clone(); 2], KeyError::Repeated { kid: short.kid.clone() }),
    ] {
        assert_eq!(keys.replace(service::ORCHESTRATOR, &Jwks { keys: bad }), Err(error));
        assert!(
            token::verify::<RoutingClaims>(&keys, service::CONTROLLERS, &minted(), NOW).is_ok()
        );
    }
}

#[test]
fn a_bound_token_holds_for_its_request_alone() {
    let claims = AppClaims {
        sub: "web".into(),
        htm: "POST".into(),
        htu: "/infra/groups".into(),
        bh: body_hash(b"{}"),
        org_id: None,
    };
    let check = |method, path, body: &[u8]| {
        check_binding((&claims.htm, &claims.htu, Some(&claims.bh)), method, path, body)
    };
    assert_eq!(check("POST", "/infra/groups", b"{}"), Ok(()));
    assert_eq!(check("PUT", "/infra/groups", b"{}"), Err(TokenError::WrongRequest));
    assert_eq!(check("POST", "/infra/cleanup", b"{}"), Err(TokenError::WrongRequest));
    assert_eq!(check("POST", "/infra/groups", b"{ }"), Err(TokenError::WrongRequest));
    assert_eq!(body_hash(b""), "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
}

#[test]
fn a_private_key_is_not_shown_by_debug() {
    let shown = format!("{:?} {:?}", key(1), trusted());
    assert!(!shown.contains("01010101") && !shown.contains("1, 1, 1"), "{shown}");
}
