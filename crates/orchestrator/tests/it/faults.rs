//! Each row of the token table against each fault: refused with the right status, nothing changed.

use convene_testing::forge::{Fault, Forged, OF_BOUND_TYPES, OF_EVERY_TYPE};
use serde_json::json;

use crate::world::{Asking, World};

/// Every call that needs an `app+jwt`, as it would succeed.
async fn app_calls(world: &World) -> Vec<Asking<'_>> {
    let routing_token = world.routing_token("g1", "u1").await;
    vec![
        world.ask("POST", "/infra/groups").json(&json!({ "group_id": "g2", "org_id": "o1" })),
        world.ask("GET", "/infra/groups/g1"),
        world.ask("PUT", "/infra/groups/g1/config").json(&json!({ "version": 1, "agents": [] })),
        world.ask("POST", "/infra/groups/g1/revoke").json(&json!({ "user_id": "u2" })),
        world
            .ask("POST", "/infra/routing-token")
            .json(&json!({ "group_id": "g1", "user_id": "u1", "role": "member" })),
        cleanup(world),
        world.ask("GET", "/infra/orgs/o1/limits"),
        world.ask("PUT", "/infra/orgs/o1/limits").json(&json!({ "max_active_groups": 5 })),
        world.ask("GET", "/groups/g1/history").routing_token(&routing_token),
        world.ask("GET", "/groups/g1/messages/m1").routing_token(&routing_token),
        world
            .ask("POST", "/groups/g1/search")
            .json(&json!({ "query": "hello" }))
            .routing_token(&routing_token),
        world.ask("GET", "/groups/g1/ws").routing_token(&routing_token),
        // The last, since it voids the routing tokens of the others.
        world.ask("POST", "/infra/groups/g1/epoch").json(&json!({ "from": 1, "reason": "" })),
    ]
}

/// The calls that need a routing token besides.
fn user_calls(world: &World) -> Vec<Asking<'_>> {
    vec![
        world.ask("GET", "/groups/g1/history?limit=5"),
        world.ask("GET", "/groups/g1/messages/m1"),
        world.ask("POST", "/groups/g1/search").json(&json!({ "query": "hello" })),
        world.ask("GET", "/groups/g1/ws"),
    ]
}

fn cleanup(world: &World) -> Asking<'_> {
    world
        .ask("POST", "/infra/cleanup")
        .json(&json!({ "group_id": "g1", "status": "idle", "reason": "nobody is here" }))
}

#[tokio::test]
async fn a_faulty_app_token_is_refused_at_every_call_and_changes_nothing() {
    let world = World::with_group().await;
    let calls = app_calls(&world).await;
    let before = world.standing().await;
    for call in &calls {
        let of_the_type = [Fault::MissingClaim("sub")];
        for fault in OF_EVERY_TYPE.iter().chain(OF_BOUND_TYPES).chain(&of_the_type) {
            let token = fault.apply(&call.app_token(), &world.app, &world.portal);
            // A key must not be used up by a caller who was not known.
            let request = call.request(token.as_deref());
            let (mut parts, body) = request.into_parts();
            parts.headers.insert("idempotency-key", "k1".parse().unwrap());
            let request = http::Request::from_parts(parts, body);
            let line = format!("{fault:?} at {} {}", request.method(), request.uri());
            let answer = world.send(request).await;
            assert_eq!(answer.status.as_u16(), 401, "{line}: {}", answer.body);
            assert_eq!(answer.body["code"], fault.code(), "{line}");
            assert_eq!(world.standing().await, before, "{line}");
        }
    }
}

#[tokio::test]
async fn an_app_token_holds_once() {
    let world = World::with_group().await;
    for call in app_calls(&world).await {
        let token = call.app_token().encode();
        let first = call.send_with(Some(&token)).await;
        assert!(first.status.is_success() || first.status.as_u16() == 426, "{}", first.body);
        let before = world.standing().await;
        call.send_with(Some(&token)).await.expect_problem(401, "token_replayed");
        assert_eq!(world.standing().await, before);
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
    let world = World::with_group().await;
    let before = world.standing().await;
    for call in app_calls(&world).await {
        let routing = Forged::routing(&world.app, world.now()).encode();
        call.send_with(Some(&routing)).await.expect_problem(401, "unauthorized");
    }
    let read = world.ask("GET", "/infra/groups/g1");
    let token = read.controller_token("g1", 1).encode();
    read.send_with(Some(&token)).await.expect_problem(401, "unauthorized");
    assert_eq!(world.standing().await, before);
}

#[tokio::test]
async fn an_app_token_for_another_organization_is_forbidden_and_changes_nothing() {
    let world = World::with_group().await;
    let calls = app_calls(&world).await;
    let before = world.standing().await;
    for call in calls {
        let call = call.for_org("o2");
        call.send().await.expect_problem(403, "forbidden");
        assert_eq!(world.standing().await, before);
    }
}

#[tokio::test]
async fn an_app_token_that_names_the_right_organization_is_accepted() {
    let world = World::with_group().await;
    for call in app_calls(&world).await {
        let answer = call.for_org("o1").send().await;
        assert!(answer.status.is_success() || answer.status.as_u16() == 426, "{}", answer.body);
    }
}

#[tokio::test]
async fn another_issuer_finds_no_such_group_and_changes_nothing() {
    let world = World::with_group().await;
    let calls = app_calls(&world).await;
    let before = world.standing().await;
    for call in calls {
        let call = call.by(&world.portal);
        let answer = call.send().await;
        // Setting limits needs operator scope first, which this app does not have.
        if answer.status.as_u16() == 403 {
            assert_eq!(call.request(None).uri(), "/infra/orgs/o1/limits");
        } else {
            answer.expect_problem(404, "group_not_found");
        }
        assert_eq!(world.standing().await, before);
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
        for call in user_calls(&world) {
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
        for call in user_calls(&world) {
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
    for call in user_calls(&world) {
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
    for call in user_calls(&world) {
        call.routing_token(&token).send().await.expect_problem(403, "access_revoked");
        assert_eq!(world.standing().await, before);
    }
}

#[tokio::test]
async fn a_faulty_controller_token_is_refused_and_changes_nothing() {
    let world = World::with_group().await;
    let before = world.standing().await;
    let of_the_type = ["group_id", "epoch"].map(Fault::MissingClaim);
    for fault in OF_EVERY_TYPE.iter().chain(OF_BOUND_TYPES).chain(&of_the_type) {
        let call = cleanup(&world).key("k1");
        let sound = call.controller_token("g1", 1);
        let token = fault.apply(&sound, &world.host, &world.portal);
        let answer = call.send_with(token.as_deref()).await;
        assert_eq!(answer.status.as_u16(), 401, "{fault:?}: {}", answer.body);
        assert_eq!(answer.body["code"], fault.code(), "{fault:?}");
        assert_eq!(world.standing().await, before, "{fault:?}");
    }
}

#[tokio::test]
async fn a_controller_token_holds_once() {
    let world = World::with_group().await;
    let call = cleanup(&world);
    let token = call.controller_token("g1", 1).encode();
    call.send_with(Some(&token)).await.expect_status(204);
    let before = world.standing().await;
    call.send_with(Some(&token)).await.expect_problem(401, "token_replayed");
    assert_eq!(world.standing().await, before);
}

#[tokio::test]
async fn a_controller_speaks_only_for_its_own_group_under_its_present_epoch() {
    let world = World::with_group().await;
    world.activate("g2", "o1").await.expect_status(200);
    let before = world.standing().await;
    for (group, epoch, code) in
        [("g2", 1, "forbidden"), ("g1", 0, "stale_epoch"), ("g1", 2, "stale_epoch")]
    {
        let call = cleanup(&world);
        let token = call.controller_token(group, epoch).encode();
        call.send_with(Some(&token)).await.expect_problem(403, code);
        assert_eq!(world.standing().await, before);
    }
    let unknown = world
        .ask("POST", "/infra/cleanup")
        .json(&json!({ "group_id": "g9", "status": "idle", "reason": "" }));
    let token = unknown.controller_token("g9", 1).encode();
    unknown.send_with(Some(&token)).await.expect_problem(404, "group_not_found");
    assert_eq!(world.standing().await, before);
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
