//! What a run is given of tools and secrets: what its group, its agent and whoever began it may use.

use convene_model::UserId;
use serde_json::{Value, json};

use crate::{
    configuration::{Desk, server, tool},
    resolve::{Door, door},
    support::{Client, World},
};

/// A workspace where the group's agent is configured.
struct Run<'w> {
    door: Door<'w>,
    desk: Desk,
}

impl<'w> Run<'w> {
    async fn new(world: &'w World, ada: &mut Client<'w>) -> Self {
        let door = door(world, ada).await;
        let desk = Desk { org: door.org.clone() };
        Self { door, desk }
    }

    async fn agent(&self, ada: &mut Client<'_>, config: Value) {
        let one = format!("{}/{}", self.desk.path("agents"), self.door.agent);
        let reply = ada.patch(&one, &json!({"config": config})).await;
        assert_eq!(reply.status, http::StatusCode::OK, "{}", reply.text);
    }

    /// What a run that `user` began is given.
    async fn by(&self, user: Option<&str>) -> Value {
        let initiator = user.map(|user| UserId::new(user).unwrap());
        let reply = self.door.with_run(|run| run.claims.initiator = initiator).await;
        assert_eq!(reply.status, http::StatusCode::OK, "{}", reply.text);
        reply.json
    }
}

/// A tool whose one header is this value.
fn keyed(name: &str, value: Value) -> Value {
    let mut body = tool(name);
    body["config"]["headers"] =
        json!([{"name": "Authorization", "value": value, "prefix": "Bearer"}]);
    body
}

fn header(run: &Value, tool: &str) -> Option<Value> {
    let tools = run["tools"].as_array().unwrap();
    let found = tools.iter().find(|one| one["name"] == tool)?;
    Some(found["headers"][0]["value"].clone())
}

#[tokio::test]
async fn a_run_is_given_its_agents_tools_with_their_values_filled_in() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let run = Run::new(&world, &mut ada).await;
    let secret = run.desk.secret(&mut ada, "THINGS_KEY", "s3cret").await;
    let mut http = keyed("things", json!({"secret": secret}));
    http["config"]["methods"] = json!(["POST", "GET"]);
    http["config"]["path"] = json!("/{id}");
    http["config"]["parameters"] =
        json!({"type": "object", "properties": {"id": {"type": "string"}}});
    http["config"]["query"] = json!([{"name": "v", "value": {"plain": "1"}}]);
    http["config"]["auto_approve"] = json!(true);
    let http = run.desk.make(&mut ada, "http-tools", http).await;
    let mut mcp = server("git");
    mcp["config"]["tools"] = json!(["read", "write"]);
    mcp["config"]["auto_approve"] = json!(["write"]);
    let mcp = run.desk.make(&mut ada, "mcp-servers", mcp).await;
    run.agent(
        &mut ada,
        json!({
            "builtin_tools": ["calculator", "search_history"],
            "http_tools": [http],
            "mcp_servers": [{"server_id": mcp, "tools": ["write", "delete"]}],
        }),
    )
    .await;
    ada.put(&run.desk.path("tool-hosts"), &json!({"hosts": ["things.example"]})).await;
    let given = run.by(None).await;
    assert_eq!(given["tool_hosts"], json!(["things.example"]));
    assert_eq!(
        given["tools"],
        json!([
            {"kind": "builtin", "name": "calculator"},
            {"kind": "builtin", "name": "search_history"},
            {
                "kind": "http", "tool_id": http, "version": 1, "name": "things",
                "description": "Reads a thing.",
                "parameters": {"type": "object", "properties": {"id": {"type": "string"}}},
                "base_url": "https://things.example/v1", "methods": ["POST", "GET"], "path": "/{id}",
                "headers": [{"name": "Authorization", "value": {"secret": "Bearer s3cret"}}],
                "query": [{"name": "v", "value": {"plain": "1"}}],
                "timeout_ms": 20000, "max_response_bytes": 65536, "response": "text",
                "auto_approve": true, "approvers": {"kind": "initiator"}
            },
            {
                "kind": "mcp", "server_id": mcp, "version": 1, "name": "git",
                "url": "https://mcp.example/mcp/", "headers": [], "tools": ["write"],
                "timeout_ms": 30000, "auto_approve": ["write"], "approvers": {"kind": "initiator"}
            }
        ])
    );
}

#[tokio::test]
async fn a_secret_of_the_workspace_opens_in_the_groups_that_it_is_granted_to() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let run = Run::new(&world, &mut ada).await;
    let other = ada.group(&run.door.org, "Other", None).await;
    let secret = run.desk.secret(&mut ada, "KEY", "s3cret").await;
    let tool =
        run.desk.make(&mut ada, "http-tools", keyed("things", json!({"secret": secret}))).await;
    run.agent(&mut ada, json!({"http_tools": [tool]})).await;
    let one = format!("{}/{secret}", run.desk.path("secrets"));
    assert!(header(&run.by(None).await, "things").is_some(), "at first it is granted everywhere");
    ada.patch(&one, &json!({"groups": [other]})).await;
    let given = run.by(None).await;
    assert_eq!(header(&given, "things"), None);
    let prompt = given["system_prompt"].as_str().unwrap();
    assert!(prompt.contains("things: the secret that it needs may not be used in this group"));
    assert!(!given.to_string().contains("s3cret") && !prompt.contains("KEY"));
    ada.patch(&one, &json!({"groups": [run.door.group]})).await;
    let open = json!({"secret": "Bearer s3cret"});
    assert_eq!(header(&run.by(None).await, "things"), Some(open));
    ada.patch(&one, &json!({"value": "newer"})).await;
    let newer = json!({"secret": "Bearer newer"});
    assert_eq!(header(&run.by(None).await, "things"), Some(newer), "the newest version");
}

#[tokio::test]
async fn a_personal_secret_opens_only_in_runs_that_its_owner_began() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let mut bob = world.person("Bob").await;
    let run = Run::new(&world, &mut ada).await;
    ada.bring(&run.door.org, &mut bob).await;
    let tool =
        run.desk.make(&mut ada, "http-tools", keyed("things", json!({"variable": "KEY"}))).await;
    let variables = json!([{"name": "KEY", "value": {"personal": "MY_KEY"}}]);
    let profile = json!({"name": "P", "config": {"variables": variables}});
    let profile = run.desk.make(&mut ada, "env-profiles", profile).await;
    run.agent(&mut ada, json!({"http_tools": [tool], "env_profile_id": profile})).await;
    let (of_ada, of_bob) = ("ada-secret", "bob-secret");
    for (who, value) in [(&mut ada, of_ada), (&mut bob, of_bob)] {
        let body = json!({"scope": "personal", "name": "MY_KEY", "value": value});
        run.desk.make(who, "secrets", body).await;
    }
    for (user, mine, other) in [(&ada.id, of_ada, of_bob), (&bob.id, of_bob, of_ada)] {
        let given = run.by(Some(user)).await;
        let value = json!({"secret": format!("Bearer {mine}")});
        assert_eq!(header(&given, "things"), Some(value));
        assert!(!given.to_string().contains(other));
    }
    for nobody in [None, Some("somebody")] {
        let given = run.by(nobody).await;
        assert_eq!(header(&given, "things"), None, "{nobody:?}");
        assert!(
            given["system_prompt"].as_str().unwrap().contains("no personal secret named MY_KEY")
        );
        assert!(!given.to_string().contains(of_ada) && !given.to_string().contains(of_bob));
    }
    ada.delete(&format!("{}/{}", run.desk.path("members"), bob.id)).await;
    let given = run.by(Some(&bob.id)).await;
    assert_eq!(header(&given, "things"), None, "who left the workspace took it along");
}

#[tokio::test]
async fn an_agents_own_secret_opens_in_its_runs_alone() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let mut run = Run::new(&world, &mut ada).await;
    let tool =
        run.desk.make(&mut ada, "http-tools", keyed("things", json!({"variable": "KEY"}))).await;
    let variables = json!([{"name": "KEY", "value": {"agent": "OWN"}}]);
    let profile = json!({"name": "P", "config": {"variables": variables}});
    let profile = run.desk.make(&mut ada, "env-profiles", profile).await;
    let config = json!({"http_tools": [tool], "env_profile_id": profile});
    run.agent(&mut ada, config.clone()).await;
    let other = json!({"name": "Other", "config": config});
    let other = run.desk.make(&mut ada, "agents", other).await;
    let agents = json!({"agents": [
        {"agent_id": run.door.agent, "trigger": "mention"},
        {"agent_id": other, "trigger": "mention"}
    ]});
    ada.put(&format!("/api/groups/{}/agents", run.door.group), &agents).await;
    let body = json!({
        "scope": "agent", "agent_id": run.door.agent, "name": "OWN", "value": "of-the-guide"
    });
    run.desk.make(&mut ada, "secrets", body).await;
    let given = run.by(None).await;
    assert_eq!(header(&given, "things"), Some(json!({"secret": "Bearer of-the-guide"})));
    run.door.agent = other;
    let given = run.by(None).await;
    assert_eq!(header(&given, "things"), None);
    assert!(given["system_prompt"].as_str().unwrap().contains("the agent has no secret named OWN"));
}

#[tokio::test]
async fn each_change_that_a_run_could_see_makes_what_was_resolved_older() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let run = Run::new(&world, &mut ada).await;
    let desk = &run.desk;
    let mut version = run.by(None).await["version"].as_u64().unwrap();
    let mut later = async |what: &str| {
        let now = run.by(None).await["version"].as_u64().unwrap();
        assert!(now > version, "{what}");
        version = now;
    };
    let secret = desk.secret(&mut ada, "KEY", "v").await;
    later("a secret").await;
    ada.patch(&format!("{}/{secret}", desk.path("secrets")), &json!({"value": "w"})).await;
    later("another value").await;
    let id = desk.make(&mut ada, "http-tools", tool("things")).await;
    later("a tool").await;
    let mut change = tool("things");
    change["version"] = json!(1);
    ada.put(&format!("{}/{id}", desk.path("http-tools")), &change).await;
    later("another form of a tool").await;
    ada.put(&desk.path("tool-hosts"), &json!({"hosts": []})).await;
    later("hosts").await;
    run.agent(&mut ada, json!({"http_tools": [id]})).await;
    later("an agent").await;
}
