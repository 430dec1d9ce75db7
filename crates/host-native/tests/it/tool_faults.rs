//! Tools that change something, of a service and of an MCP server, through the whole chain: they are
//! made once somebody has permitted them, and at most once whatever dies in the middle.

use std::time::Duration;

use convene_testing::{
    client::{Person, Socket},
    cluster::{Cluster, Member, Plan},
    model_server::Script,
};
use serde_json::{Value, json};

use crate::tool_house::{House, Outside};

/// Where a tool of the agent lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Mcp,
}

impl Kind {
    const BOTH: [Self; 2] = [Self::Http, Self::Mcp];

    /// The tool's name, as the model has it.
    fn tool(self) -> &'static str {
        match self {
            Self::Http => "restart",
            Self::Mcp => "files__write",
        }
    }
}

impl Outside {
    /// How often the tool was called.
    fn calls(&self, kind: Kind) -> usize {
        match kind {
            Kind::Http => self.service.requests().len(),
            Kind::Mcp => self.mcp.calls().len(),
        }
    }

    async fn until_called(&self, kind: Kind) {
        let called = async {
            while self.calls(kind) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(convene_testing::client::PATIENCE, called).await.unwrap();
    }

    /// The agent wants to call its tool, and says something afterwards.
    fn script(&self, kind: Kind, says: &str) {
        self.models.next("m", Script::call(kind.tool(), &json!({"text": "husum"})));
        self.models.next("m", Script::Say(says.to_owned()));
    }

    /// A group with an agent that has the tool; `path` of the service is where it is.
    async fn group(&self, ana: &Person, kind: Kind, path: &str) -> String {
        let org = ana.create_org("Lighthouse").await;
        let make = async |what: &str, id: &str, new: Value| {
            ana.post(&format!("/api/orgs/{org}/{what}"), new).await[id].clone()
        };
        let provider = json!({"name": "Models", "base_url": self.models.base_url()});
        let provider = make("providers", "provider_id", provider).await;
        let config = match kind {
            Kind::Http => {
                let tool = json!({"name": "restart", "config": {
                    "description": "Restarts a gauge.", "methods": ["POST"],
                    "base_url": format!("{}/{path}", self.service.url()), "timeout_ms": 120_000,
                }});
                json!({"http_tools": [make("http-tools", "tool_id", tool).await]})
            }
            Kind::Mcp => {
                let config = json!({"url": self.mcp.url(), "timeout_ms": 120_000});
                let server = json!({"name": "files", "config": config});
                let server = make("mcp-servers", "server_id", server).await;
                json!({"mcp_servers": [{"server_id": server}]})
            }
        };
        let agent =
            json!({"name": "Aria", "provider_id": provider, "model": "m", "config": config});
        let agent = make("agents", "agent_id", agent).await;
        let group = json!({"org_id": org, "title": "Plans", "agent_ids": [agent]});
        ana.post("/api/groups", group).await["group_id"].as_str().unwrap().to_owned()
    }
}

/// Decides about what is asked for next.
async fn decide(socket: &mut Socket, decision: &str) -> Value {
    let asked = socket.event("approval.requested").await;
    let approval = &asked["approval_id"];
    let frame =
        json!({"type": "approve", "ref": "d", "approval_id": approval, "decision": decision});
    socket.send(&frame).await;
    asked
}

/// Every event of a group of a kind.
async fn all(ana: &Person, group: &str, kind: &str) -> Vec<Value> {
    let (mut socket, attached) = ana.attach(group, Some(0)).await;
    let head = attached["seq"].as_u64().unwrap();
    let mut found = Vec::new();
    loop {
        let event = socket.until(|frame| frame["type"] == "event").await;
        let seq = event["seq"].as_u64().unwrap();
        if event["kind"] == kind {
            found.push(event);
        }
        if seq >= head {
            return found;
        }
    }
}

#[tokio::test]
async fn a_tool_is_called_once_it_is_permitted_and_never_when_it_is_refused() {
    let house = House::open().await;
    let outside = &house.outside;
    for kind in Kind::BOTH {
        let group = outside.group(&house.ana, kind, "echo").await;
        let (mut socket, _) = house.ana.attach(&group, None).await;
        outside.script(kind, "Then not.");
        socket.post("m1", "@Aria restart it").await;
        let asked = decide(&mut socket, "deny").await;
        assert_eq!(
            (&asked["tool"], &asked["arguments"]),
            (&json!(kind.tool()), &json!("{\"text\":\"husum\"}"))
        );
        let finished = socket.event("run.finished").await;
        assert_eq!(finished["status"], "completed", "{finished}");
        assert_eq!(outside.calls(kind), 0);
        assert!(outside.told().contains("did not permit"), "{}", outside.told());

        outside.script(kind, "It is done.");
        socket.post("m2", "@Aria restart it now").await;
        let requested = socket.event("tool.requested").await;
        assert_eq!(requested["calls"][0]["tool"], kind.tool());
        assert_eq!(requested["continuation"], "", "it is for the worker alone");
        decide(&mut socket, "approve").await;
        assert_eq!(socket.event("tool.started").await["attempt"], 2);
        assert_eq!(socket.event("tool.finished").await["status"], "ok");
        let finished = socket.event("run.finished").await;
        assert_eq!((&finished["status"], &finished["attempt"]), (&json!("completed"), &json!(2)));
        assert_eq!(outside.calls(kind), 1);
        assert_eq!(all(&house.ana, &group, "run.finished").await.len(), 2);
    }
}

#[tokio::test]
async fn a_call_that_a_kill_cut_off_is_unknown_and_never_made_again() {
    let mut house = House::open().await;
    house.outside.mcp.change(|mcp| mcp.results = json!({"write": null}));
    for kind in Kind::BOTH {
        let group = house.outside.group(&house.ana, kind, "silent").await;
        let (mut socket, _) = house.ana.attach(&group, None).await;
        house.outside.script(kind, "Nobody knows.");
        socket.post("m1", "@Aria restart it").await;
        decide(&mut socket, "approve").await;
        let started = socket.event("tool.started").await;
        house.outside.until_called(kind).await;
        drop(socket);
        house.node.kill().await;

        house.node = house.launch.start().await;
        house.ana = house.ana.at(&house.node.url);
        let (mut socket, _) = house.ana.attach(&group, started["seq"].as_u64()).await;
        let over = socket.event("tool.finished").await;
        assert_eq!((&over["status"], &over["call_id"]), (&json!("unknown"), &started["call_id"]));
        let finished = socket.event("run.finished").await;
        assert_eq!(finished["status"], "completed", "{finished}");
        assert!(house.outside.told().contains("nobody knows"), "{}", house.outside.told());
        assert_eq!(house.outside.calls(kind), 1, "it is not made a second time");
        assert_eq!(all(&house.ana, &group, "run.finished").await.len(), 1);
    }
}

#[tokio::test]
async fn a_worker_that_dies_in_the_middle_of_a_call_ends_the_run_once_and_the_next_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::sized(env!("CARGO_BIN_EXE_convene"), dir.path(), 1, 1, 1);
    let mut cluster: Cluster = plan.env("CONVENE_AGENTS__ALLOW_HOSTS", "127.0.0.1").start().await;
    let outside = Outside::start().await;
    let ana = Person::sign_up(&cluster.url(), "Ana").await;
    let group = outside.group(&ana, Kind::Http, "silent").await;
    let (mut socket, _) = ana.attach(&group, None).await;
    outside.script(Kind::Http, "Nobody knows.");
    socket.post("m1", "@Aria restart it").await;
    decide(&mut socket, "approve").await;
    let started = socket.event("tool.started").await;
    outside.until_called(Kind::Http).await;
    cluster.kill(Member::Agents(0)).await;
    let over = socket.event("tool.finished").await;
    assert_eq!((&over["status"], &over["call_id"]), (&json!("unknown"), &started["call_id"]));
    cluster.start(Member::Agents(0)).await;
    // The next attempt waits for the worker.
    let finished = socket.event("run.finished").await;
    assert_eq!(finished["status"], "completed", "{finished}");
    assert_eq!(outside.calls(Kind::Http), 1, "it is not made a second time");

    outside.models.always("m", Script::Say("Here I am.".to_owned()));
    cluster.until_one_is_ready(Member::Agents(0)).await;
    socket.post("m2", "@Aria are you there?").await;
    let next = socket.event("run.finished").await;
    assert_eq!(next["status"], "completed", "{next}");
    assert_eq!(all(&ana, &group, "run.finished").await.len(), 2);
}
