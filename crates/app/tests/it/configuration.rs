//! Tools, servers, env profiles and what agents use of them: one document each, with a version.

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Client, World};

/// A workspace's configuration as its manager writes it.
pub(crate) struct Desk {
    pub(crate) org: String,
}

impl Desk {
    pub(crate) fn path(&self, what: &str) -> String {
        format!("/api/orgs/{}/{what}", self.org)
    }

    /// Makes something and returns its id.
    pub(crate) async fn make(&self, ada: &mut Client<'_>, what: &str, body: Value) -> String {
        let made = ada.post(&self.path(what), &body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        let key = match what {
            "http-tools" => "tool_id",
            "mcp-servers" => "server_id",
            "env-profiles" => "env_profile_id",
            "secrets" => "secret_id",
            "agents" => "agent_id",
            "providers" => "provider_id",
            other => panic!("{other} has no ids"),
        };
        made.json[key].as_str().unwrap().to_owned()
    }

    pub(crate) async fn secret(&self, ada: &mut Client<'_>, name: &str, value: &str) -> String {
        self.make(ada, "secrets", json!({"scope": "workspace", "name": name, "value": value})).await
    }
}

pub(crate) fn tool(name: &str) -> Value {
    json!({"name": name, "config": {
        "description": "Reads a thing.",
        "base_url": "https://things.example/v1",
        "methods": ["GET"],
    }})
}

pub(crate) fn server(name: &str) -> Value {
    json!({"name": name, "config": {"url": "https://mcp.example/mcp/"}})
}

fn profile(name: &str) -> Value {
    json!({"name": name, "config": {"variables": [{"name": "A", "value": {"plain": "x"}}]}})
}

/// The three kinds of documents: path, id, a body and its other form.
fn kinds() -> [(&'static str, &'static str, Value, Value); 3] {
    let mut other_tool = tool("things");
    other_tool["config"]["methods"] = json!(["POST", "GET"]);
    let mut other_server = server("things");
    other_server["config"]["tools"] = json!(["read"]);
    let other_profile = json!({"name": "things", "config": {"variables": []}});
    [
        ("http-tools", "tool_id", tool("things"), other_tool),
        ("mcp-servers", "server_id", server("things"), other_server),
        ("env-profiles", "env_profile_id", profile("things"), other_profile),
    ]
}

#[tokio::test]
async fn a_document_is_made_read_set_anew_and_deleted() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let desk = Desk { org: ada.org("Works").await };
    for (what, key, body, other) in kinds() {
        let id = desk.make(&mut ada, what, body.clone()).await;
        let one = format!("{}/{id}", desk.path(what));
        let read = ada.get(&one).await;
        assert_eq!((&read.json[key], &read.json["version"]), (&json!(id), &json!(1)), "{what}");
        let mut change = other.clone();
        change["version"] = json!(1);
        let set = ada.put(&one, &change).await;
        assert_eq!((set.status, &set.json["version"]), (StatusCode::OK, &json!(2)), "{}", set.text);
        let read = ada.get(&one).await;
        assert_eq!(read.json, set.json, "{what}");
        for (member, value) in other["config"].as_object().unwrap() {
            assert_eq!(&read.json["config"][member], value, "{what} {member}");
        }
        let stale = ada.put(&one, &change).await;
        assert_eq!(stale.refusal(), (409, "conflict"), "{what}: made from a former version");
        let listed = ada.get(&desk.path(what)).await;
        assert_eq!(listed.json, json!([read.json]), "{what}");
        assert_eq!(ada.delete(&one).await.status, StatusCode::NO_CONTENT);
        for gone in [ada.get(&one).await, ada.delete(&one).await, ada.put(&one, &change).await] {
            assert_eq!(gone.refusal(), (404, "not_found"), "{what}");
        }
    }
    let audit = ada.get(&desk.path("audit")).await;
    let actions: Vec<_> = audit
        .json
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|e| e["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        [
            "http_tool.made",
            "http_tool.changed",
            "http_tool.deleted",
            "mcp_server.made",
            "mcp_server.changed",
            "mcp_server.deleted",
            "env_profile.made",
            "env_profile.changed",
            "env_profile.deleted"
        ]
    );
}

#[tokio::test]
async fn names_are_told_apart_within_their_kind_and_unknown_members_are_refused() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let desk = Desk { org: ada.org("Works").await };
    for (what, _, body, other) in kinds() {
        desk.make(&mut ada, what, body.clone()).await;
        let mut taken = other.clone();
        taken["name"] = json!("THINGS");
        let reply = ada.post(&desk.path(what), &taken).await;
        assert_eq!(
            (reply.refusal(), &reply.json["field"]),
            ((409, "already_exists"), &json!("name"))
        );
        let mut unknown = body.clone();
        unknown["config"]["colour"] = json!("red");
        let reply = ada.post(&desk.path(what), &unknown).await;
        assert!(reply.status.is_client_error(), "{what}: {}", reply.text);
        let mut unversioned = other;
        unversioned["name"] = json!("else");
        let id = desk.make(&mut ada, what, unversioned.clone()).await;
        let reply = ada.put(&format!("{}/{id}", desk.path(what)), &unversioned).await;
        assert!(reply.status.is_client_error(), "{what}: a change says what it was made from");
    }
    let mut builtin = tool("calculator");
    let reply = ada.post(&desk.path("http-tools"), &builtin).await;
    assert_eq!(reply.json["field"], "name", "models could not tell the two apart");
    builtin["name"] = json!("a__b");
    assert_eq!(ada.post(&desk.path("http-tools"), &builtin).await.json["field"], "name");
}

#[tokio::test]
async fn only_managers_see_and_change_the_configuration() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let mut bob = world.person("Bob").await;
    let mut eve = world.person("Eve").await;
    let desk = Desk { org: ada.org("Works").await };
    ada.bring(&desk.org, &mut bob).await;
    for (what, _, body, _) in kinds() {
        let id = desk.make(&mut ada, what, body.clone()).await;
        let (all, one) = (desk.path(what), format!("{}/{id}", desk.path(what)));
        let mut change = body.clone();
        change["version"] = json!(1);
        for (who, refusal) in [(&mut bob, (403, "forbidden")), (&mut eve, (404, "not_found"))] {
            assert_eq!(who.get(&all).await.refusal(), refusal);
            assert_eq!(who.get(&one).await.refusal(), refusal);
            assert_eq!(who.post(&all, &body).await.refusal(), refusal);
            assert_eq!(who.put(&one, &change).await.refusal(), refusal);
            assert_eq!(who.delete(&one).await.refusal(), refusal);
        }
        assert_eq!(ada.get(&one).await.json["version"], 1, "nothing was changed");
    }
    let hosts = json!({"hosts": ["a.example"]});
    assert_eq!(bob.put(&desk.path("tool-hosts"), &hosts).await.refusal(), (403, "forbidden"));
    assert_eq!(ada.get(&desk.path("tool-hosts")).await.json, json!({"hosts": null}));
}

#[tokio::test]
async fn what_is_referred_to_exists_and_is_not_deleted() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let desk = Desk { org: ada.org("Works").await };
    let mut bearer = tool("things");
    bearer["config"]["headers"] =
        json!([{"name": "Authorization", "value": {"secret": "none"}, "prefix": "Bearer"}]);
    let reply = ada.post(&desk.path("http-tools"), &bearer).await;
    assert_eq!(reply.json["field"], "headers", "{}", reply.text);
    let own = json!({"scope": "personal", "name": "MINE", "value": "v"});
    let own = desk.make(&mut ada, "secrets", own).await;
    bearer["config"]["headers"][0]["value"]["secret"] = json!(own);
    let reply = ada.post(&desk.path("http-tools"), &bearer).await;
    assert_eq!(
        reply.json["field"], "headers",
        "a personal secret is named by its owner's runs only"
    );
    let secret = desk.secret(&mut ada, "THINGS_KEY", "v").await;
    bearer["config"]["headers"][0]["value"]["secret"] = json!(secret);
    let tool = desk.make(&mut ada, "http-tools", bearer).await;
    let variables = json!([{"name": "KEY", "value": {"secret": secret}}]);
    let profile = json!({"name": "Staging", "config": {"variables": variables}});
    let profile = desk.make(&mut ada, "env-profiles", profile).await;
    let reply = ada.delete(&format!("{}/{secret}", desk.path("secrets"))).await;
    assert_eq!(reply.refusal(), (409, "conflict"));
    assert_eq!(reply.json["users"], json!(["Staging", "things"]));
    assert!(reply.text.contains("Staging and things"), "{}", reply.text);

    let server = desk.make(&mut ada, "mcp-servers", server("git")).await;
    for (field, config) in [
        ("http_tools", json!({"http_tools": ["none"]})),
        ("http_tools", json!({"http_tools": [server]})),
        ("mcp_servers", json!({"mcp_servers": [{"server_id": tool}]})),
        ("env_profile_id", json!({"env_profile_id": "none"})),
    ] {
        let body = json!({"name": "Aria", "config": config});
        let reply = ada.post(&desk.path("agents"), &body).await;
        assert_eq!(
            (reply.refusal(), &reply.json["field"]),
            ((422, "validation_failed"), &json!(field))
        );
    }
    let config = json!({
        "builtin_tools": ["current_time"],
        "http_tools": [tool],
        "mcp_servers": [{"server_id": server, "tools": ["read"]}],
        "env_profile_id": profile,
    });
    let agent = desk.make(&mut ada, "agents", json!({"name": "Aria", "config": config})).await;
    let agent = format!("{}/{agent}", desk.path("agents"));
    let used = [
        format!("{}/{tool}", desk.path("http-tools")),
        format!("{}/{server}", desk.path("mcp-servers")),
        format!("{}/{profile}", desk.path("env-profiles")),
    ];
    for one in &used {
        let reply = ada.delete(one).await;
        assert_eq!((reply.refusal(), &reply.json["users"]), ((409, "conflict"), &json!(["Aria"])));
    }
    ada.patch(&agent, &json!({"config": {}})).await;
    for one in &used {
        assert_eq!(ada.delete(one).await.status, StatusCode::NO_CONTENT);
    }
    let reply = ada.delete(&format!("{}/{secret}", desk.path("secrets"))).await;
    assert_eq!(reply.status, StatusCode::NO_CONTENT, "nothing refers to it any more");
}

#[tokio::test]
async fn those_who_permit_calls_belong_to_the_workspace() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let mut bob = world.person("Bob").await;
    let eve = world.person("Eve").await;
    let desk = Desk { org: ada.org("Works").await };
    ada.bring(&desk.org, &mut bob).await;
    let mut body = tool("things");
    let mut with = async |users: &[&str]| {
        body["config"]["approvers"] = json!({"kind": "n_of_m", "n": 1, "users": users});
        ada.post(&desk.path("http-tools"), &body).await
    };
    assert_eq!(with(&[&bob.id, &eve.id]).await.json["field"], "approvers");
    assert_eq!(with(&[&bob.id]).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn an_agent_that_only_its_maker_may_use_is_put_into_groups_by_nobody_else() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let mut bob = world.person("Bob").await;
    let mut cid = world.person("Cid").await;
    let desk = Desk { org: ada.org("Works").await };
    ada.bring(&desk.org, &mut bob).await;
    ada.bring(&desk.org, &mut cid).await;
    let role = json!({"role": "admin"});
    ada.patch(&format!("{}/{}", desk.path("members"), bob.id), &role).await;
    let both = json!({"name": "Draft", "visibility": "owner", "is_default": true});
    let reply = ada.post(&desk.path("agents"), &both).await;
    assert_eq!(reply.json["field"], "is_default", "groups of others would begin with it");
    let body = json!({"name": "Draft", "visibility": "owner"});
    let agent = desk.make(&mut ada, "agents", body).await;
    let names = |reply: &Value| {
        let all = reply.as_array().unwrap();
        all.iter().any(|one| one["agent_id"] == json!(agent))
    };
    assert!(names(&ada.get(&desk.path("agents")).await.json));
    assert!(names(&bob.get(&desk.path("agents")).await.json), "an admin sees it in the settings");
    assert!(!names(&cid.get(&desk.path("agents")).await.json));

    for (who, may) in [(&mut ada, true), (&mut bob, false), (&mut cid, false)] {
        let body = json!({"org_id": desk.org, "title": "T", "agent_ids": [agent]});
        let reply = who.post("/api/groups", &body).await;
        assert_eq!(reply.status == StatusCode::CREATED, may, "{}", reply.text);
        let group = who.group(&desk.org, "Own", None).await;
        let agents = json!({"agents": [{"agent_id": agent, "trigger": "mention"}]});
        let reply = who.put(&format!("/api/groups/{group}/agents"), &agents).await;
        assert_eq!(reply.status == StatusCode::OK, may, "{}", reply.text);
    }
    let group = ada.group(&desk.org, "Shared", None).await;
    let agents = json!({"agents": [{"agent_id": agent, "trigger": "mention"}]});
    let path = format!("/api/groups/{group}/agents");
    ada.put(&path, &agents).await;
    let kept = json!({"agents": [{"agent_id": agent, "trigger": "auto"}]});
    let reply = bob.put(&path, &kept).await;
    assert_eq!(reply.json["agents"][0]["trigger"], "auto", "where it is, others may set it");
    let copy = bob.post(&format!("/api/groups/{group}/clone"), &json!({"title": "Copy"})).await;
    let copy = copy.json["group_id"].as_str().unwrap().to_owned();
    let agents = bob.get(&format!("/api/groups/{copy}/agents")).await;
    assert_eq!(agents.json["agents"], json!([]), "a copy is without it");
}

#[tokio::test]
async fn an_agent_is_changed_from_the_version_that_was_seen() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let desk = Desk { org: ada.org("Works").await };
    let agent = desk.make(&mut ada, "agents", json!({"name": "Aria"})).await;
    let one = format!("{}/{agent}", desk.path("agents"));
    let first = ada.patch(&one, &json!({"system_prompt": "A", "version": 1})).await;
    assert_eq!((&first.json["version"], &first.json["made_by"]), (&json!(2), &json!(ada.id)));
    let second = ada.patch(&one, &json!({"system_prompt": "B", "version": 1})).await;
    assert_eq!(second.refusal(), (409, "conflict"));
    let newest = ada.patch(&one, &json!({"system_prompt": "C"})).await;
    assert_eq!(newest.json["version"], 3);
}

#[tokio::test]
async fn the_hosts_that_tools_may_reach_are_set_and_taken_back() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let desk = Desk { org: ada.org("Works").await };
    let path = desk.path("tool-hosts");
    let set = ada.put(&path, &json!({"hosts": ["API.example", "api.example:8443"]})).await;
    assert_eq!(set.json, json!({"hosts": ["api.example", "api.example:8443"]}));
    assert_eq!(ada.get(&path).await.json, set.json);
    for bad in [json!({"hosts": ["https://a"]}), json!({}), json!({"hosts": null, "x": 1})] {
        assert!(ada.put(&path, &bad).await.status.is_client_error(), "{bad}");
    }
    assert_eq!(ada.get(&path).await.json, set.json, "nothing was changed");
    assert_eq!(ada.put(&path, &json!({"hosts": null})).await.json, json!({"hosts": null}));
}

#[tokio::test]
async fn a_provider_a_server_and_an_agent_are_tried_out_where_they_are_set_up() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let desk = Desk { org: ada.org("Works").await };
    let provider = json!({"name": "Hub", "base_url": "http://hub/v1", "api_key": "12345"});
    let provider = desk.make(&mut ada, "providers", provider).await;
    let one = format!("{}/{provider}", desk.path("providers"));
    let seen = ada.send(http::Method::POST, &format!("{one}/check"), None, Vec::new()).await;
    assert_eq!(seen.json["models"], json!(["with-a-key-of-5"]), "{}", seen.text);
    let listed = ada.get(&desk.path("providers")).await;
    assert_eq!(listed.json[0]["seen"], seen.json, "what was found is kept");
    let moved = json!({"base_url": "http://wrong/v1", "api_key": "x"});
    assert_eq!(
        ada.patch(&one, &moved).await.json["seen"],
        Value::Null,
        "and forgotten by a change"
    );
    let seen = ada.send(http::Method::POST, &format!("{one}/check"), None, Vec::new()).await;
    assert_eq!(seen.json["failure"], "The provider refused the key.");

    let secret = desk.secret(&mut ada, "GIT", "123").await;
    let group = ada.group(&desk.org, "Elsewhere", None).await;
    let grant = json!({"groups": [group]});
    ada.patch(&format!("{}/{secret}", desk.path("secrets")), &grant).await;
    let mut body = server("git");
    body["config"]["headers"] = json!([
        {"name": "Authorization", "value": {"secret": secret}, "prefix": "Bearer"},
        {"name": "X-Env", "value": {"variable": "ENV"}},
    ]);
    let server = desk.make(&mut ada, "mcp-servers", body).await;
    let one = format!("{}/{server}", desk.path("mcp-servers"));
    let bare = ada.post(&format!("{one}/check"), &json!({})).await;
    assert_eq!(bare.refusal(), (422, "validation_failed"), "a variable has no value");
    let variables = json!([{"name": "ENV", "value": {"plain": "1234"}}]);
    let profile = json!({"name": "P", "config": {"variables": variables}});
    let profile = desk.make(&mut ada, "env-profiles", profile).await;
    let seen = ada.post(&format!("{one}/check"), &json!({"env_profile_id": profile})).await;
    assert_eq!(seen.json["tools"][0]["name"], "read_with_14", "{}", seen.text);
    assert_eq!(ada.get(&one).await.json["seen"], seen.json);

    let agent = json!({"name": "Aria", "system_prompt": "Be kind."});
    let agent = desk.make(&mut ada, "agents", agent).await;
    let path = format!("{}/{agent}/try", desk.path("agents"));
    let said = ada.post(&path, &json!({"text": "Hello?"})).await;
    assert_eq!(said.json, json!({"status": "reply", "text": "Be kind. Hello?"}));
    assert_eq!(ada.post(&path, &json!({"text": " "})).await.json["field"], "text");
}

#[tokio::test]
async fn a_workspace_tries_things_out_only_so_often() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let desk = Desk { org: ada.org("Works").await };
    let agent = desk.make(&mut ada, "agents", json!({"name": "Aria"})).await;
    let path = format!("{}/{agent}/try", desk.path("agents"));
    for _ in 0..convene_app::identity::limiter::PROBES_PER_ORG {
        assert_eq!(ada.post(&path, &json!({"text": "Hm?"})).await.status, StatusCode::OK);
    }
    assert_eq!(ada.post(&path, &json!({"text": "Hm?"})).await.refusal(), (429, "rate_limited"));
    world.pass(convene_app::identity::limiter::PROBE_WINDOW);
    assert_eq!(ada.post(&path, &json!({"text": "Hm?"})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_group_sets_the_bounds_of_its_discussions_and_leaves_them_to_the_default_again() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let group = ada.group(&org, "Plans", None).await;
    let path = format!("/api/groups/{group}/agents");
    let bounds = |reply: &Value| (reply["max_rounds"].clone(), reply["cooldown_secs"].clone());
    assert_eq!(bounds(&ada.get(&path).await.json), (Value::Null, Value::Null));
    let set = ada.put(&path, &json!({"max_rounds": 5, "cooldown_secs": 60})).await;
    assert_eq!(bounds(&set.json), (json!(5), json!(60)));
    let kept = ada.put(&path, &json!({"paused": true})).await;
    assert_eq!(bounds(&kept.json), (json!(5), json!(60)));
    for (field, body) in
        [("max_rounds", json!({"max_rounds": 9})), ("cooldown_secs", json!({"cooldown_secs": 0}))]
    {
        let reply = ada.put(&path, &body).await;
        assert_eq!(
            (reply.refusal(), &reply.json["field"]),
            ((422, "validation_failed"), &json!(field))
        );
    }
    let copy = ada.post(&format!("/api/groups/{group}/clone"), &json!({"title": "Copy"})).await;
    let copy = format!("/api/groups/{}/agents", copy.json["group_id"].as_str().unwrap());
    assert_eq!(bounds(&ada.get(&copy).await.json), (json!(5), json!(60)));
    let back = ada.put(&path, &json!({"max_rounds": null, "cooldown_secs": null})).await;
    assert_eq!(bounds(&back.json), (Value::Null, Value::Null));
    use convene_app::rooms::Groups;
    let told = world.groups().describe(&group.parse().unwrap()).await.unwrap().config;
    assert_eq!((told.max_rounds, told.cooldown_secs), (None, None));
    ada.put(&path, &json!({"max_rounds": 3})).await;
    let told = world.groups().describe(&group.parse().unwrap()).await.unwrap().config;
    assert_eq!((told.max_rounds, told.cooldown_secs), (Some(3), None));
}
