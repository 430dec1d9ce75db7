//! Agents with tools through the whole chain: a search in their own group, a service and an MCP
//! server that the workspace configured, and what people try out before an agent depends on it.

use convene_testing::{
    client::{Person, Socket},
    mcp_server::{Behaviour, Generation, McpTestServer, tool},
    model_server::{ModelServer, Script},
    process::Convene,
    web_service::WebService,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::convene;

/// Nothing else looks like it, so that it is found wherever it leaks.
const SECRET: &str = "tool-secret-8Xk2Lm9Qp4Rt";

struct House {
    _dir: TempDir,
    _node: Convene,
    models: ModelServer,
    service: WebService,
    mcp: McpTestServer,
    ana: Person,
    org: String,
}

impl House {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let launch = convene(dir.path()).env("CONVENE_AGENTS__ALLOW_HOSTS", "127.0.0.1");
        let node = launch.start().await;
        let ana = Person::sign_up(&node.url, "Ana").await;
        let org = ana.create_org("Lighthouse").await;
        let tools = vec![tool("read", true), tool("write", false)];
        Self {
            _dir: dir,
            _node: node,
            models: ModelServer::start().await.unwrap(),
            service: WebService::start().await.unwrap(),
            mcp: McpTestServer::start(Behaviour::new(Generation::Sessions, tools)).await.unwrap(),
            ana,
            org,
        }
    }

    async fn make(&self, what: &str, id: &str, new: Value) -> String {
        let made = self.ana.post(&format!("/api/orgs/{}/{what}", self.org), new).await;
        made[id].as_str().unwrap_or_else(|| panic!("no {id} in {made}")).to_owned()
    }

    async fn provider(&self) -> String {
        let new = json!({"name": "Models", "base_url": self.models.base_url()});
        self.make("providers", "provider_id", new).await
    }

    /// A group with an agent that has these tools.
    async fn group_with(&self, config: Value) -> (Socket, String) {
        let provider = self.provider().await;
        let new = json!({"name": "Aria", "provider_id": provider, "model": "m", "config": config});
        let agent = self.make("agents", "agent_id", new).await;
        let new = json!({"org_id": self.org, "title": "Plans", "agent_ids": [agent]});
        let group = self.ana.post("/api/groups", new).await["group_id"].clone();
        let group = group.as_str().unwrap().to_owned();
        let (socket, _) = self.ana.attach(&group, None).await;
        (socket, group)
    }

    /// What the model was told last.
    fn told(&self) -> String {
        let (role, text) = self.models.requests().last().unwrap().messages().pop().unwrap();
        assert_eq!(role, "tool");
        text
    }
}

#[tokio::test]
async fn an_agent_searches_its_own_group() {
    let house = House::open().await;
    let (mut socket, _) = house.group_with(json!({"builtin_tools": ["search_history"]})).await;
    socket.post("m1", "The milk is in the cellar.").await;
    socket.answer("m1").await;
    house.models.next("m", Script::call("search_history", &json!({"query": "milk"})));
    house.models.next("m", Script::Say("In the cellar.".into()));
    socket.post("m2", "@Aria where is it?").await;
    let finished = socket.event("run.finished").await;
    assert_eq!(finished["status"], "completed", "{finished}");
    let told = house.told();
    assert!(told.contains("Ana: The milk is in the cellar."), "{told}");
}

#[tokio::test]
async fn an_agent_asks_a_service_and_an_mcp_server_and_no_secret_comes_back() {
    let house = House::open().await;
    let secret = house
        .make("secrets", "secret_id", json!({"scope": "workspace", "name": "key", "value": SECRET}))
        .await;
    let header = json!({"name": "x-key", "value": {"secret": secret}});
    let http = json!({"name": "look", "config": {
        "description": "Looks something up.",
        "base_url": format!("{}/echo", house.service.url()),
        "methods": ["GET"],
        "headers": [header],
    }});
    let http = house.make("http-tools", "tool_id", http).await;
    let mcp = json!({"name": "files", "config": {"url": house.mcp.url()}});
    let mcp = house.make("mcp-servers", "server_id", mcp).await;
    let check = format!("/api/orgs/{}/mcp-servers/{mcp}/check", house.org);
    let checked = house.ana.send("POST", &check, Some(&json!({}))).await;
    assert!(checked.1.to_string().contains("\"read\""), "{}", checked.1);

    let config = json!({"http_tools": [http], "mcp_servers": [{"server_id": mcp}]});
    let (mut socket, _) = house.group_with(config).await;
    let calls = vec![
        ("look".to_owned(), json!({"q": "milk"}).to_string()),
        ("files__read".to_owned(), json!({"text": "a"}).to_string()),
    ];
    house.models.next("m", Script::Call { text: String::new(), calls });
    house.models.next("m", Script::Say("Done.".into()));
    socket.post("m1", "@Aria look").await;
    let finished = socket.event("run.finished").await;
    assert_eq!(finished["status"], "completed", "{finished}");
    assert_eq!(house.service.requests()[0].headers["x-key"], SECRET);
    assert_eq!(house.mcp.calls(), [("read".to_owned(), json!({"text": "a"}))]);
    for request in house.models.requests() {
        assert!(!request.body.to_string().contains(SECRET));
    }
    assert_eq!(house.told(), "done");
    let usage = &finished["usage"];
    assert!(usage["egress_bytes"].as_u64().is_some_and(|bytes| bytes > 100), "{usage}");
}
