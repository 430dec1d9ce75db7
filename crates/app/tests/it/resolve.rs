//! `POST /internal/resolve`: what a run's tokens open, and every way in which they do not hold.

use axum::{Router, body::Body};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use convene_model::{
    AgentId, GroupId, OrgId, RunId, UserId,
    claims::{AgentAccessClaims, Registered, SCOPE_INVOKE, WorkerClaims, service},
    keys::SigningKey,
    limits::{CLOCK_LEEWAY, RUN_TOKEN_TTL},
    token::{self, Token, body_hash},
};
use http::{Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::{Client, Reply, World, key};

const PATH: &str = "/internal/resolve";
const BODY: &str = "{}";

/// A group with an agent, and the door of the Agents Worker.
pub(crate) struct Door<'w> {
    world: &'w World,
    router: Router,
    pub(crate) org: String,
    pub(crate) group: String,
    pub(crate) agent: String,
}

pub(crate) async fn door<'w>(world: &'w World, ada: &mut Client<'w>) -> Door<'w> {
    let org = ada.org("Works").await;
    let group = ada.group(&org, "Plans", None).await;
    let agents = ada.get(&format!("/api/groups/{group}/agents")).await;
    let agent = agents.json["agents"][0]["agent_id"].as_str().unwrap().to_owned();
    Door { world, router: world.app.internal_router(), org, group, agent }
}

impl Door<'_> {
    fn registered(&self, iss: &str, aud: &str) -> Registered {
        let now = self.world.now().secs();
        let jti = format!("{:x}", self.world.now().millis() ^ rand());
        Registered { iss: iss.into(), aud: aud.into(), iat: now, nbf: now, exp: now + 60, jti }
    }

    fn run(&self) -> Token<AgentAccessClaims> {
        let claims = AgentAccessClaims {
            group_id: GroupId::new(&self.group).unwrap(),
            org_id: OrgId::new(&self.org).unwrap(),
            agent_id: AgentId::new(&self.agent).unwrap(),
            run_id: RunId::new("r1").unwrap(),
            attempt: 1,
            scope: SCOPE_INVOKE.into(),
            bh: body_hash(b"the invocation"),
            initiator: None,
            run_exp: (self.world.now() + RUN_TOKEN_TTL).secs(),
        };
        Token { registered: self.registered(service::CONTROLLERS, service::AGENTS), claims }
    }

    fn act(&self) -> String {
        token::sign(&key(service::CONTROLLERS), &self.run())
    }

    fn worker(&self, act: String) -> Token<WorkerClaims> {
        let claims = WorkerClaims {
            htm: "POST".into(),
            htu: PATH.into(),
            bh: body_hash(BODY.as_bytes()),
            act,
        };
        Token { registered: self.registered(service::AGENTS, service::APP), claims }
    }

    async fn ask(&self, token: &str) -> Reply {
        self.request(Some(format!("Bearer {token}")), BODY).await
    }

    /// Asks like a worker that has an answer of this version already, in a run that somebody began.
    pub(crate) async fn knowing(&self, version: &Value, initiator: &str) -> Reply {
        let body = json!({"known": version}).to_string();
        let mut run = self.run();
        run.claims.initiator = Some(UserId::new(initiator).unwrap());
        let mut worker = self.worker(token::sign(&key(service::CONTROLLERS), &run));
        worker.claims.bh = body_hash(body.as_bytes());
        let token = token::sign(&key(service::AGENTS), &worker);
        self.request(Some(format!("Bearer {token}")), body).await
    }

    async fn request(&self, authorization: Option<String>, body: impl Into<Body>) -> Reply {
        let mut request = Request::post(PATH);
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(body.into()).unwrap();
        Reply::read(self.router.clone().oneshot(request).await.unwrap()).await
    }

    async fn with_worker(&self, edit: impl FnOnce(&mut Token<WorkerClaims>)) -> Reply {
        let mut worker = self.worker(self.act());
        edit(&mut worker);
        self.ask(&token::sign(&key(service::AGENTS), &worker)).await
    }

    pub(crate) async fn with_run(&self, edit: impl FnOnce(&mut Token<AgentAccessClaims>)) -> Reply {
        let mut run = self.run();
        edit(&mut run);
        let act = token::sign(&key(service::CONTROLLERS), &run);
        self.ask(&token::sign(&key(service::AGENTS), &self.worker(act))).await
    }
}

/// A number that differs from call to call.
fn rand() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::SeqCst) << 48
}

/// A token from its parts, signed over them as they are.
fn raw(header: &Value, payload: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let head = URL_SAFE_NO_PAD.encode(header.to_string());
    let message = format!("{head}.{}", URL_SAFE_NO_PAD.encode(payload.to_string()));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn ed25519(seed: u8) -> impl FnOnce(&[u8]) -> Vec<u8> {
    use ed25519_dalek::Signer;
    let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
    move |message| key.sign(message).to_bytes().to_vec()
}

#[tokio::test]
async fn a_run_is_told_what_its_agent_is() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let mut bob = world.person("Bob").await;
    let door = door(&world, &mut ada).await;
    ada.bring(&door.org, &mut bob).await;
    let reply = door.with_worker(|_| {}).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    assert_eq!(reply.header("cache-control"), "no-store");
    assert_eq!(reply.json["agent_id"], door.agent);
    assert_eq!(reply.json["name"], "Guide");
    assert_eq!(reply.json["model"], json!({"provider": "demo"}));
    assert_eq!(reply.json["people"], json!({&ada.id: "Ada", &bob.id: "Bob"}));
}

#[tokio::test]
async fn a_providers_key_is_opened_for_the_run_and_follows_each_change() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let door = door(&world, &mut ada).await;
    let price = json!({"input": 3_000_000, "output": 15_000_000});
    let provider = json!({"name": "Hub", "base_url": "http://localhost/v1", "api_key": "sk-1",
        "prices": {"m-1": price}});
    let made = ada.post(&format!("/api/orgs/{}/providers", door.org), &provider).await;
    let id = made.json["provider_id"].as_str().unwrap().to_owned();
    let agent = format!("/api/orgs/{}/agents/{}", door.org, door.agent);
    ada.patch(&agent, &json!({"provider_id": id, "model": "m-1", "system_prompt": "Be kind."}))
        .await;
    let reply = door.with_worker(|_| {}).await;
    let expected = json!({
        "provider": "openai_compatible", "base_url": "http://localhost/v1", "model": "m-1", "api_key": "sk-1"
    });
    assert_eq!(reply.json["model"], expected);
    assert_eq!(reply.json["system_prompt"], "Be kind.");
    assert_eq!(reply.json["price"], price);
    let version = reply.json["version"].as_u64().unwrap();
    let one = format!("/api/orgs/{}/providers/{id}", door.org);
    ada.patch(&one, &json!({"api_key": "sk-2"})).await;
    let reply = door.with_worker(|_| {}).await;
    assert_eq!(reply.json["model"]["api_key"], "sk-2");
    ada.patch(&agent, &json!({"model": "m-2"})).await;
    assert!(door.with_worker(|_| {}).await.json.get("price").is_none(), "another model's price");
    assert!(reply.json["version"].as_u64().unwrap() > version, "what was kept does not hold");
    ada.patch(&one, &json!({"api_key": null})).await;
    assert!(door.with_worker(|_| {}).await.json["model"].get("api_key").is_none());
}

#[tokio::test]
async fn only_the_members_of_a_private_group_are_named() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let mut bob = world.person("Bob").await;
    let mut door = door(&world, &mut ada).await;
    ada.bring(&door.org, &mut bob).await;
    door.group = ada.group(&door.org, "Secret", Some(&[])).await;
    assert_eq!(door.with_worker(|_| {}).await.json["people"], json!({&ada.id: "Ada"}));
}

#[tokio::test]
async fn a_worker_token_that_does_not_hold_is_refused() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let door = door(&world, &mut ada).await;
    let none = door.request(None, BODY).await;
    assert_eq!(none.refusal(), (401, "unauthorized"), "no token");
    for value in ["", "Bearer", "Bearer ", "Basic abc", "Bearer a.b.c", "Bearer nonsense"] {
        let reply = door.request(Some(value.to_owned()), BODY).await;
        assert_eq!(reply.refusal(), (401, "unauthorized"), "{value:?}");
    }
    let long = "x".repeat(token::MAX_TOKEN_BYTES + 1);
    assert_eq!(door.ask(&long).await.refusal(), (401, "unauthorized"));

    type Edit = fn(&mut Token<WorkerClaims>);
    let edits: [(&str, Edit); 10] = [
        ("another issuer", |t| t.registered.iss = service::CONTROLLERS.into()),
        ("an unknown issuer", |t| t.registered.iss = "our-portal".into()),
        ("another audience", |t| t.registered.aud = service::ORCHESTRATOR.into()),
        ("another method", |t| t.claims.htm = "GET".into()),
        ("another path", |t| t.claims.htu = "/internal/other".into()),
        ("another body", |t| t.claims.bh = body_hash(b"{ }")),
        ("no jti", |t| t.registered.jti.clear()),
        ("a lifetime too long", |t| t.registered.exp = t.registered.iat + 61),
        ("not yet valid", |t| t.registered.nbf += 60),
        ("issued in the future", |t| {
            t.registered.iat += 60;
            t.registered.exp += 60;
        }),
    ];
    for (why, edit) in edits {
        assert_eq!(door.with_worker(edit).await.refusal(), (401, "unauthorized"), "{why}");
    }
    let expired = |secs: u64| {
        move |t: &mut Token<WorkerClaims>| {
            t.registered.iat -= 60 + secs;
            t.registered.nbf -= 60 + secs;
            t.registered.exp -= 60 + secs;
        }
    };
    let leeway = CLOCK_LEEWAY.as_secs();
    assert_eq!(door.with_worker(expired(leeway)).await.status, StatusCode::OK);
    assert_eq!(door.with_worker(expired(leeway + 1)).await.refusal(), (401, "token_expired"));

    for wrong in [
        SigningKey::from_seed(service::AGENTS, &[8; 32]),
        key(service::CONTROLLERS),
        key(service::APP),
    ] {
        let mut worker = door.worker(door.act());
        worker.registered.iss = wrong.issuer().to_owned();
        let reply = door.ask(&token::sign(&wrong, &worker)).await;
        assert_eq!(reply.refusal(), (401, "unauthorized"), "a key of {}", wrong.issuer());
    }
    let reply = door.ask(&door.act()).await;
    assert_eq!(reply.refusal(), (401, "unauthorized"), "a token of another type");
}

#[tokio::test]
async fn headers_that_name_another_key_algorithm_or_type_are_refused() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let door = door(&world, &mut ada).await;
    let agents = key(service::AGENTS);
    let good = json!({"alg": "EdDSA", "typ": "worker+jwt", "kid": agents.kid()});
    let payload = || serde_json::to_value(door.worker(door.act())).unwrap();
    let reply = door.ask(&raw(&good, &payload(), ed25519(2))).await;
    assert_eq!(reply.status, StatusCode::OK, "the parts as they should be: {}", reply.text);
    let with = |name: &str, value: Value| {
        let mut header = good.clone();
        header[name] = value;
        header
    };
    for header in [
        with("kid", json!("unknown")),
        with("kid", json!(key(service::CONTROLLERS).kid())),
        with("typ", json!("JWT")),
        with("typ", json!("agent-access+jwt")),
        with("alg", json!("RS256")),
        json!({"alg": "EdDSA", "typ": "worker+jwt"}),
        json!({"alg": "EdDSA", "kid": agents.kid()}),
    ] {
        let reply = door.ask(&raw(&header, &payload(), ed25519(2))).await;
        assert_eq!(reply.refusal(), (401, "unauthorized"), "{header}");
    }
    let none = raw(&with("alg", json!("none")), &payload(), |_| Vec::new());
    assert_eq!(door.ask(&none).await.refusal(), (401, "unauthorized"));
    let public = URL_SAFE_NO_PAD.decode(&agents.jwk().x).unwrap();
    for secret in [public, agents.jwk().x.clone().into_bytes()] {
        let header = with("alg", json!("HS256"));
        let token = raw(&header, &payload(), |message| hs256(&secret, message));
        assert_eq!(door.ask(&token).await.refusal(), (401, "unauthorized"));
    }
    for claim in ["iss", "aud", "iat", "nbf", "exp", "jti", "htm", "htu", "bh", "act"] {
        let mut payload = payload();
        payload.as_object_mut().unwrap().remove(claim);
        let reply = door.ask(&raw(&good, &payload, ed25519(2))).await;
        assert_eq!(reply.refusal(), (401, "unauthorized"), "without {claim}");
    }
    let mut changed = raw(&good, &payload(), ed25519(2)).into_bytes();
    let last = changed.len() - 10;
    changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
    let reply = door.ask(std::str::from_utf8(&changed).unwrap()).await;
    assert_eq!(reply.refusal(), (401, "unauthorized"), "a changed signature");
}

/// HMAC (RFC 2104) over SHA-256.
fn hs256(secret: &[u8], message: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        for (at, secret) in block.iter_mut().zip(secret) {
            *at ^= secret;
        }
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

#[tokio::test]
async fn a_worker_token_works_once() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let door = door(&world, &mut ada).await;
    let token = token::sign(&key(service::AGENTS), &door.worker(door.act()));
    let reply = door.request(Some(format!("Bearer {token}")), "{} ").await;
    assert_eq!(reply.refusal(), (401, "unauthorized"), "a refused token is not used up");
    assert_eq!(door.ask(&token).await.status, StatusCode::OK);
    assert_eq!(door.ask(&token).await.refusal(), (401, "token_replayed"));
    let act = door.act();
    for _ in 0..2 {
        let token = token::sign(&key(service::AGENTS), &door.worker(act.clone()));
        assert_eq!(door.ask(&token).await.status, StatusCode::OK, "the run's token goes on");
    }
}

#[tokio::test]
async fn the_runs_token_is_honoured_until_the_run_ends_and_not_longer() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let door = door(&world, &mut ada).await;
    let act = door.act();
    let ask =
        async || door.ask(&token::sign(&key(service::AGENTS), &door.worker(act.clone()))).await;
    world.pass(RUN_TOKEN_TTL + CLOCK_LEEWAY);
    assert_eq!(ask().await.status, StatusCode::OK, "long past its own exp");
    world.pass(std::time::Duration::from_secs(1));
    assert_eq!(ask().await.refusal(), (401, "token_expired"));
    let reply = door.with_run(|run| run.claims.run_exp += 1).await;
    assert_eq!(reply.refusal(), (401, "unauthorized"), "no run may last longer than the limit");
}

#[tokio::test]
async fn a_runs_token_that_does_not_hold_is_refused() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let door = door(&world, &mut ada).await;
    type Edit = fn(&mut Token<AgentAccessClaims>);
    let edits: [(&str, Edit); 5] = [
        ("another issuer", |t| t.registered.iss = service::AGENTS.into()),
        ("another audience", |t| t.registered.aud = service::APP.into()),
        ("not yet valid", |t| t.registered.nbf += 60),
        ("a lifetime too long", |t| t.registered.exp += 1),
        ("no jti", |t| t.registered.jti.clear()),
    ];
    for (why, edit) in edits {
        assert_eq!(door.with_run(edit).await.refusal(), (401, "unauthorized"), "{why}");
    }
    let reply = door.with_run(|run| run.claims.scope = "agent:read".into()).await;
    assert_eq!(reply.refusal(), (403, "forbidden"), "another scope");
    for wrong in [SigningKey::from_seed(service::CONTROLLERS, &[8; 32]), key(service::AGENTS)] {
        let mut run = door.run();
        run.registered.iss = wrong.issuer().to_owned();
        let worker = door.worker(token::sign(&wrong, &run));
        let reply = door.ask(&token::sign(&key(service::AGENTS), &worker)).await;
        assert_eq!(reply.refusal(), (401, "unauthorized"), "a key of {}", wrong.issuer());
    }
    let worker = token::sign(&key(service::AGENTS), &door.worker(door.act()));
    for act in ["", "nonsense", "a.b.c", &*worker] {
        let token = token::sign(&key(service::AGENTS), &door.worker(act.to_owned()));
        assert_eq!(door.ask(&token).await.refusal(), (401, "unauthorized"), "{act:?}");
    }
}

#[tokio::test]
async fn a_run_reads_its_own_agent_in_its_own_group_only() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let mut eve = world.person("Eve").await;
    let door_of_ada = door(&world, &mut ada).await;
    let door_of_eve = door(&world, &mut eve).await;
    let made =
        ada.post(&format!("/api/orgs/{}/agents", door_of_ada.org), &json!({"name": "Idle"})).await;
    let idle = made.json["agent_id"].as_str().unwrap().to_owned();
    let (org, group, agent) = (&door_of_eve.org, &door_of_eve.group, &door_of_eve.agent);
    let door = &door_of_ada;
    let reply = door.with_run(|run| run.claims.org_id = OrgId::new(org).unwrap()).await;
    assert_eq!(reply.refusal(), (403, "forbidden"), "another organization");
    let reply = door.with_run(|run| run.claims.group_id = GroupId::new(group).unwrap()).await;
    assert_eq!(reply.refusal(), (403, "forbidden"), "a group of another organization");
    let reply = door.with_run(|run| run.claims.group_id = GroupId::new("none").unwrap()).await;
    assert_eq!(reply.refusal(), (404, "group_not_found"));
    for (id, why) in [(agent, "another's agent"), (&idle, "an agent that is not in the group")] {
        let reply = door.with_run(|run| run.claims.agent_id = AgentId::new(id).unwrap()).await;
        assert_eq!(reply.refusal(), (403, "forbidden"), "{why}");
    }
    let one = format!("/api/orgs/{}/agents/{}", door.org, door.agent);
    ada.delete(&one).await;
    assert_eq!(
        door.with_run(|_| {}).await.refusal(),
        (403, "forbidden"),
        "an agent that was deleted"
    );
}

#[tokio::test]
async fn the_body_says_nothing_but_what_is_known() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let door = door(&world, &mut ada).await;
    for body in ["", "null", "[]", "{\"agent_id\":\"other\"}", "{\"known\":\"1\"}"] {
        let mut worker = door.worker(door.act());
        worker.claims.bh = body_hash(body.as_bytes());
        let token = token::sign(&key(service::AGENTS), &worker);
        let reply = door.request(Some(format!("Bearer {token}")), body).await;
        assert_eq!(reply.refusal(), (400, "invalid_request"), "{body}");
    }
}

#[tokio::test]
async fn the_workers_door_is_its_own() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let door = door(&world, &mut ada).await;
    let token = token::sign(&key(service::AGENTS), &door.worker(door.act()));
    let mut outside = world.browser();
    outside.origin = None;
    outside.extra =
        vec![("authorization".parse().unwrap(), format!("Bearer {token}").parse().unwrap())];
    let reply = outside.json(http::Method::POST, PATH, &json!({})).await;
    assert_ne!(reply.status, StatusCode::OK);
    let request = Request::get("/api/me").body(Body::empty()).unwrap();
    let reply = Reply::read(door.router.clone().oneshot(request).await.unwrap()).await;
    assert_eq!(reply.refusal(), (404, "not_found"));
    let request = Request::get(PATH).body(Body::empty()).unwrap();
    let reply = Reply::read(door.router.clone().oneshot(request).await.unwrap()).await;
    assert_eq!(reply.refusal(), (405, "method_not_allowed"));
}
