//! `GET` and `PUT /infra/orgs/{id}/block`.

use serde_json::{Value, json};

use crate::{
    controllers::Behaviour,
    world::{Answer, World},
};

async fn block(world: &World, blocked: bool) -> Answer {
    let body = json!({ "blocked": blocked, "reason": "a test" });
    world.ask("PUT", "/infra/orgs/o1/block").json(&body).send().await
}

fn told(world: &World) -> usize {
    world.controllers.lines().iter().filter(|line| line.ends_with("/init")).count()
}

#[tokio::test]
async fn of_a_blocked_organization_nothing_can_be_used_until_the_block_is_lifted() {
    let world = World::with_messages(3).await;
    world.activate("g2", "o1").await.expect_status(200);
    world.archive("g2").await.expect_status(200);
    world.settled().await;
    let token = world.routing_token("g1", "u1").await;
    let answer = block(&world, true).await.expect_status(200).body;
    assert_eq!(answer["blocked"], true);
    assert_eq!(answer["reason"], "a test");
    assert_eq!(answer["blocked_at"], world.now().millis());
    world.activate("g1", "o1").await.expect_problem(403, "org_blocked");
    world.activate("g3", "o1").await.expect_problem(403, "org_blocked");
    world.restore("g2").await.expect_problem(403, "org_blocked");
    let body = json!({ "group_id": "g1", "user_id": "u1", "role": "member" });
    let call = world.ask("POST", "/infra/routing-token").json(&body);
    call.send().await.expect_problem(403, "org_blocked");
    for path in ["/groups/g1/history", "/groups/g1/ws"] {
        let call = world.ask("GET", path).routing_token(&token);
        call.send().await.expect_problem(403, "org_blocked");
    }
    assert_eq!(world.records("o1").await, 2);
    block(&world, false).await.expect_status(200);
    let read = world.ask("GET", "/infra/orgs/o1/block").send().await.expect_status(200).body;
    assert_eq!(read, json!({ "org_id": "o1", "blocked": false }));
    let call = world.ask("GET", "/groups/g1/history").routing_token(&token);
    call.send().await.expect_problem(403, "stale_epoch");
    world.activate("g1", "o1").await.expect_status(200);
    world.restore("g2").await.expect_status(200);
    world.activate("g3", "o1").await.expect_status(200);
}

#[tokio::test]
async fn a_block_raises_the_epoch_of_each_group_and_tells_its_controller_so() {
    let world = World::new().await;
    for group in 0..40 {
        world.activate(&format!("g{group}"), "o1").await.expect_status(200);
    }
    world.activate("other", "o2").await.expect_status(200);
    let before = told(&world);
    block(&world, true).await.expect_status(200);
    assert_eq!(told(&world) - before, 40);
    for group in ["g0", "g39"] {
        assert_eq!(world.record(group).await["epoch"], 2);
    }
    assert_eq!(world.record("other").await["epoch"], 1);
}

#[tokio::test]
async fn a_controller_that_is_away_at_the_block_is_told_by_scheduled_work() {
    let world = World::with_group().await;
    world.controllers.once("init", Behaviour::Broken(http::StatusCode::BAD_GATEWAY));
    block(&world, true).await.expect_status(200);
    assert_eq!(world.opened.reconcile_once().await.unwrap().told, 1);
    assert_eq!(world.controllers.calls().last().unwrap().epoch, 2);
    assert_eq!(world.opened.reconcile_once().await.unwrap().told, 0);
}

#[tokio::test]
async fn only_operators_block_and_the_reason_is_bounded() {
    let world = World::with_group().await;
    let before = world.standing().await;
    let body = json!({ "blocked": true, "reason": "" });
    for (method, body) in [("PUT", body), ("GET", Value::Null)] {
        let call = world.ask(method, "/infra/orgs/o1/block").by(&world.portal);
        let call = if body.is_null() { call } else { call.json(&body) };
        call.send().await.expect_problem(403, "forbidden");
    }
    let long = json!({ "blocked": true, "reason": "x".repeat(201) });
    let call = world.ask("PUT", "/infra/orgs/o1/block").json(&long);
    call.send().await.expect_problem(422, "validation_failed");
    assert_eq!(world.standing().await, before);
}
