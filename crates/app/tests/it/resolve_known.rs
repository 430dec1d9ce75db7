//! What a worker knows of an agent still holds, or does not: each change that a run could see is one that
//! the next question is told of, on whichever App process it was made.

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    configuration::{Desk, server, tool},
    resolve::{Door, door},
    support::{Client, World},
};

/// A worker that holds an answer for a run that Ada began.
struct Known<'d, 'w> {
    door: &'d Door<'w>,
    ada: String,
    version: Value,
}

impl Known<'_, '_> {
    /// After a change: what was known does not hold, and what is known then does.
    async fn is_old(&mut self, change: &str) -> Value {
        let reply = self.door.knowing(&self.version, &self.ada).await;
        assert_eq!(reply.status, StatusCode::OK, "{change}: {}", reply.text);
        let fresh = reply.json;
        assert!(fresh["version"].as_u64() > self.version.as_u64(), "{change}");
        self.version = fresh["version"].clone();
        self.holds(change).await;
        fresh
    }

    async fn holds(&self, change: &str) {
        let reply = self.door.knowing(&self.version, &self.ada).await;
        assert_eq!(reply.status, StatusCode::NO_CONTENT, "{change}: {}", reply.text);
        assert_eq!(reply.text, "", "{change}");
    }
}

#[tokio::test]
async fn each_change_that_a_run_could_see_is_told_at_the_next_question() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let mut bob = world.person("Bob").await;
    let door = door(&world, &mut ada).await;
    let desk = Desk { org: door.org.clone() };
    let agent = desk.path(&format!("agents/{}", door.agent));
    let mut known = Known { door: &door, ada: ada.id.clone(), version: json!(null) };
    let reply = door.knowing(&json!(null), &ada.id).await;
    known.version = reply.json["version"].clone();
    known.holds("nothing").await;

    let new = json!({"name": "Hub", "base_url": "https://hub.example/v1", "api_key": "sk-1"});
    let provider = desk.make(&mut ada, "providers", new).await;
    known.is_old("a provider is made").await;
    change(&mut ada, &agent, json!({"provider_id": provider, "model": "m"})).await;
    let fresh = known.is_old("the agent's model").await;
    assert_eq!(fresh["model"]["api_key"], "sk-1");
    let one = desk.path(&format!("providers/{provider}"));
    change(&mut ada, &one, json!({"api_key": "sk-2"})).await;
    assert_eq!(known.is_old("a key").await["model"]["api_key"], "sk-2");
    change(&mut ada, &one, json!({"prices": {"m": {"input": 1, "output": 2}}})).await;
    known.is_old("a price").await;
    change(&mut ada, &agent, json!({"system_prompt": "Be kind."})).await;
    known.is_old("the agent's prompt").await;

    // A tool with a secret of the workspace, a server with one of the agent and one of the asker.
    let secret = desk.secret(&mut ada, "TOKEN", "t-1").await;
    let mut new = tool("things");
    new["config"]["headers"] = json!([{"name": "x-key", "value": {"secret": secret}}]);
    let http_tool = desk.make(&mut ada, "http-tools", new).await;
    let mut new = server("files");
    new["config"]["headers"] = json!([
        {"name": "x-agent", "value": {"variable": "A"}},
        {"name": "x-mine", "value": {"variable": "P"}},
    ]);
    let mcp_server = desk.make(&mut ada, "mcp-servers", new.clone()).await;
    let variables = json!([
        {"name": "A", "value": {"agent": "AK"}}, {"name": "P", "value": {"personal": "PK"}},
    ]);
    let profile = json!({"name": "keys", "config": {"variables": variables}});
    let profile = desk.make(&mut ada, "env-profiles", profile).await;
    known.is_old("tools are made").await;
    let config = json!({
        "http_tools": [http_tool], "mcp_servers": [{"server_id": mcp_server}],
        "env_profile_id": profile,
    });
    change(&mut ada, &agent, json!({"config": config})).await;
    let fresh = known.is_old("the agent's tools").await;
    assert_eq!(fresh["tools"].as_array().unwrap().len(), 1, "{fresh}");
    let body = json!({"scope": "agent", "agent_id": door.agent, "name": "AK", "value": "a-1"});
    desk.make(&mut ada, "secrets", body).await;
    known.is_old("a secret of the agent").await;
    let body = json!({"scope": "personal", "name": "PK", "value": "p-1"});
    let personal = desk.make(&mut ada, "secrets", body).await;
    let fresh = known.is_old("a secret of the asker").await;
    assert_eq!(fresh["tools"].as_array().unwrap().len(), 2, "{fresh}");

    let one = desk.path(&format!("secrets/{secret}"));
    change(&mut ada, &one, json!({"value": "t-2"})).await;
    let fresh = known.is_old("another value").await;
    assert!(fresh["tools"].to_string().contains("t-2"), "{fresh}");
    change(&mut ada, &one, json!({"groups": []})).await;
    let fresh = known.is_old("a grant is withdrawn").await;
    assert!(!fresh["tools"].to_string().contains("t-2"), "{fresh}");
    change(&mut ada, &one, json!({"groups": [door.group]})).await;
    known.is_old("a grant").await;
    let gone = ada.delete(&desk.path(&format!("secrets/{personal}"))).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT, "{}", gone.text);
    let fresh = known.is_old("a personal secret is deleted").await;
    assert!(!fresh["tools"].to_string().contains("p-1"), "{fresh}");
    new["config"]["tools"] = json!(["read"]);
    new["version"] = json!(1);
    let set = ada.put(&desk.path(&format!("mcp-servers/{mcp_server}")), &new).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.text);
    known.is_old("a server's mask").await;
    let set = ada.put(&desk.path("tool-hosts"), &json!({"hosts": ["things.example"]})).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.text);
    known.is_old("the hosts of tools").await;

    ada.bring(&door.org, &mut bob).await;
    let fresh = known.is_old("somebody joins").await;
    assert_eq!(fresh["people"][&bob.id], "Bob");
    let group = format!("/api/groups/{}", door.group);
    change(&mut ada, &group, json!({"is_private": true})).await;
    assert!(known.is_old("the group is made private").await["people"].get(&bob.id).is_none());
    let put = ada.put(&format!("{group}/members/{}", bob.id), &json!({})).await;
    assert!(put.status.is_success(), "{}", put.text);
    known.is_old("somebody comes into the group").await;
    let out = ada.delete(&format!("{group}/members/{}", bob.id)).await;
    assert!(out.status.is_success(), "{}", out.text);
    known.is_old("somebody leaves the group").await;
    change(&mut ada, &group, json!({"is_private": false})).await;
    known.is_old("the group is opened").await;
    let out = ada.delete(&desk.path(&format!("members/{}", bob.id))).await;
    assert!(out.status.is_success(), "{}", out.text);
    assert!(known.is_old("somebody is removed").await["people"].get(&bob.id).is_none());
    change(&mut ada, &agent, json!({"name": "Scout"})).await;
    assert_eq!(known.is_old("another name").await["name"], "Scout");

    // What a run could not see leaves what is known as it is.
    change(&mut ada, &group, json!({"title": "Other plans"})).await;
    known.holds("a title").await;

    let agents = ada.get(&format!("{group}/agents")).await;
    let mut agents = agents.json["agents"].as_array().unwrap().clone();
    agents.retain(|one| one["agent_id"] != door.agent.as_str());
    let set = ada.put(&format!("{group}/agents"), &json!({"agents": agents})).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.text);
    let refused = door.knowing(&known.version, &ada.id).await;
    assert_eq!(refused.refusal(), (403, "forbidden"), "the agent is out of the group");
}

async fn change(ada: &mut Client<'_>, path: &str, body: Value) {
    let changed = ada.patch(path, &body).await;
    assert_eq!(changed.status, StatusCode::OK, "{path}: {}", changed.text);
}
