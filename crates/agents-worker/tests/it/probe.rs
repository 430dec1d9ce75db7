//! `POST /probe`: who may ask, and what is found out.

use std::time::Duration;

use axum::body::Body;
use convene_agents_worker::{Limits, PROBE_PATH};
use convene_model::{
    Code,
    agents::{
        ApiKey, Approvers, McpServer, ModelPrice, NamedValue, ResolvedModel, ToolValue, failure,
    },
    claims::{AppClaims, service},
    keys::SigningKey,
    probe::{ProbeAnswer, ProbeRequest},
    token,
};
use convene_testing::{
    mcp_server::{Behaviour, Generation, McpTestServer, tool},
    model_server::{ModelServer, Script},
};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Map;
use tower::ServiceExt;

use crate::world::{KEY, World, app_key, openai, orchestrator_key, problem};

struct Ask {
    key: SigningKey,
    aud: &'static str,
    path: &'static str,
    body: Vec<u8>,
    jti: &'static str,
}

fn ask(request: &ProbeRequest) -> Ask {
    Ask {
        key: app_key(),
        aud: service::AGENTS,
        path: PROBE_PATH,
        body: serde_json::to_vec(request).unwrap(),
        jti: "j1",
    }
}

async fn send(world: &World, ask: &Ask, body: &[u8]) -> Response<Body> {
    let claims = AppClaims {
        sub: "providers".into(),
        htm: "POST".into(),
        htu: ask.path.into(),
        bh: token::body_hash(&ask.body),
        org_id: None,
    };
    let token = token::mint(&ask.key, ask.aud, claims, world.now(), ask.jti.into());
    let request = Request::post(PROBE_PATH)
        .header("authorization", format!("Bearer {token}"))
        .body(Body::from(body.to_vec()))
        .unwrap();
    world.router.clone().oneshot(request).await.unwrap()
}

pub(crate) async fn found(request: &ProbeRequest) -> ProbeAnswer {
    found_within(request, Limits::default()).await
}

async fn found_within(request: &ProbeRequest, limits: Limits) -> ProbeAnswer {
    let world = World::with(ResolvedModel::Demo, limits);
    let ask = ask(request);
    let response = send(&world, &ask, &ask.body).await;
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(world.asked(), 0);
    serde_json::from_slice(&body).unwrap()
}

fn hosted(server: &ModelServer) -> [ResolvedModel; 3] {
    let api_key = || ApiKey::new(KEY.into());
    let (base_url, model) = (server.root_url(), "m".to_owned());
    [
        openai(&server.base_url(), "m"),
        ResolvedModel::Anthropic {
            base_url: base_url.clone(),
            model: model.clone(),
            api_key: api_key(),
            options: Map::new(),
        },
        ResolvedModel::Gemini { base_url, model, api_key: api_key(), options: Map::new() },
    ]
}

fn mcp(url: String) -> Box<McpServer> {
    Box::new(McpServer {
        server_id: "s1".into(),
        version: 1,
        name: "files".into(),
        url,
        headers: Vec::new(),
        tools: Some(vec!["read".into()]),
        timeout_ms: 5_000,
        auto_approve: Vec::new(),
        approvers: Approvers::Initiator,
    })
}

#[tokio::test]
async fn the_models_of_a_provider_are_listed() {
    let server = ModelServer::start().await.unwrap();
    let expected = [vec!["one", "two"], vec!["claude-test"], vec!["gemini-test"]];
    for (model, expected) in hosted(&server).into_iter().zip(expected) {
        let models = expected.into_iter().map(str::to_owned).collect();
        let answer = found(&ProbeRequest::Models { model }).await;
        assert_eq!(answer, ProbeAnswer::Models { models });
    }
}

#[tokio::test]
async fn a_model_answers_outside_of_any_group() {
    let server = ModelServer::start().await.unwrap();
    let price = ModelPrice { input: 2_000_000, cached_input: None, cache_write: None, output: 0 };
    for model in hosted(&server) {
        let request = ProbeRequest::Reply {
            model,
            system_prompt: "Be brief.".into(),
            text: "Are you there?".into(),
            price: Some(price),
        };
        let ProbeAnswer::Reply { text, usage } = found(&request).await else { panic!() };
        assert_eq!(text, "You said: Are you there?");
        let usage = usage.unwrap();
        assert_eq!((usage.input_tokens, usage.cost()), (10, Some(20)));
    }
    let request = ProbeRequest::Reply {
        model: ResolvedModel::Demo,
        system_prompt: String::new(),
        text: "What is 6*7?".into(),
        price: None,
    };
    let limits = Limits { demo_pace: Duration::ZERO, ..Limits::default() };
    let ProbeAnswer::Reply { text, .. } = found_within(&request, limits).await else { panic!() };
    assert!(text.contains("42"), "{text}");
}

#[tokio::test]
async fn an_answer_that_takes_its_time_is_kept_alive() {
    let server = ModelServer::start().await.unwrap();
    let (chunks, pause) = (vec!["At last.".to_owned()], Duration::from_millis(200));
    server.always("m", Script::Slow { chunks, pause });
    let request = ProbeRequest::Reply {
        model: openai(&server.base_url(), "m"),
        system_prompt: String::new(),
        text: "hi".into(),
        price: None,
    };
    let limits = Limits { heartbeat: Duration::from_millis(10), ..Limits::default() };
    let world = World::with(ResolvedModel::Demo, limits);
    let ask = ask(&request);
    let body = send(&world, &ask, &ask.body).await.into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(b" "));
    let answer: ProbeAnswer = serde_json::from_slice(&body).unwrap();
    assert!(matches!(answer, ProbeAnswer::Reply { text, .. } if text == "At last."));
}

#[tokio::test]
async fn what_does_not_work_is_answered_with_its_reason() {
    let server = ModelServer::start().await.unwrap();
    server.always("m", Script::error(401, &format!("bad key {KEY}")));
    for model in hosted(&server) {
        let (system_prompt, text) = (String::new(), "hi".to_owned());
        let request = ProbeRequest::Reply { model, system_prompt, text, price: None };
        let ProbeAnswer::Failed { code, detail } = found(&request).await else { panic!() };
        assert_eq!(code, failure::PROVIDER_UNAUTHORIZED);
        assert!(!detail.contains(KEY), "{detail}");
    }
    let url = format!("{}/mcp", server.root_url());
    let request = ProbeRequest::Mcp { server: mcp(url), tool_hosts: None };
    let ProbeAnswer::Failed { code, .. } = found(&request).await else { panic!() };
    assert_eq!(code, failure::MCP_ERROR);
    let request = ProbeRequest::Mcp {
        server: mcp("http://127.0.0.1/mcp".into()),
        tool_hosts: Some(vec!["api.example.com".into()]),
    };
    let ProbeAnswer::Failed { code, .. } = found(&request).await else { panic!() };
    assert_eq!(code, failure::ADDRESS_NOT_ALLOWED);
}

#[tokio::test]
async fn all_tools_of_a_server_are_listed_also_those_that_models_are_not_offered() {
    for (generation, revision) in [
        (Generation::Sessions, "2025-11-25"),
        (Generation::Handshake, "2025-03-26"),
        (Generation::Stateless, "2026-07-28"),
    ] {
        let mut broken = tool("odd", false);
        broken["inputSchema"] = serde_json::json!({"type": "string"});
        let tools = vec![tool("read", true), tool("write", false), broken];
        let server = McpTestServer::start(Behaviour::new(generation, tools)).await.unwrap();
        let request = ProbeRequest::Mcp { server: mcp(server.url()), tool_hosts: None };
        let ProbeAnswer::Mcp(listing) = found(&request).await else { panic!() };
        assert_eq!((listing.name.as_str(), listing.version.as_str()), ("test", "1"));
        assert_eq!(listing.protocol, revision);
        let listed: Vec<_> = listing
            .tools
            .iter()
            .map(|tool| (tool.name.as_str(), tool.read_only, tool.refused.is_some()))
            .collect();
        assert_eq!(listed, [("read", true, false), ("write", false, false), ("odd", false, true)]);
        assert_eq!(server.sessions(), 0);
    }
}

#[tokio::test]
async fn a_secret_that_a_server_repeats_is_not_shown() {
    let mut behaviour = Behaviour::new(Generation::Sessions, Vec::new());
    behaviour.wants = Some(("x-key", "another"));
    let server = McpTestServer::start(behaviour).await.unwrap();
    let mut config = mcp(server.url());
    let value = ToolValue::Secret(ApiKey::new("wrong-key-123".into()));
    config.headers = vec![NamedValue { name: "x-key".into(), value }];
    let request = ProbeRequest::Mcp { server: config, tool_hosts: None };
    let ProbeAnswer::Failed { code, detail } = found(&request).await else { panic!() };
    assert_eq!(code, failure::PROVIDER_UNAUTHORIZED);
    assert!(!detail.contains("wrong-key-123"), "{detail}");
}

#[tokio::test]
async fn only_the_app_may_ask_and_only_once() {
    let world = World::new(ResolvedModel::Demo);
    let sound = || ask(&ProbeRequest::Models { model: ResolvedModel::Demo });
    let refused = [
        Ask { key: SigningKey::from_seed(service::APP, &[9; 32]), ..sound() },
        Ask { key: SigningKey::from_seed("portal", &[3; 32]), ..sound() },
        Ask { key: orchestrator_key(), ..sound() },
        Ask { aud: service::ORCHESTRATOR, ..sound() },
        Ask { path: "/invoke", ..sound() },
    ];
    for ask in refused {
        let response = send(&world, &ask, &ask.body).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        problem(response).await;
    }
    let ask = sound();
    let other = br#"{"kind":"models","model":{"provider":"demo"},"x":1}"#;
    assert_eq!(send(&world, &ask, other).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(send(&world, &ask, &ask.body).await.status(), StatusCode::OK);
    let again = problem(send(&world, &ask, &ask.body).await).await;
    assert_eq!(again.code, Code::TokenReplayed);
    let unknown = Ask { body: other.to_vec(), jti: "j2", ..sound() };
    let response = send(&world, &unknown, &unknown.body).await;
    assert_eq!(problem(response).await.code, Code::InvalidRequest);
}
