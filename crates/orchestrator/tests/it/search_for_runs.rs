//! `POST /groups/{id}/search` by the Agents Worker: the group is the run's, and nobody else's.

use convene_testing::forge::{Fault, Forged, Identity, OF_BOUND_TYPES, OF_EVERY_TYPE};
use serde_json::json;

use crate::world::{Asking, World, agents};

fn search(world: &World) -> Asking<'_> {
    world.ask("POST", "/groups/g1/search").json(&json!({ "query": "milk" }))
}

fn run(world: &World) -> Forged {
    Forged::agent_access(&world.host, world.now())
}

#[tokio::test]
async fn a_runs_search_reaches_the_controllers_with_the_runs_token() {
    let world = World::with_group().await;
    let (call, act) = (search(&world), run(&world).encode());
    let token = call.worker_token(&act).encode();
    let answer = call.send_with(Some(&token)).await.expect_status(200);
    assert_eq!(answer.body, json!({ "hits": [], "more": false }));
    let passed = world.controllers.calls().pop().unwrap();
    assert_eq!(passed.line, "POST /groups/g1/search");
    assert_eq!((passed.routing_token, passed.run_token), (None, Some(act)));
    // A worker's token is used once.
    call.send_with(Some(&token)).await.expect_problem(401, "token_replayed");
}

#[tokio::test]
async fn a_token_that_does_not_hold_is_refused_and_reaches_no_controller() {
    let world = World::with_group().await;
    let (call, act) = (search(&world), run(&world).encode());
    let calls = world.controllers.calls().len();
    let sound = call.worker_token(&act);
    for fault in OF_EVERY_TYPE.iter().chain(OF_BOUND_TYPES) {
        let token = fault.apply(&sound, &agents(), &world.portal);
        call.send_with(token.as_deref()).await.expect_problem(401, fault.code());
    }
    // Whoever else has a key that is trusted here is no Agents Worker.
    let app = Forged::worker(&world.app, world.now(), call.bound(), &act).encode();
    call.send_with(Some(&app)).await.expect_problem(401, "unauthorized");
    assert_eq!(world.controllers.calls().len(), calls);
}

#[tokio::test]
async fn a_runs_token_that_does_not_hold_is_refused_as_well() {
    let world = World::with_group().await;
    let call = search(&world);
    let calls = world.controllers.calls().len();
    let sound = run(&world);
    for fault in OF_EVERY_TYPE {
        // It is honoured past its own end, until the run's.
        if *fault == Fault::Expired {
            continue;
        }
        let act = fault.apply(&sound, &world.host, &world.portal).unwrap_or_default();
        let token = call.worker_token(&act).encode();
        call.send_with(Some(&token)).await.expect_problem(401, fault.code());
    }
    let now = world.now().secs();
    let strangers = Forged::agent_access(&Identity::new("portal", 2), world.now());
    for act in [
        sound.clone().with("run_exp", now - 6),
        sound.clone().with("run_exp", now + 901),
        sound.clone().with("run_exp", "soon"),
        strangers,
    ] {
        let token = call.worker_token(&act.encode()).encode();
        call.send_with(Some(&token)).await.expect_status(401);
    }
    assert_eq!(world.controllers.calls().len(), calls);
}

#[tokio::test]
async fn a_run_is_honoured_until_its_end_past_its_tokens_own() {
    let world = World::with_group().await;
    let call = search(&world);
    let act = run(&world).encode();
    for seconds in [61, 900 - 61 + 5] {
        world.advance_ms(seconds * 1000);
        let token = call.worker_token(&act).encode();
        call.send_with(Some(&token)).await.expect_status(200);
    }
    world.advance_ms(1000);
    let token = call.worker_token(&act).encode();
    call.send_with(Some(&token)).await.expect_problem(401, "token_expired");
}

#[tokio::test]
async fn another_group_or_organization_or_scope_is_forbidden() {
    let world = World::with_group().await;
    world.activate("g2", "o1").await.expect_status(200);
    let calls = world.controllers.calls().len();
    for act in [
        run(&world).with("group_id", "g2"),
        run(&world).with("org_id", "o2"),
        run(&world).with("scope", "agent:other"),
    ] {
        let call = search(&world);
        let token = call.worker_token(&act.encode()).encode();
        call.send_with(Some(&token)).await.expect_problem(403, "forbidden");
    }
    assert_eq!(world.controllers.calls().len(), calls);
}
