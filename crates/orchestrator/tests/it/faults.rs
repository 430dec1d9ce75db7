//! Each row of the token table against each fault, at every call of the document: refused with the right
//! status, nothing changed.

use std::collections::BTreeSet;

use convene_testing::forge::{Fault, Forged, OF_BOUND_TYPES, OF_EVERY_TYPE};
use serde_json::{Value, json};

use crate::world::{Answer, Asking, World};

/// The calls that need no token.
const OPEN: [&str; 3] = ["isAlive", "isReady", "readKeys"];
/// The calls that are for a group's controller alone, and the one that is for it too.
const OF_CONTROLLERS_ALONE: [&str; 3] = ["releaseResources", "reportUsage", "reserveForRun"];
const OF_CONTROLLERS_TOO: &str = "reportGroup";
/// The calls that list what their caller may see.
const LISTS: [&str; 3] = ["listGroups", "listOrgs", "listTasks"];
/// The calls that are for operators alone.
const OF_OPERATORS: [&str; 5] = ["adoptGroup", "listAbuse", "readBlock", "setBlock", "setLimits"];

/// A call under its name in the document.
type Named<'a> = (&'static str, Asking<'a>);

/// A world in which all of the calls below succeed, in their order: `g1` is active, and the snapshot of
/// `moved` has lost its records. Somebody went beyond a rate. Returns the path of a task, too.
async fn stage() -> (World, String) {
    let world = World::with_messages(3).await;
    world.activate("moved", "o1").await.expect_status(200);
    let archived = world.archive("moved").await.expect_status(200).body;
    world.settled().await;
    world.execute("DELETE FROM routing_records WHERE group_id = 'moved'").await;
    world.execute("DELETE FROM archives WHERE group_id = 'moved'").await;
    let refused = json!([{ "user_id": "u1", "kind": "posts", "count": 2 }]);
    let report = world.ask("POST", "/infra/groups/g1/usage").key("k0");
    let report = report.json(&json!({ "refused": refused }));
    let token = report.controller_token("g1", 1).encode();
    report.send_with(Some(&token)).await.expect_status(204);
    (world, format!("/infra/tasks/{}", archived["archive_id"].as_str().unwrap()))
}

/// Every call that needs an `app+jwt`, as it would succeed.
async fn app_calls<'a>(world: &'a World, task: &str) -> Vec<Named<'a>> {
    let routing_token = world.routing_token("g1", "u1").await;
    let get = |path: &str| world.ask("GET", path);
    let post = |path: &str, body: Value| world.ask("POST", path).json(&body);
    let put = |path: &str, body: Value| world.ask("PUT", path).json(&body);
    let role = json!({ "group_id": "g1", "user_id": "u1", "role": "member" });
    let mut calls = vec![
        ("activateGroup", post("/infra/groups", json!({ "group_id": "g2", "org_id": "o1" }))),
        ("listGroups", get("/infra/groups?limit=5")),
        ("readGroup", get("/infra/groups/g1")),
        ("listGroupEvents", get("/infra/groups/g1/events")),
        ("configureGroup", put("/infra/groups/g1/config", json!({ "version": 1, "agents": [] }))),
        ("revokeUser", post("/infra/groups/g1/revoke", json!({ "user_id": "u2" }))),
        ("issueRoutingToken", post("/infra/routing-token", role)),
        ("reportGroup", cleanup(world)),
        ("readLimits", get("/infra/orgs/o1/limits")),
        ("setLimits", put("/infra/orgs/o1/limits", json!({ "max_active_groups": 5 }))),
        ("readBlock", get("/infra/orgs/o1/block")),
        ("readOrgUsage", get("/infra/orgs/o1/usage")),
        ("readGroupUsage", get("/infra/groups/g1/usage")),
        ("listAbuse", get("/infra/abuse")),
        ("listOrgs", get("/infra/orgs")),
        ("listTasks", get("/infra/tasks")),
        ("readTask", get(task)),
    ];
    let of_users = user_calls(world).into_iter();
    calls.extend(of_users.map(|(name, call)| (name, call.routing_token(&routing_token))));
    // The rest void the routing tokens of those before, and each needs the one before it.
    calls.extend([
        ("raiseEpoch", post("/infra/groups/g1/epoch", json!({ "from": 1, "reason": "" }))),
        ("archiveGroup", post("/infra/groups/g1/archive", json!({ "reason": "" }))),
        ("restoreGroup", world.ask("POST", "/infra/groups/g1/restore")),
        ("deleteGroup", world.ask("DELETE", "/infra/groups/g1")),
        ("adoptGroup", post("/infra/groups/moved/adopt", json!({}))),
        ("setBlock", put("/infra/orgs/o1/block", json!({ "blocked": true, "reason": "" }))),
    ]);
    calls
}

/// The calls that need a routing token besides.
fn user_calls(world: &World) -> Vec<Named<'_>> {
    let search = world.ask("POST", "/groups/g1/search").json(&json!({ "query": "hello" }));
    vec![
        ("readHistory", world.ask("GET", "/groups/g1/history?limit=5")),
        ("readMessage", world.ask("GET", "/groups/g1/messages/m1")),
        ("explainMessage", world.ask("GET", "/groups/g1/messages/m1/why")),
        ("searchGroup", search),
        ("openUpstream", world.ask("GET", "/groups/g1/ws")),
    ]
}

/// Every call that a group's controller makes, as it would succeed.
fn controller_calls<'a>(world: &'a World, group: &str) -> Vec<Named<'a>> {
    let post = |verb: &str, body: &Value| {
        world.ask("POST", &format!("/infra/groups/{group}/{verb}")).json(body)
    };
    let report = json!({ "group_id": group, "status": "idle", "reason": "nobody is here" });
    vec![
        ("reportGroup", world.ask("POST", "/infra/cleanup").json(&report)),
        ("reportUsage", post("usage", &json!({ "egress_bytes": 1 })).key("k1")),
        ("reserveForRun", post("reserve", &json!({ "run_id": "r1", "tokens": 10 }))),
        (
            "releaseResources",
            world.ask("POST", &format!("/infra/groups/{group}/release-resources")),
        ),
    ]
}

fn cleanup(world: &World) -> Asking<'_> {
    controller_calls(world, "g1").swap_remove(0).1
}

/// An upgrade without its headers gets as far as a call without a token does not.
#[track_caller]
fn expect_success(name: &str, answer: &Answer) {
    let upgrade = name == "openUpstream" && answer.status.as_u16() == 426;
    assert!(answer.status.is_success() || upgrade, "{name}: {}: {}", answer.status, answer.body);
}

/// Whether the path of a call is this one of the document.
fn is_of(path: &str, template: &str) -> bool {
    let (mut of_path, mut of_template) = (path.split('/'), template.split('/'));
    loop {
        match (of_path.next(), of_template.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) if one == other || other.starts_with('{') => {}
            _ => return false,
        }
    }
}

#[tokio::test]
async fn every_call_of_the_document_is_tried_here() {
    let (world, task) = stage().await;
    let mut tried: Vec<_> = app_calls(&world, &task).await;
    tried.extend(controller_calls(&world, "g1").into_iter().skip(1));
    let document = convene_orchestrator::openapi::document();
    let (mut open, mut of_users, mut known) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            let Some(security) = operation["security"].as_array().unwrap().first() else {
                open.insert(name.to_owned());
                continue;
            };
            if security.get("routingToken").is_some() {
                of_users.insert(name.to_owned());
            }
            known.insert(name.to_owned());
            let (_, call) = tried
                .iter()
                .find(|(tried, _)| *tried == name)
                .unwrap_or_else(|| panic!("{name} is tried with no faulty token"));
            let bound = call.bound();
            let same = bound.method.eq_ignore_ascii_case(method) && is_of(bound.path, path);
            assert!(same, "{name} is {method} {path}, not {} {}", bound.method, bound.path);
        }
    }
    let names = |calls: Vec<Named<'_>>| -> BTreeSet<_> {
        calls.into_iter().map(|(name, _)| name.to_owned()).collect()
    };
    assert_eq!(open, OPEN.map(str::to_owned).into(), "nothing else is for everybody");
    assert_eq!(names(user_calls(&world)), of_users);
    assert_eq!(names(tried), known);
    let of_controllers: BTreeSet<_> = OF_CONTROLLERS_ALONE
        .iter()
        .chain([&OF_CONTROLLERS_TOO])
        .map(|name| (*name).to_owned())
        .collect();
    assert_eq!(names(controller_calls(&world, "g1")), of_controllers);
}

#[tokio::test]
async fn a_faulty_app_token_is_refused_at_every_call_and_changes_nothing() {
    let (world, task) = stage().await;
    let calls = app_calls(&world, &task).await;
    let before = world.standing().await;
    for (name, call) in &calls {
        let of_the_type = [Fault::MissingClaim("sub")];
        for fault in OF_EVERY_TYPE.iter().chain(OF_BOUND_TYPES).chain(&of_the_type) {
            let token = fault.apply(&call.app_token(), &world.app, &world.portal);
            // A key must not be used up by a caller who was not known.
            let request = call.request(token.as_deref());
            let (mut parts, body) = request.into_parts();
            parts.headers.insert("idempotency-key", "k1".parse().unwrap());
            let request = http::Request::from_parts(parts, body);
            let answer = world.send(request).await;
            assert_eq!(answer.status.as_u16(), 401, "{fault:?} at {name}: {}", answer.body);
            assert_eq!(answer.body["code"], fault.code(), "{fault:?} at {name}");
        }
        assert_eq!(world.standing().await, before, "{name}");
    }
}

#[tokio::test]
async fn an_app_token_holds_once() {
    let (world, task) = stage().await;
    for (name, call) in app_calls(&world, &task).await {
        let token = call.app_token().encode();
        expect_success(name, &call.send_with(Some(&token)).await);
        world.settled().await;
        let before = world.standing().await;
        call.send_with(Some(&token)).await.expect_problem(401, "token_replayed");
        assert_eq!(world.standing().await, before, "{name}");
    }
}

#[tokio::test]
async fn a_refused_token_is_not_used_up() {
    let world = World::with_group().await;
    let call = world.ask("GET", "/infra/groups/g1");
    let token = call.app_token().encode();
    world.ask("GET", "/infra/groups/g2").send_with(Some(&token)).await.expect_status(401);
    call.send_with(Some(&token)).await.expect_status(200);
}

#[tokio::test]
async fn a_token_of_another_type_is_no_app_token_even_from_a_trusted_key() {
    let (world, task) = stage().await;
    let calls = app_calls(&world, &task).await;
    let before = world.standing().await;
    for (name, call) in calls {
        let routing = Forged::routing(&world.app, world.now()).encode();
        call.send_with(Some(&routing)).await.expect_problem(401, "unauthorized");
        if name != OF_CONTROLLERS_TOO {
            let token = call.controller_token("g1", 1).encode();
            call.send_with(Some(&token)).await.expect_problem(401, "unauthorized");
        }
        assert_eq!(world.standing().await, before, "{name}");
    }
}

/// What somebody may see who may see nothing of `o1`.
#[track_caller]
fn expect_nothing(name: &str, answer: Answer) {
    let body = answer.expect_status(200).body;
    let listed: usize =
        body.as_object().unwrap().values().filter_map(Value::as_array).map(Vec::len).sum();
    assert_eq!(listed, 0, "{name}: {body}");
}

#[tokio::test]
async fn an_app_token_for_another_organization_is_forbidden_and_changes_nothing() {
    let (world, task) = stage().await;
    let calls = app_calls(&world, &task).await;
    let before = world.standing().await;
    for (name, call) in calls {
        let answer = call.for_org("o2").send().await;
        if LISTS.contains(&name) || name == "listAbuse" {
            expect_nothing(name, answer);
        } else {
            assert_eq!(answer.status.as_u16(), 403, "{name}: {}", answer.body);
            answer.expect_problem(403, "forbidden");
        }
        assert_eq!(world.standing().await, before, "{name}");
    }
}

#[tokio::test]
async fn an_app_token_that_names_the_right_organization_is_accepted() {
    let (world, task) = stage().await;
    for (name, call) in app_calls(&world, &task).await {
        expect_success(name, &call.for_org("o1").send().await);
        world.settled().await;
    }
}

#[tokio::test]
async fn another_issuer_finds_no_such_group_and_changes_nothing() {
    let (world, task) = stage().await;
    let calls = app_calls(&world, &task).await;
    let before = world.standing().await;
    for (name, call) in calls {
        let answer = call.by(&world.portal).send().await;
        if LISTS.contains(&name) {
            expect_nothing(name, answer);
        } else if OF_OPERATORS.contains(&name) {
            answer.expect_problem(403, "forbidden");
        } else if name == "readTask" {
            answer.expect_problem(404, "task_not_found");
        } else {
            assert_eq!(answer.status.as_u16(), 404, "{name}: {}", answer.body);
            answer.expect_problem(404, "group_not_found");
        }
        assert_eq!(world.standing().await, before, "{name}");
    }
}

#[tokio::test]
async fn an_unknown_group_is_not_found_and_changes_nothing() {
    let world = World::with_group().await;
    let token = world.routing_token("g1", "u1").await;
    let before = world.standing().await;
    for call in [
        world.ask("GET", "/infra/groups/g9"),
        world.ask("GET", "/infra/groups/not%20an%20id"),
        world.ask("GET", "/infra/groups/%ff"),
        world.ask("PUT", "/infra/groups/g9/config").body("{}"),
        world.ask("POST", "/infra/groups/g9/revoke").json(&json!({ "user_id": "u1" })),
        world
            .ask("POST", "/infra/routing-token")
            .json(&json!({ "group_id": "g9", "user_id": "u1", "role": "owner" })),
        world
            .ask("POST", "/infra/cleanup")
            .json(&json!({ "group_id": "g9", "status": "idle", "reason": "" })),
        world.ask("GET", "/groups/g9/history").routing_token(&token),
        world.ask("GET", "/groups/g9/messages/m1").routing_token(&token),
        world.ask("POST", "/groups/g9/search").json(&json!({ "query": "a" })).routing_token(&token),
        world.ask("GET", "/groups/g9/ws").routing_token(&token),
        world.ask("GET", "/infra/orgs/%20/limits"),
    ] {
        call.send().await.expect_problem(404, "group_not_found");
        assert_eq!(world.standing().await, before);
    }
}

#[tokio::test]
async fn a_faulty_routing_token_is_refused_and_reaches_no_controller() {
    let world = World::with_group().await;
    let before = world.standing().await;
    let of_the_type = ["user_id", "org_id", "group_id", "role", "epoch"].map(Fault::MissingClaim);
    for fault in OF_EVERY_TYPE.iter().chain(&of_the_type) {
        for (_, call) in user_calls(&world) {
            let sound = Forged::routing(&world.orchestrator, world.now());
            let call = match fault.apply(&sound, &world.orchestrator, &world.app) {
                Some(token) => call.routing_token(&token),
                None => call,
            };
            let answer = call.send().await;
            assert_eq!(answer.status.as_u16(), 401, "{fault:?}: {}", answer.body);
            assert_eq!(answer.body["code"], fault.code(), "{fault:?}");
            assert_eq!(world.standing().await, before, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn two_routing_tokens_are_none() {
    let world = World::with_group().await;
    let token = world.routing_token("g1", "u1").await;
    let call = world.ask("GET", "/groups/g1/history").routing_token(&token).routing_token(&token);
    call.send().await.expect_problem(401, "unauthorized");
}

#[tokio::test]
async fn a_sound_routing_token_for_something_else_is_forbidden_and_reaches_no_controller() {
    let world = World::with_group().await;
    world.activate("g2", "o1").await.expect_status(200);
    let before = world.standing().await;
    for (claim, value, code) in [
        ("group_id", json!("g2"), "forbidden"),
        ("org_id", json!("o2"), "forbidden"),
        ("epoch", json!(0), "stale_epoch"),
        ("epoch", json!(2), "stale_epoch"),
    ] {
        for (_, call) in user_calls(&world) {
            let token =
                Forged::routing(&world.orchestrator, world.now()).with(claim, value.clone());
            call.routing_token(&token.encode()).send().await.expect_problem(403, code);
            assert_eq!(world.standing().await, before, "{claim}");
        }
    }
}

#[tokio::test]
async fn a_raised_epoch_voids_the_routing_tokens_before_it() {
    let world = World::with_group().await;
    let token = world.routing_token("g1", "u1").await;
    world.execute("UPDATE routing_records SET epoch = 2 WHERE group_id = 'g1'").await;
    for (_, call) in user_calls(&world) {
        call.routing_token(&token).send().await.expect_problem(403, "stale_epoch");
    }
    let token = world.routing_token("g1", "u1").await;
    world.ask("GET", "/groups/g1/history").routing_token(&token).send().await.expect_status(200);
    assert_eq!(world.controllers.calls().last().unwrap().epoch, 2);
}

#[tokio::test]
async fn a_revoked_user_is_refused_and_reaches_no_controller() {
    let world = World::with_group().await;
    let token = world.routing_token("g1", "u1").await;
    world
        .ask("POST", "/infra/groups/g1/revoke")
        .json(&json!({ "user_id": "u1" }))
        .send()
        .await
        .expect_status(204);
    let before = world.standing().await;
    for (_, call) in user_calls(&world) {
        call.routing_token(&token).send().await.expect_problem(403, "access_revoked");
        assert_eq!(world.standing().await, before);
    }
}

#[tokio::test]
async fn a_faulty_controller_token_is_refused_at_every_call_and_changes_nothing() {
    let world = World::with_group().await;
    let before = world.standing().await;
    let of_the_type = ["group_id", "epoch"].map(Fault::MissingClaim);
    for (name, call) in controller_calls(&world, "g1") {
        for fault in OF_EVERY_TYPE.iter().chain(OF_BOUND_TYPES).chain(&of_the_type) {
            let sound = call.controller_token("g1", 1);
            let token = fault.apply(&sound, &world.host, &world.portal);
            let mut request = call.request(token.as_deref());
            request.headers_mut().insert("idempotency-key", "k1".parse().unwrap());
            let answer = world.send(request).await;
            assert_eq!(answer.status.as_u16(), 401, "{fault:?} at {name}: {}", answer.body);
            assert_eq!(answer.body["code"], fault.code(), "{fault:?} at {name}");
        }
        if OF_CONTROLLERS_ALONE.contains(&name) {
            call.send().await.expect_problem(401, "unauthorized");
        }
        let routing = Forged::routing(&world.host, world.now()).encode();
        call.send_with(Some(&routing)).await.expect_problem(401, "unauthorized");
        assert_eq!(world.standing().await, before, "{name}");
    }
}

#[tokio::test]
async fn a_controller_token_holds_once() {
    let world = World::with_group().await;
    for (name, call) in controller_calls(&world, "g1") {
        let token = call.controller_token("g1", 1).encode();
        expect_success(name, &call.send_with(Some(&token)).await);
        let before = world.standing().await;
        call.send_with(Some(&token)).await.expect_problem(401, "token_replayed");
        assert_eq!(world.standing().await, before, "{name}");
    }
}

#[tokio::test]
async fn a_controller_speaks_only_for_its_own_group_under_its_present_epoch() {
    let world = World::with_group().await;
    world.activate("g2", "o1").await.expect_status(200);
    let before = world.standing().await;
    for (group, epoch, code) in
        [("g2", 1, "forbidden"), ("g1", 0, "stale_epoch"), ("g1", 2, "stale_epoch")]
    {
        for (name, call) in controller_calls(&world, "g1") {
            // What was used under a former epoch was used.
            if name == "reportUsage" && epoch == 0 {
                continue;
            }
            let token = call.controller_token(group, epoch).encode();
            call.send_with(Some(&token)).await.expect_problem(403, code);
            assert_eq!(world.standing().await, before, "{name}");
        }
    }
    for (name, call) in controller_calls(&world, "g9") {
        let token = call.controller_token("g9", 1).encode();
        call.send_with(Some(&token)).await.expect_problem(404, "group_not_found");
        assert_eq!(world.standing().await, before, "{name}");
    }
}

#[tokio::test]
async fn tokens_are_accepted_within_the_leeway_and_refused_one_second_beyond() {
    let world = World::with_group().await;
    let read = world.ask("GET", "/infra/groups/g1");
    let secs = world.now().secs();
    for (issued, status) in [(secs + 5, 200), (secs + 6, 401), (secs - 65, 200), (secs - 66, 401)] {
        let token = read
            .app_token()
            .with("iat", issued)
            .with("nbf", issued)
            .with("exp", issued + 60)
            .encode();
        read.send_with(Some(&token)).await.expect_status(status);
    }
}
