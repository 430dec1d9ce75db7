//! Every fault of an agent-access token is refused with the right status, and nothing is done: the
//! App is not asked, and the same token made right is still accepted.

use axum::body::Body;
use convene_model::{
    AgentId, Code, GroupId, RunId,
    agents::ResolvedModel,
    claims::{AgentAccessClaims, service},
    keys::SigningKey,
    limits::MAX_INVOKE_BYTES,
    token::{self, Token},
};
use http::{Request, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::world::{World, controllers_key, orchestrator_key, problem, request};

fn world() -> World {
    World::new(ResolvedModel::Demo)
}

fn body() -> Vec<u8> {
    serde_json::to_vec(&request("@Aria hello")).unwrap()
}

/// Sends the body with `authorization` and expects a refusal that changes nothing.
async fn refused(world: &World, authorization: Option<&str>, body: Vec<u8>, code: Code) {
    let response = world.send(authorization, body).await;
    assert_eq!(problem(response).await.code, code);
    assert_eq!(world.asked(), 0, "the App was asked");
}

/// Signs the claims after `change` and expects a refusal, then the claims as they were and expects
/// them to be accepted.
async fn refused_until_mended(code: Code, change: impl FnOnce(&mut Token<AgentAccessClaims>)) {
    let world = world();
    let good = world.token(&body());
    let mut bad = good.clone();
    change(&mut bad);
    assert_ne!(good, bad);
    let bearer = |token| format!("Bearer {}", token::sign(&controllers_key(), token));
    refused(&world, Some(&bearer(&bad)), body(), code).await;
    assert_eq!(world.send(Some(&bearer(&good)), body()).await.status(), StatusCode::OK);
}

/// Signs a header and claims of any form with an Ed25519 seed.
fn signed(header: &Header, claims: &Value, seed: [u8; 32]) -> String {
    let mut der = vec![
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    der.extend_from_slice(&seed);
    jsonwebtoken::encode(header, claims, &EncodingKey::from_ed_der(&der)).unwrap()
}

fn header() -> Header {
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some("agent-access+jwt".into());
    header.kid = Some(controllers_key().kid().into());
    header
}

async fn refused_token(token: impl FnOnce(&World, Value) -> String, code: Code) {
    let world = world();
    let claims = serde_json::to_value(world.token(&body())).unwrap();
    let token = token(&world, claims);
    refused(&world, Some(&format!("Bearer {token}")), body(), code).await;
}

#[tokio::test]
async fn a_right_token_is_accepted() {
    refused_until_mended(Code::Unauthorized, |token| token.registered.jti.clear()).await;
    let world = world();
    let claims = serde_json::to_value(world.token(&body())).unwrap();
    let token = signed(&header(), &claims, [1; 32]);
    let response = world.send(Some(&format!("bearer {token}")), body()).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn no_token_and_no_bearer_are_refused() {
    let world = world();
    for none in [None, Some(""), Some("Bearer"), Some("Bearer "), Some("Basic YTpi"), Some("x")] {
        refused(&world, none, body(), Code::Unauthorized).await;
    }
    refused(&world, Some("Bearer a.b.c"), body(), Code::Unauthorized).await;
    refused(&world, Some(&format!("Bearer {}", "a.".repeat(5000))), body(), Code::Unauthorized)
        .await;
}

#[tokio::test]
async fn another_key_under_the_right_kid_is_refused() {
    refused_token(|_, claims| signed(&header(), &claims, [9; 32]), Code::Unauthorized).await;
}

#[tokio::test]
async fn a_changed_claim_is_refused() {
    refused_token(
        |_, claims| {
            let token = signed(&header(), &claims, [1; 32]);
            let other = signed(&header(), &json!({"x": 1}), [1; 32]);
            let parts: Vec<_> = token.split('.').collect();
            let others: Vec<_> = other.split('.').collect();
            [parts[0], others[1], parts[2]].join(".")
        },
        Code::Unauthorized,
    )
    .await;
}

#[tokio::test]
async fn an_unknown_kid_is_refused() {
    refused_token(
        |_, claims| {
            let mut header = header();
            header.kid = Some("other".into());
            signed(&header, &claims, [1; 32])
        },
        Code::Unauthorized,
    )
    .await;
}

#[tokio::test]
async fn another_issuers_kid_is_refused() {
    // The kid is trusted, but belongs to the Orchestrator.
    refused_token(
        |_, claims| {
            let mut header = header();
            header.kid = Some(orchestrator_key().kid().into());
            signed(&header, &claims, [3; 32])
        },
        Code::Unauthorized,
    )
    .await;
    // The issuer and its kid belong together and are trusted, but do not mint such tokens.
    refused_token(
        |_, mut claims| {
            let mut header = header();
            header.kid = Some(orchestrator_key().kid().into());
            claims["iss"] = json!(service::ORCHESTRATOR);
            signed(&header, &claims, [3; 32])
        },
        Code::Unauthorized,
    )
    .await;
}

#[tokio::test]
async fn alg_none_is_refused() {
    use base64_url as b64;
    refused_token(
        |_, claims| {
            let header = json!({
                "alg": "none", "typ": "agent-access+jwt", "kid": controllers_key().kid()
            });
            format!("{}.{}.", b64(&header), b64(&claims))
        },
        Code::Unauthorized,
    )
    .await;
}

#[tokio::test]
async fn hs256_with_the_public_key_is_refused() {
    refused_token(
        |_, claims| {
            let mut header = header();
            header.alg = Algorithm::HS256;
            let public = controllers_key().jwk().x.clone();
            let secret = EncodingKey::from_secret(public.as_bytes());
            jsonwebtoken::encode(&header, &claims, &secret).unwrap()
        },
        Code::Unauthorized,
    )
    .await;
}

#[tokio::test]
async fn an_expired_token_is_refused_once_the_leeway_is_over() {
    let world = world();
    let authorization =
        format!("Bearer {}", token::sign(&controllers_key(), &world.token(&body())));
    world.advance(66);
    refused(&world, Some(&authorization), body(), Code::TokenExpired).await;
    let world = self::world();
    let authorization =
        format!("Bearer {}", token::sign(&controllers_key(), &world.token(&body())));
    world.advance(65);
    assert_eq!(world.send(Some(&authorization), body()).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_token_from_the_future_is_refused() {
    refused_until_mended(Code::Unauthorized, |token| token.registered.nbf += 6).await;
    refused_until_mended(Code::Unauthorized, |token| {
        token.registered.iat += 6;
        token.registered.exp += 6;
    })
    .await;
}

#[tokio::test]
async fn a_token_that_lives_too_long_is_refused() {
    refused_until_mended(Code::Unauthorized, |token| token.registered.exp += 1).await;
}

#[tokio::test]
async fn each_claim_is_required() {
    let claims = serde_json::to_value(world().token(&body())).unwrap();
    let names: Vec<_> = claims.as_object().unwrap().keys().cloned().collect();
    assert_eq!(names.len(), 14);
    for name in names {
        refused_token(
            |_, mut claims| {
                claims.as_object_mut().unwrap().remove(&name);
                signed(&header(), &claims, [1; 32])
            },
            Code::Unauthorized,
        )
        .await;
    }
}

#[tokio::test]
async fn another_audience_is_refused() {
    refused_until_mended(Code::Unauthorized, |token| {
        token.registered.aud = service::CONTROLLERS.into();
    })
    .await;
}

#[tokio::test]
async fn another_type_is_refused() {
    for typ in [Some("JWT"), Some("worker+jwt"), None] {
        refused_token(
            |_, claims| {
                let mut header = header();
                header.typ = typ.map(str::to_owned);
                signed(&header, &claims, [1; 32])
            },
            Code::Unauthorized,
        )
        .await;
    }
}

#[tokio::test]
async fn another_body_is_refused() {
    let world = world();
    let authorization =
        format!("Bearer {}", token::sign(&controllers_key(), &world.token(&body())));
    let other = serde_json::to_vec(&request("@Aria something else")).unwrap();
    refused(&world, Some(&authorization), other, Code::Unauthorized).await;
    refused(&world, Some(&authorization), Vec::new(), Code::Unauthorized).await;
    assert_eq!(world.send(Some(&authorization), body()).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_token_is_good_for_one_call() {
    let world = world();
    let authorization =
        format!("Bearer {}", token::sign(&controllers_key(), &world.token(&body())));
    assert_eq!(world.send(Some(&authorization), body()).await.status(), StatusCode::OK);
    refused(&world, Some(&authorization), body(), Code::TokenReplayed).await;
}

#[tokio::test]
async fn another_group_agent_run_attempt_or_scope_is_forbidden() {
    refused_until_mended(Code::Forbidden, |token| {
        token.claims.group_id = GroupId::new("g2").unwrap();
    })
    .await;
    refused_until_mended(Code::Forbidden, |token| {
        token.claims.agent_id = AgentId::new("a2").unwrap();
    })
    .await;
    refused_until_mended(Code::Forbidden, |token| {
        token.claims.run_id = RunId::new("r2").unwrap();
    })
    .await;
    refused_until_mended(Code::Forbidden, |token| token.claims.attempt = 2).await;
    refused_until_mended(Code::Forbidden, |token| token.claims.scope = "agent:read".into()).await;
}

/// Sends a body with a token that is right for it.
async fn refused_body(world: &World, body: Vec<u8>, code: Code) {
    let token = token::sign(&controllers_key(), &world.token(&body));
    refused(world, Some(&format!("Bearer {token}")), body, code).await;
}

#[tokio::test]
async fn a_body_of_another_form_is_refused() {
    let world = world();
    let mut unknown = serde_json::to_value(request("x")).unwrap();
    unknown["model"] = json!("mine");
    let mut inner = serde_json::to_value(request("x")).unwrap();
    inner["messages"][0]["role"] = json!("system");
    let mut bad_id = serde_json::to_value(request("x")).unwrap();
    bad_id["run_id"] = json!("../r1");
    for body in [unknown, inner, bad_id, json!([]), json!({})] {
        refused_body(&world, body.to_string().into_bytes(), Code::InvalidRequest).await;
    }
    refused_body(&world, b"{".to_vec(), Code::InvalidRequest).await;
    refused_body(&world, vec![0xff, 0xfe], Code::InvalidRequest).await;
    let mut no_trigger = request("x");
    no_trigger.messages.clear();
    refused_body(&world, serde_json::to_vec(&no_trigger).unwrap(), Code::ValidationFailed).await;
}

#[tokio::test]
async fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
    let sized = |size: usize| {
        let mut body = body();
        body.resize(size, b' ');
        body
    };
    let world = world();
    refused_body(&world, sized(MAX_INVOKE_BYTES + 1), Code::TooLarge).await;
    let largest = sized(MAX_INVOKE_BYTES);
    let token = token::sign(&controllers_key(), &world.token(&largest));
    let response = world.send(Some(&format!("Bearer {token}")), largest).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_refusal_says_how_to_authenticate() {
    let response = world().send(None, body()).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
}

#[tokio::test]
async fn keys_and_health_are_public_and_anything_else_is_a_problem() {
    let world = world();
    let get = |path: &'static str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        world.router.clone().oneshot(request)
    };
    let jwks = get("/.well-known/jwks.json").await.unwrap();
    let body = axum::body::to_bytes(jwks.into_body(), 10_000).await.unwrap();
    let key = SigningKey::from_seed(service::AGENTS, &[2; 32]);
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), json!(key.jwks()));
    assert_eq!(get("/healthz").await.unwrap().status(), StatusCode::OK);
    assert_eq!(problem(get("/invoke").await.unwrap()).await.code, Code::MethodNotAllowed);
    assert_eq!(problem(get("/else").await.unwrap()).await.code, Code::NotFound);
}

/// Unpadded base64url of a JSON value, through the library that signs.
fn base64_url(value: &Value) -> String {
    let secret = EncodingKey::from_secret(b"x");
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), value, &secret).unwrap();
    token.split('.').nth(1).unwrap().to_owned()
}
