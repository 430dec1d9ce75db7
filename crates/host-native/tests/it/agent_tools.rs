//! Agents with tools through the whole chain: a search in their own group, a service and an MCP
//! server that the workspace configured, and what people try out before an agent depends on it.

use convene_testing::{client::Socket, model_server::Script};
use serde_json::{Value, json};

use crate::tool_house::House;

/// Nothing else looks like it, so that it is found wherever it leaks.
const SECRET: &str = "tool-secret-8Xk2Lm9Qp4Rt";

struct Workspace {
    house: House,
    org: String,
}

impl Workspace {
    async fn open() -> Self {
        let house = House::open().await;
        let org = house.ana.create_org("Lighthouse").await;
        Self { house, org }
    }

    async fn make(&self, what: &str, id: &str, new: Value) -> String {
        let made = self.house.ana.post(&format!("/api/orgs/{}/{what}", self.org), new).await;
        made[id].as_str().unwrap_or_else(|| panic!("no {id} in {made}")).to_owned()
    }

    async fn provider(&self) -> String {
        let new = json!({"name": "Models", "base_url": self.house.outside.models.base_url()});
        self.make("providers", "provider_id", new).await
    }

    /// A group with an agent that has these tools.
    async fn group_with(&self, config: Value) -> (Socket, String) {
        let provider = self.provider().await;
        let new = json!({"name": "Aria", "provider_id": provider, "model": "m", "config": config});
        let agent = self.make("agents", "agent_id", new).await;
        let new = json!({"org_id": self.org, "title": "Plans", "agent_ids": [agent]});
        let group = self.house.ana.post("/api/groups", new).await["group_id"].clone();
        let group = group.as_str().unwrap().to_owned();
        let (socket, _) = self.house.ana.attach(&group, None).await;
        (socket, group)
    }
}

#[tokio::test]
async fn an_agent_searches_its_own_group() {
    let workspace = Workspace::open().await;
    let outside = &workspace.house.outside;
    let (mut socket, _) = workspace.group_with(json!({"builtin_tools": ["search_history"]})).await;
    socket.post("m1", "The milk is in the cellar.").await;
    socket.answer("m1").await;
    outside.models.next("m", Script::call("search_history", &json!({"query": "milk"})));
    outside.models.next("m", Script::Say("In the cellar.".into()));
    socket.post("m2", "@Aria where is it?").await;
    let finished = socket.event("run.finished").await;
    assert_eq!(finished["status"], "completed", "{finished}");
    let told = outside.told();
    assert!(told.contains("Ana: The milk is in the cellar."), "{told}");
}

#[tokio::test]
async fn an_agent_asks_a_service_and_an_mcp_server_and_no_secret_comes_back() {
    let workspace = Workspace::open().await;
    let outside = &workspace.house.outside;
    let secret = workspace
        .make("secrets", "secret_id", json!({"scope": "workspace", "name": "key", "value": SECRET}))
        .await;
    let header = json!({"name": "x-key", "value": {"secret": secret}});
    let http = json!({"name": "look", "config": {
        "description": "Looks something up.",
        "base_url": format!("{}/echo", outside.service.url()),
        "methods": ["GET"],
        "headers": [header],
    }});
    let http = workspace.make("http-tools", "tool_id", http).await;
    let mcp = json!({"name": "files", "config": {"url": outside.mcp.url()}});
    let mcp = workspace.make("mcp-servers", "server_id", mcp).await;
    let check = format!("/api/orgs/{}/mcp-servers/{mcp}/check", workspace.org);
    let checked = workspace.house.ana.send("POST", &check, Some(&json!({}))).await;
    assert!(checked.1.to_string().contains("\"read\""), "{}", checked.1);

    let config = json!({"http_tools": [http], "mcp_servers": [{"server_id": mcp}]});
    let (mut socket, _) = workspace.group_with(config).await;
    let calls = vec![
        ("look".to_owned(), json!({"q": "milk"}).to_string()),
        ("files__read".to_owned(), json!({"text": "a"}).to_string()),
    ];
    outside.models.next("m", Script::Call { text: String::new(), calls });
    outside.models.next("m", Script::Say("Done.".into()));
    socket.post("m1", "@Aria look").await;
    let finished = socket.event("run.finished").await;
    assert_eq!(finished["status"], "completed", "{finished}");
    assert_eq!(outside.service.requests()[0].headers["x-key"], SECRET);
    assert_eq!(outside.mcp.calls(), [("read".to_owned(), json!({"text": "a"}))]);
    for request in outside.models.requests() {
        assert!(!request.body.to_string().contains(SECRET));
    }
    assert_eq!(outside.told(), "done");
    let usage = &finished["usage"];
    assert!(usage["egress_bytes"].as_u64().is_some_and(|bytes| bytes > 100), "{usage}");
}
