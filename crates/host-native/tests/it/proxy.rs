//! Agents behind an OpenAI-compatible proxy that others wrote: the gateway of LLM-Rosetta, which speaks
//! chat completions to us and Anthropic's messages to the model, from a mention to the result of a tool.

use std::{path::Path, time::Duration};

use convene_testing::{browser::free_port, model_server::Script};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::{examples::python, tool_house::House};

/// How long the proxy may take to listen, on a busy machine.
const START: Duration = Duration::from_secs(60);

/// A running gateway in front of one model; ends when dropped.
struct Gateway {
    _process: Child,
    base_url: String,
}

impl Gateway {
    async fn before(upstream: &str, dir: &Path) -> Self {
        const MISSING: &str = "run the tests with `cargo xtask test`, which installs the proxy";
        let port = free_port();
        let config = json!({
            "providers": {"upstream": {
                "type": "anthropic", "base_url": upstream, "api_key": "upstream-key",
            }},
            "models": {"m": "upstream"},
            "server": {"host": "127.0.0.1", "port": port, "open_on_no_keys": true},
        });
        let file = dir.join("gateway.jsonc");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut process = Command::new(python())
            .args(["-m", "llm_rosetta.gateway", "--no-banner", "--config"])
            .arg(&file)
            .arg("--data-dir")
            .arg(dir)
            .kill_on_drop(true)
            .spawn()
            .expect(MISSING);
        let listening = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                assert!(process.try_wait().unwrap().is_none(), "it ended at once: {MISSING}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(START, listening).await.expect("the proxy does not listen");
        Self { _process: process, base_url: format!("http://127.0.0.1:{port}/v1") }
    }
}

#[tokio::test]
async fn an_agent_behind_a_proxy_of_others_streams_and_calls_a_tool() {
    let house = House::open().await;
    let models = &house.outside.models;
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::before(&models.root_url(), dir.path()).await;
    let ana = &house.ana;
    let org = ana.create_org("Lighthouse").await;
    let make = async |what: &str, id: &str, new: Value| {
        let made = ana.post(&format!("/api/orgs/{org}/{what}"), new).await;
        made[id].as_str().unwrap_or_else(|| panic!("no {id} in {made}")).to_owned()
    };
    let new =
        json!({"name": "Gateway", "base_url": gateway.base_url, "api_key": "sk-of-the-proxy"});
    let provider = make("providers", "provider_id", new).await;
    let new = json!({
        "name": "Aria", "provider_id": provider, "model": "m",
        "config": {"builtin_tools": ["calculator"]},
    });
    let agent = make("agents", "agent_id", new).await;
    let new = json!({"org_id": org, "title": "Plans", "agent_ids": [agent]});
    let made = ana.post("/api/groups", new).await;
    let (mut socket, _) = ana.attach(made["group_id"].as_str().unwrap(), None).await;

    // The answer is seen while it is written, and only then is it finished.
    models.next("m", Script::call("calculator", &json!({"expression": "6*7"})));
    let chunks = ["It ", "is ", "42."].map(str::to_owned).to_vec();
    models.next("m", Script::Slow { chunks, pause: Duration::from_millis(200) });
    socket.post("m1", "@Aria what is 6*7?").await;
    let called = socket.event("tool.finished").await;
    assert_eq!((&called["status"], &called["summary"]), (&json!("ok"), &json!("42")), "{called}");
    let delta = socket.until(|frame| frame["type"] == "delta").await;
    assert!("It is 42.".starts_with(delta["text"].as_str().unwrap()), "{delta}");
    let posted = socket.event("message.posted").await;
    assert_eq!(posted["text"], "It is 42.", "{posted}");
    let finished = socket.event("run.finished").await;
    assert_eq!(finished["status"], "completed", "{finished}");
    assert!(finished["usage"]["output_tokens"].as_u64() > Some(0), "{finished}");

    let asked = models.requests();
    assert_eq!(asked.len(), 2);
    for request in &asked {
        assert_eq!(request.uri.path(), "/v1/messages");
        assert_eq!(request.header("x-api-key"), Some("upstream-key"));
    }
    assert!(asked[0].body["tools"].to_string().contains("\"calculator\""), "{}", asked[0].body);
    let result = asked[1].body["messages"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&result["role"], &result["content"][0]["type"]),
        (&json!("user"), &json!("tool_result"))
    );

    // What the model's service refuses comes through as what it is.
    models.next("m", Script::rate_limited("7"));
    socket.post("m2", "@Aria and now?").await;
    let finished = socket.event("run.finished").await;
    assert_eq!(
        (&finished["status"], &finished["code"]),
        (&json!("failed"), &json!("provider_rate_limited")),
        "{finished}"
    );
}
