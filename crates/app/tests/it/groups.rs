//! Groups: who sees them, who changes them, and what the controller is told.

use convene_app::rooms::Groups;
use convene_model::{
    GroupId, Role, UserId,
    limits::{
        MAX_AGENTS_PER_GROUP, MAX_EMOJI_BYTES, MAX_HITS, MAX_PAGE, MAX_QUERY_CHARS, MAX_TEXT_BYTES,
        MAX_TITLE_CHARS,
    },
};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Client, World};

/// An owner and two members of one workspace.
async fn three(world: &World) -> (String, [Client<'_>; 3]) {
    let mut owner = world.person("Owner").await;
    let mut bob = world.person("Bob").await;
    let mut cid = world.person("Cid").await;
    let org = owner.org("Works").await;
    owner.bring(&org, &mut bob).await;
    owner.bring(&org, &mut cid).await;
    (org, [owner, bob, cid])
}

fn ids(list: &Value, key: &str) -> Vec<String> {
    let list = list.as_array().unwrap();
    list.iter().map(|item| item[key].as_str().unwrap().to_owned()).collect()
}

async fn agent(client: &mut Client<'_>, org: &str, name: &str) -> String {
    let made = client.post(&format!("/api/orgs/{org}/agents"), &json!({"name": name})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    made.json["agent_id"].as_str().unwrap().to_owned()
}

async fn version(world: &World, group: &str) -> u64 {
    world.groups().describe(&GroupId::new(group).unwrap()).await.unwrap().config.version
}

#[tokio::test]
async fn an_open_group_is_everybodys_and_begins_with_the_default_agents() {
    let world = World::new().await;
    let (org, [mut owner, mut bob, _]) = three(&world).await;
    let extra = agent(&mut owner, &org, "Extra").await;
    let group = bob.group(&org, "  Plans ", None).await;
    let shown = owner.get(&format!("/api/groups/{group}")).await;
    assert_eq!(shown.json["title"], "Plans");
    assert_eq!((&shown.json["role"], &shown.json["can_manage"]), (&json!("owner"), &json!(true)));
    assert_eq!(shown.json["created_by"], bob.id);
    let members = bob.get(&format!("/api/groups/{group}/members")).await;
    assert_eq!(members.json.as_array().unwrap().len(), 3);
    let agents = bob.get(&format!("/api/groups/{group}/agents")).await;
    assert_eq!(agents.json["agents"][0]["name"], "Guide");
    assert_eq!(agents.json["agents"].as_array().unwrap().len(), 1, "and not {extra}");
    let list = bob.get(&format!("/api/groups?org_id={org}")).await;
    assert_eq!(ids(&list.json, "group_id"), [group]);
    assert!(world.calls(0).await.is_empty(), "making a group activates nothing");
}

#[tokio::test]
async fn a_private_group_does_not_exist_for_others_whatever_their_role() {
    let world = World::new().await;
    let (org, [mut owner, mut bob, mut cid]) = three(&world).await;
    let group = bob.group(&org, "Secret", Some(&[&cid.id])).await;
    let (root, bob_id) = (format!("/api/groups/{group}"), bob.id.clone());
    let some = json!({"title": "Mine", "text": "Hi", "paused": true});
    let mut stranger = world.person("Stranger").await;
    for other in [&mut owner, &mut stranger] {
        for (method, path) in [
            (Method::GET, root.clone()),
            (Method::PATCH, root.clone()),
            (Method::GET, format!("{root}/members")),
            (Method::PUT, format!("{root}/members/{bob_id}")),
            (Method::DELETE, format!("{root}/members/{bob_id}")),
            (Method::GET, format!("{root}/agents")),
            (Method::PUT, format!("{root}/agents")),
            (Method::GET, format!("{root}/messages")),
            (Method::POST, format!("{root}/messages")),
            (Method::GET, format!("{root}/ws")),
            (Method::POST, format!("{root}/clone")),
        ] {
            let mut body = some.clone();
            let keys: &[&str] = match () {
                () if path.ends_with("/messages") => &["text"],
                () if path.ends_with("/agents") => &["paused"],
                () => &["title"],
            };
            body.as_object_mut().unwrap().retain(|key, _| keys.contains(&key.as_str()));
            let reply = other.json(method.clone(), &path, &body).await;
            assert_eq!(reply.refusal(), (404, "group_not_found"), "{method} {path}");
            assert!(!reply.text.contains("Secret"));
        }
        let page = other.get(&format!("/g/{group}")).await;
        assert_eq!(page.status, StatusCode::NOT_FOUND);
        assert!(!page.text.contains("Secret"));
    }
    let list = owner.get(&format!("/api/groups?org_id={org}")).await;
    assert_eq!(list.json, json!([]));
    assert!(!owner.get(&format!("/o/{org}")).await.text.contains("Secret"));
    for insider in [&mut bob, &mut cid] {
        assert_eq!(insider.get(&root).await.status, StatusCode::OK);
        let members = insider.get(&format!("{root}/members")).await;
        assert_eq!(members.json.as_array().unwrap().len(), 2);
    }
    let none = world.groups();
    let group = GroupId::new(&group).unwrap();
    let role = async |id: &str| none.role(&group, &UserId::new(id).unwrap()).await.unwrap();
    assert_eq!(role(&owner.id).await, None);
    assert_eq!(role(&stranger.id).await, None);
    assert_eq!(role(&cid.id).await, Some(Role::Member));
}

#[tokio::test]
async fn who_leads_a_group_may_change_it_and_others_may_not() {
    let world = World::new().await;
    let (org, [mut owner, mut bob, mut cid]) = three(&world).await;
    let group = bob.group(&org, "Plans", None).await;
    let root = format!("/api/groups/{group}");
    let title = json!({"title": "New"});
    assert_eq!(cid.patch(&root, &title).await.refusal(), (403, "forbidden"));
    let pause = json!({"paused": true});
    assert_eq!(cid.put(&format!("{root}/agents"), &pause).await.refusal(), (403, "forbidden"));
    assert_eq!(cid.get(&root).await.json["title"], "Plans");
    assert_eq!(bob.patch(&root, &title).await.json["title"], "New");
    assert_eq!(owner.patch(&root, &json!({"title": "Newer"})).await.json["title"], "Newer");
    assert_eq!(bob.put(&format!("{root}/agents"), &pause).await.json["paused"], true);
}

#[tokio::test]
async fn titles_are_held_to_their_limit() {
    let world = World::new().await;
    let (org, [mut owner, ..]) = three(&world).await;
    let body = |count: usize| json!({"org_id": org, "title": "ä".repeat(count)});
    let made = owner.post("/api/groups", &body(MAX_TITLE_CHARS)).await;
    assert_eq!(made.status, StatusCode::CREATED);
    for count in [0, MAX_TITLE_CHARS + 1] {
        let reply = owner.post("/api/groups", &body(count)).await;
        assert_eq!(
            (reply.refusal(), &reply.json["field"]),
            ((422, "validation_failed"), &json!("title"))
        );
    }
    assert_eq!(world.rows("chat_groups").await, 1);
}

#[tokio::test]
async fn what_a_new_group_names_must_exist_in_the_workspace() {
    let world = World::new().await;
    let (org, [mut owner, bob, _]) = three(&world).await;
    let mut stranger = world.person("Stranger").await;
    let theirs = stranger.org("Theirs").await;
    let foreign = agent(&mut stranger, &theirs, "Spy").await;
    for (extra, field) in [
        (json!({"agent_ids": [foreign]}), "agent_ids"),
        (json!({"agent_ids": ["none"]}), "agent_ids"),
        (json!({"is_private": true, "member_ids": [stranger.id]}), "member_ids"),
        (json!({"member_ids": [bob.id]}), "member_ids"),
    ] {
        let mut body = json!({"org_id": org, "title": "T"});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let reply = owner.post("/api/groups", &body).await;
        assert_eq!(
            (reply.refusal(), &reply.json["field"]),
            ((422, "validation_failed"), &json!(field))
        );
    }
    assert_eq!(world.rows("chat_groups").await, 0);
    assert_eq!(world.rows("group_agents").await, 0);
    let body = json!({"org_id": org, "title": "T", "agent_ids": []});
    let made = owner.post("/api/groups", &body).await;
    let path = format!("/api/groups/{}/agents", made.json["group_id"].as_str().unwrap());
    assert_eq!(owner.get(&path).await.json["agents"], json!([]));
}

#[tokio::test]
async fn members_of_a_private_group_come_by_members_and_go_by_its_leaders() {
    let world = World::new().await;
    let (org, [mut owner, mut bob, mut cid]) = three(&world).await;
    let mut dan = world.person("Dan").await;
    owner.bring(&org, &mut dan).await;
    let stranger = world.person("Stranger").await;
    let group = bob.group(&org, "Secret", Some(&[&cid.id])).await;
    let member = |id: &str| format!("/api/groups/{group}/members/{id}");
    assert_eq!(cid.put(&member(&dan.id), &json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(cid.put(&member(&dan.id), &json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(cid.put(&member(&stranger.id), &json!({})).await.refusal(), (404, "not_found"));
    assert_eq!(cid.delete(&member(&dan.id)).await.refusal(), (403, "forbidden"));
    assert_eq!(bob.delete(&member(&dan.id)).await.status, StatusCode::NO_CONTENT);
    assert_eq!(bob.delete(&member(&dan.id)).await.refusal(), (404, "not_found"));
    assert_eq!(dan.get(&format!("/api/groups/{group}")).await.status, StatusCode::NOT_FOUND);
    let (bob_id, cid_id) = (bob.id.clone(), cid.id.clone());
    assert_eq!(cid.delete(&member(&cid_id)).await.status, StatusCode::NO_CONTENT);
    assert_eq!(bob.delete(&member(&bob_id)).await.refusal(), (409, "conflict"), "the last one");
    assert_eq!(bob.get(&format!("/api/groups/{group}")).await.status, StatusCode::OK);

    let open = owner.group(&org, "Open", None).await;
    let reply = owner.put(&format!("/api/groups/{open}/members/{cid_id}"), &json!({})).await;
    assert_eq!(reply.refusal(), (422, "validation_failed"));
}

#[tokio::test]
async fn whoever_loses_access_is_revoked_where_the_group_is_active() {
    let world = World::new().await;
    let (org, [mut owner, bob, mut cid]) = three(&world).await;
    let group = owner.group(&org, "Plans", None).await;
    let root = format!("/api/groups/{group}");
    let private = json!({"is_private": true, "member_ids": [bob.id]});
    let open = json!({"is_private": false});
    assert_eq!(owner.patch(&root, &private).await.json["is_private"], true);
    assert_eq!(owner.patch(&root, &open).await.json["is_private"], false);
    world.activate(&group).await;
    owner.patch(&root, &private).await;
    let revoked =
        |id: &str| [format!("POST /infra/groups/{group}/revoke {{\"user_id\":\"{id}\"}}")];
    assert_eq!(world.calls(1).await, revoked(&cid.id), "and never while it was not active");
    assert_eq!(cid.get(&root).await.refusal(), (404, "group_not_found"));
    assert_eq!(owner.get(&root).await.status, StatusCode::OK);
    owner.delete(&format!("{root}/members/{}", bob.id)).await;
    assert_eq!(world.calls(1).await, revoked(&bob.id));
    owner.patch(&root, &open).await;
    assert_eq!(cid.get(&root).await.status, StatusCode::OK);
    assert_eq!(world.rows("group_members").await, 0);
}

#[tokio::test]
async fn making_a_group_private_names_members_of_the_workspace() {
    let world = World::new().await;
    let (org, [mut owner, bob, _]) = three(&world).await;
    let stranger = world.person("Stranger").await;
    let group = owner.group(&org, "Plans", None).await;
    let root = format!("/api/groups/{group}");
    for ids in [json!([stranger.id]), json!([bob.id, stranger.id]), json!([stranger.id, bob.id])] {
        let body = json!({"title": "New", "is_private": true, "member_ids": ids});
        let reply = owner.patch(&root, &body).await;
        assert_eq!(
            (reply.refusal(), &reply.json["field"]),
            ((422, "validation_failed"), &json!("member_ids"))
        );
    }
    let shown = owner.get(&root).await;
    assert_eq!((&shown.json["title"], &shown.json["is_private"]), (&json!("Plans"), &json!(false)));
    let reply = owner.patch(&root, &json!({"member_ids": [bob.id]})).await;
    assert_eq!(reply.refusal(), (422, "validation_failed"));
}

#[tokio::test]
async fn the_controller_is_told_of_each_change_with_a_higher_version() {
    let world = World::new().await;
    let (org, [mut owner, ..]) = three(&world).await;
    let critic = agent(&mut owner, &org, "Critic").await;
    let group = owner.group(&org, "Plans", None).await;
    let agents = format!("/api/groups/{group}/agents");
    let chosen = json!({"agents": [{"agent_id": critic, "trigger": "auto"}], "paused": false});
    assert_eq!(version(&world, &group).await, 1);
    owner.put(&agents, &chosen).await;
    assert_eq!(version(&world, &group).await, 2);
    assert!(world.calls(0).await.is_empty(), "nobody is told before it is active");

    world.activate(&group).await;
    let told = |version: u64, name: &str, paused: bool| {
        let agents = json!([{"agent_id": critic, "name": name, "trigger": "auto"}]);
        format!(
            "PUT /infra/groups/{group}/config {{\"version\":{version},\"agents\":{agents},\"paused\":{paused},\"revisions\":\"keep\"}}"
        )
    };
    let reply = owner.put(&agents, &json!({"paused": true})).await;
    assert_eq!(reply.json["agents"][0]["agent_id"], critic, "what is not named stays");
    assert_eq!(world.calls(1).await, [told(3, "Critic", true)]);
    let one = format!("/api/orgs/{org}/agents/{critic}");
    owner.patch(&one, &json!({"system_prompt": "Be kind."})).await;
    owner.patch(&one, &json!({"name": "Judge"})).await;
    assert_eq!(world.calls(1).await, [told(4, "Judge", true)], "a prompt is nothing to it");
    owner.put(&agents, &json!({"paused": false})).await;
    assert_eq!(world.calls(1).await, [told(5, "Judge", false)]);
    owner.delete(&one).await;
    let none = format!(
        "PUT /infra/groups/{group}/config {{\"version\":6,\"agents\":[],\"paused\":false,\"revisions\":\"keep\"}}"
    );
    assert_eq!(world.calls(1).await, [none]);
}

#[tokio::test]
async fn agents_of_a_group_exist_are_named_once_and_are_not_too_many() {
    let world = World::new().await;
    let (org, [mut owner, ..]) = three(&world).await;
    let critic = agent(&mut owner, &org, "Critic").await;
    let group = owner.group(&org, "Plans", None).await;
    let path = format!("/api/groups/{group}/agents");
    let one = |id: &str| json!({"agent_id": id, "trigger": "mention"});
    let mut full = Vec::new();
    for n in 0..=MAX_AGENTS_PER_GROUP {
        full.push(one(&agent(&mut owner, &org, &format!("a{n}")).await));
    }
    for wrong in [json!([one("none")]), json!([one(&critic), one(&critic)]), json!(full)] {
        let reply = owner.put(&path, &json!({"agents": wrong})).await;
        assert_eq!(
            (reply.refusal(), &reply.json["field"]),
            ((422, "validation_failed"), &json!("agents"))
        );
    }
    assert_eq!(owner.get(&path).await.json["agents"][0]["name"], "Guide");
    assert_eq!(version(&world, &group).await, 1);
    full.pop();
    let reply = owner.put(&path, &json!({"agents": full})).await;
    assert_eq!(reply.json["agents"].as_array().unwrap().len(), MAX_AGENTS_PER_GROUP);
    assert_eq!(reply.json["agents"][1]["name"], "a1", "in their order");
}

#[tokio::test]
async fn a_clone_has_members_and_agents_and_a_life_of_its_own() {
    let world = World::new().await;
    let (org, [mut owner, mut bob, cid]) = three(&world).await;
    let group = bob.group(&org, "Secret", Some(&[&cid.id])).await;
    let critic = agent(&mut owner, &org, "Critic").await;
    let chosen = json!({"agents": [{"agent_id": critic, "trigger": "auto"}]});
    bob.put(&format!("/api/groups/{group}/agents"), &chosen).await;
    world.activate(&group).await;
    let made = bob.post(&format!("/api/groups/{group}/clone"), &json!({"title": "Again"})).await;
    assert_eq!((made.status, &made.json["is_private"]), (StatusCode::CREATED, &json!(true)));
    let clone = made.json["group_id"].as_str().unwrap();
    assert_ne!(clone, group);
    let agents = bob.get(&format!("/api/groups/{clone}/agents")).await;
    assert_eq!(
        agents.json["agents"][0],
        json!({"agent_id": critic, "name": "Critic", "trigger": "auto"})
    );
    let members = bob.get(&format!("/api/groups/{clone}/members")).await;
    assert_eq!(members.json.as_array().unwrap().len(), 2);
    bob.put(&format!("/api/groups/{clone}/agents"), &json!({"paused": true})).await;
    assert!(world.calls(0).await.is_empty(), "the clone is not active");
}

#[tokio::test]
async fn history_of_a_group_that_was_never_used_is_empty() {
    let world = World::new().await;
    let (org, [mut owner, ..]) = three(&world).await;
    let group = owner.group(&org, "Plans", None).await;
    let path = format!("/api/groups/{group}/messages");
    let page = owner.get(&format!("{path}?render=html&limit={MAX_PAGE}")).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    assert_eq!((&page.json["messages"], &page.json["head"]), (&json!([]), &json!(0)));
    for limit in [0, MAX_PAGE + 1] {
        let reply = owner.get(&format!("{path}?limit={limit}")).await;
        assert_eq!(
            (reply.refusal(), &reply.json["field"]),
            ((422, "validation_failed"), &json!("limit"))
        );
    }
    for query in ["limit=x", "before=-1", "render=pdf", "colour=red"] {
        let reply = owner.get(&format!("{path}?{query}")).await;
        assert_eq!(reply.refusal(), (400, "invalid_request"), "{query}");
    }
}

#[tokio::test]
async fn a_message_is_held_to_its_limits_before_it_travels() {
    let world = World::new().await;
    let (org, [mut owner, ..]) = three(&world).await;
    let group = owner.group(&org, "Plans", None).await;
    let path = format!("/api/groups/{group}/messages");
    let many = vec!["u"; convene_model::limits::MAX_MENTIONS + 1];
    for (body, field) in [
        (json!({"text": ""}), "text"),
        (json!({"text": " \n"}), "text"),
        (json!({"text": "x".repeat(MAX_TEXT_BYTES + 1)}), "text"),
        (json!({"text": "Hi", "mentions": many}), "mentions"),
    ] {
        let reply = owner.post(&path, &body).await;
        assert_eq!(
            (reply.refusal(), &reply.json["field"]),
            ((422, "validation_failed"), &json!(field))
        );
    }
    let reply = owner.post(&path, &json!({"text": "Hi", "message_id": "not an id"})).await;
    assert_eq!(reply.refusal(), (400, "invalid_request"));
    let reply = owner.post(&path, &json!({"text": "x".repeat(MAX_TEXT_BYTES)})).await;
    assert_eq!(
        reply.refusal(),
        (404, "group_not_found"),
        "it travels to an Orchestrator that knows nothing"
    );
}

#[tokio::test]
async fn what_becomes_of_edited_texts_is_set_by_managers_and_the_controller_is_told() {
    let world = World::new().await;
    let (org, [mut owner, mut bob, _]) = three(&world).await;
    let group = bob.group(&org, "Plans", None).await;
    let root = format!("/api/groups/{group}");
    assert_eq!(bob.get(&root).await.json["revisions"], "keep");
    let discard = json!({"revisions": "discard"});
    let refused = bob.patch(&root, &discard).await;
    assert_eq!(refused.refusal(), (403, "forbidden"), "its maker is not enough");
    world.activate(&group).await;
    assert_eq!(owner.patch(&root, &discard).await.json["revisions"], "discard");
    let told = world.calls(1).await;
    assert!(told[0].contains("\"version\":2") && told[0].contains("\"revisions\":\"discard\""));
    assert_eq!(owner.patch(&root, &discard).await.status, StatusCode::OK);
    assert_eq!(version(&world, &group).await, 2, "what stands already is no change");
    let clone = owner.post(&format!("{root}/clone"), &json!({"title": "Again"})).await;
    let clone = clone.json["group_id"].as_str().unwrap().to_owned();
    assert_eq!(owner.get(&format!("/api/groups/{clone}")).await.json["revisions"], "discard");
    let audit = owner.get(&format!("/api/orgs/{org}/audit")).await.json;
    assert_eq!(audit[0]["action"], "group.revisions_set");
    assert_eq!(audit[0]["detail"], json!({"from": "keep", "to": "discard"}));
    let wrong = owner.patch(&root, &json!({"revisions": "burn"})).await;
    assert_eq!(wrong.refusal(), (400, "invalid_request"));
}

#[tokio::test]
async fn what_is_asked_of_messages_is_checked_before_it_goes_on() {
    let world = World::new().await;
    let (org, [mut owner, mut bob, _]) = three(&world).await;
    let group = owner.group(&org, "Plans", None).await;
    let root = format!("/api/groups/{group}");
    let message = format!("{root}/messages/m1");
    let none = json!({});
    for (method, path, body) in [
        (Method::PATCH, message.clone(), json!({"text": " "})),
        (Method::PATCH, message.clone(), json!({"text": "x".repeat(MAX_TEXT_BYTES + 1)})),
        (
            Method::PUT,
            format!("{message}/reactions/{}", "x".repeat(MAX_EMOJI_BYTES + 1)),
            none.clone(),
        ),
        (Method::GET, format!("{root}/messages?around=5&before=7"), none.clone()),
        (Method::GET, format!("{root}/search?q=%20"), none.clone()),
        (Method::GET, format!("{root}/search?q={}", "x".repeat(MAX_QUERY_CHARS + 1)), none.clone()),
        (Method::GET, format!("{root}/search?q=x&limit={}", MAX_HITS + 1), none.clone()),
        (Method::GET, format!("{root}/search?q=x&limit=0"), none.clone()),
        (Method::GET, format!("{root}/search?q=x&author=a%20b"), none.clone()),
    ] {
        let reply = owner.json(method.clone(), &path, &body).await;
        assert_eq!(reply.refusal(), (422, "validation_failed"), "{method} {path}");
    }
    let longest = format!("{root}/search?q={}&limit={MAX_HITS}", "x".repeat(MAX_QUERY_CHARS));
    assert_eq!(owner.get(&longest).await.json, json!({"hits": [], "more": false}));
    let secret = owner.group(&org, "Secret", Some(&[])).await;
    let root = format!("/api/groups/{secret}");
    for (method, path) in [
        (Method::GET, "messages/m1"),
        (Method::PATCH, "messages/m1"),
        (Method::DELETE, "messages/m1"),
        (Method::PUT, "messages/m1/reactions/%F0%9F%91%8D"),
        (Method::DELETE, "messages/m1/reactions/%F0%9F%91%8D"),
        (Method::PUT, "messages/m1/pin"),
        (Method::DELETE, "messages/m1/pin"),
        (Method::GET, "search?q=x"),
    ] {
        let body = json!({"text": "x"});
        let reply = bob.json(method.clone(), &format!("{root}/{path}"), &body).await;
        assert_eq!(reply.refusal(), (404, "group_not_found"), "{method} {path}");
    }
}
