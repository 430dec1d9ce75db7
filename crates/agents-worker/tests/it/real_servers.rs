//! Servers that others wrote: MCP on the official SDK for Python, which speaks the newer generation
//! of the protocol, MCP's reference server on npm, which speaks the older one, and LiteLLM's proxy,
//! which speaks OpenAI's chat completions.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    time::Duration,
};

use convene_model::{
    agents::{
        ApiKey, Approvers, BuiltinTool, McpServer, Outcome, ResolvedModel, ResolvedTool, Resume,
        ResumedCall, ToolStatus, Verdict, failure,
    },
    probe::{McpListing, ProbeAnswer, ProbeRequest},
};
use convene_testing::model_server::{ModelServer, Script};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::{
    probe::found,
    world::{World, openai, request},
};

/// The key that the proxy wants.
const KEY_OF_PROXY: &str = "sk-proxy-0123456789";
/// How long a server may take to listen, on a busy machine.
const START: Duration = Duration::from_secs(60);

struct Server {
    _process: Child,
    url: String,
}

impl Server {
    async fn start(mut command: Command, address: SocketAddr) -> Self {
        const MISSING: &str =
            "run the tests with `cargo xtask test`, which installs the servers that are tried";
        let mut process = command.kill_on_drop(true).spawn().expect(MISSING);
        let listening = async {
            while TcpStream::connect(address).await.is_err() {
                assert!(process.try_wait().unwrap().is_none(), "it ended at once: {MISSING}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(START, listening).await.expect("the server does not listen");
        Self { _process: process, url: format!("http://{address}/mcp") }
    }

    fn config(&self) -> McpServer {
        McpServer {
            server_id: "s1".into(),
            version: 1,
            name: "real".into(),
            url: self.url.clone(),
            headers: Vec::new(),
            tools: None,
            timeout_ms: 30_000,
            auto_approve: Vec::new(),
            approvers: Approvers::Initiator,
        }
    }

    async fn listing(&self) -> McpListing {
        let server = Box::new(self.config());
        match found(&ProbeRequest::Mcp { server, tool_hosts: None }).await {
            ProbeAnswer::Mcp(listing) => listing,
            other => panic!("{other:?}"),
        }
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}

/// The server of the examples, on the official SDK.
async fn python() -> Server {
    let python = std::env::var("CONVENE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/mcp_server.py");
    let address = free_address();
    let mut command = Command::new(python);
    command.arg(script).arg(address.port().to_string());
    Server::start(command, address).await
}

/// The reference server, which shows everything that the protocol has.
async fn everything() -> Server {
    let script = std::env::var("CONVENE_TEST_MCP_SERVER")
        .expect("run the tests with `cargo xtask test`, which installs the server");
    let address = free_address();
    let mut command = Command::new("node");
    command.arg(script).arg("streamableHttp").env("PORT", address.port().to_string());
    Server::start(command, address).await
}

struct Talk {
    server: ModelServer,
    world: World,
}

impl Talk {
    async fn with(server: &Server) -> Self {
        let model = ModelServer::start().await.unwrap();
        let world = World::new(openai(&model.base_url(), "m"));
        world.give(vec![ResolvedTool::Mcp(Box::new(server.config()))]);
        Self { server: model, world }
    }

    /// What came of one call, with permission where it needs one.
    async fn call(&self, tool: &str, arguments: Value) -> (ToolStatus, String) {
        self.server.next("m", Script::call(tool, &arguments));
        let mut reply = self.world.say("@Aria").await;
        if reply.tools().is_empty() {
            let (calls, continuation) = reply.requested();
            let mut call = request("@Aria");
            call.attempt = 2;
            let calls = calls.into_iter().map(|call| ResumedCall {
                call_id: call.call_id,
                hash: call.hash,
                verdict: Verdict::Make,
            });
            call.resume = Some(Resume { continuation, offset: 0, calls: calls.collect() });
            reply = self.world.invoke(&call).await;
        }
        let (_, _, status, summary) = reply.tools().remove(0);
        (status, summary)
    }
}

#[tokio::test]
async fn the_official_sdk_of_the_newer_generation() {
    let server = python().await;
    let listing = server.listing().await;
    assert_eq!((listing.name.as_str(), listing.protocol.as_str()), ("notes", "2026-07-28"));
    let tools: Vec<_> =
        listing.tools.iter().map(|tool| (tool.name.as_str(), tool.read_only)).collect();
    assert_eq!(tools, [("count", true), ("write", false)]);

    let talk = Talk::with(&server).await;
    let ok = |text: &str| (ToolStatus::Ok, text.to_owned());
    assert_eq!(talk.call("real__count", json!({})).await, ok("0 notes"));
    assert_eq!(talk.call("real__write", json!({"text": "milk"})).await, ok("noted: milk"));
    assert_eq!(talk.call("real__count", json!({})).await, ok("1 notes"));
    let (status, _) = talk.call("real__write", json!({"wrong": 1})).await;
    assert_eq!(status, ToolStatus::Failed);
}

#[tokio::test]
async fn the_reference_server_of_the_older_generation() {
    let server = everything().await;
    let listing = server.listing().await;
    assert_eq!(listing.protocol, "2025-11-25");
    let named = |name: &str| listing.tools.iter().find(|tool| tool.name == name);
    let echo = named("echo").unwrap();
    assert_eq!((echo.refused.as_deref(), &echo.parameters["type"]), (None, &json!("object")));

    let talk = Talk::with(&server).await;
    let (status, summary) = talk.call("real__echo", json!({"message": "hello"})).await;
    assert_eq!((status, summary.as_str()), (ToolStatus::Ok, "Echo: hello"));
    let (status, _) = talk.call("real__echo", json!({})).await;
    assert_eq!(status, ToolStatus::Failed);
}

/// LiteLLM's proxy in front of the scripted server; it is too large to be installed for every run.
#[tokio::test]
async fn soak_agents_work_behind_litellm() {
    let program = std::env::var("CONVENE_TEST_LITELLM")
        .expect("run the tests with `cargo xtask soak`, which installs the proxy");
    let upstream = ModelServer::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    let settings = json!({
        "model_list": [{"model_name": "m", "litellm_params": {
            "model": "openai/m", "api_base": upstream.base_url(), "api_key": "upstream-key",
        }}],
        "litellm_settings": {"num_retries": 0},
        "router_settings": {"disable_cooldowns": true},
        "general_settings": {"master_key": KEY_OF_PROXY},
    });
    // JSON is YAML.
    std::fs::write(&config, settings.to_string()).unwrap();
    let address = free_address();
    let mut command = Command::new(program);
    command.arg("--config").arg(&config).args(["--host", "127.0.0.1", "--port"]);
    command.arg(address.port().to_string()).env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
    let _proxy = Server::start(command, address).await;

    let model = |key: &str| ResolvedModel::OpenaiCompatible {
        base_url: format!("http://{address}/v1"),
        model: "m".into(),
        api_key: Some(ApiKey::new(key.into())),
        options: serde_json::Map::new(),
    };
    let world = World::new(model(KEY_OF_PROXY));
    world.give(vec![ResolvedTool::Builtin { name: BuiltinTool::Calculator }]);
    upstream.next("m", Script::call("calculator", &json!({"expression": "6*7"})));
    upstream.next("m", Script::Say("It is 42.".into()));
    let reply = world.say("@Aria 6*7?").await;
    assert_eq!(reply.text(), "It is 42.");
    assert_eq!(reply.tools()[0].3, "42");
    assert_eq!(reply.usage().unwrap().input_tokens, 20);
    assert_eq!(upstream.requests()[1].header("authorization"), Some("Bearer upstream-key"));

    upstream.next("m", Script::rate_limited("7"));
    let (code, detail, _) = world.say("hi").await.failure();
    assert_eq!(code, failure::PROVIDER_RATE_LIMITED, "{detail}");
    upstream.next("m", Script::Cut(vec!["One ".into()]));
    let broken = world.say("hi").await;
    assert!(matches!(broken.outcome(), Outcome::Failed { .. } | Outcome::Completed { .. }));

    let models = found(&ProbeRequest::Models { model: model(KEY_OF_PROXY) }).await;
    assert_eq!(models, ProbeAnswer::Models { models: vec!["m".into()] });
    let reply = World::new(model("sk-wrong")).say("hi").await;
    let (_, detail, _) = reply.failure();
    assert!(!detail.contains("sk-wrong"), "{detail}");
}

#[tokio::test]
async fn a_demo_agent_has_tools_that_it_does_not_use() {
    let server = python().await;
    let world = World::new(ResolvedModel::Demo);
    world.give(vec![ResolvedTool::Mcp(Box::new(server.config()))]);
    let reply = world.say("@Aria hello").await;
    assert_eq!(reply.tools(), []);
    reply.usage();
}
