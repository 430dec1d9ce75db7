//! `POST /infra/cleanup`.

use serde_json::{Value, json};

use crate::world::{Answer, World};

fn body(status: &str) -> Value {
    json!({ "group_id": "g1", "status": status, "reason": "a test" })
}

async fn report(world: &World, status: &str) -> Answer {
    let call = world.ask("POST", "/infra/cleanup").json(&body(status));
    let token = call.controller_token("g1", 1).encode();
    call.send_with(Some(&token)).await
}

#[tokio::test]
async fn a_group_falls_asleep_and_wakes_and_counts_all_the_time() {
    let world = World::with_group().await;
    world.advance_ms(10);
    report(&world, "idle").await.expect_status(204);
    let slept = world.now().millis();
    let record = world.record("g1").await;
    assert_eq!(record["group_status"], "idle");
    assert_eq!(record["idle_at"], slept);
    assert_eq!(record["last_active"], slept);
    assert_eq!(world.active("o1").await, 1);
    world.advance_ms(10);
    report(&world, "active").await.expect_status(204);
    let record = world.record("g1").await;
    assert_eq!(record["group_status"], "active");
    assert_eq!(record["idle_at"], Value::Null);
    assert_eq!(record["last_active"], world.now().millis());
    assert_eq!(world.active("o1").await, 1);
}

#[tokio::test]
async fn falling_asleep_twice_keeps_the_first_instant() {
    let world = World::with_group().await;
    report(&world, "idle").await.expect_status(204);
    let before = world.standing().await;
    world.advance_ms(1_000);
    report(&world, "idle").await.expect_status(204);
    assert_eq!(world.standing().await, before);
}

#[tokio::test]
async fn a_sleeping_group_does_not_make_room_for_another() {
    let world = World::with_group().await;
    world.set_limit("o1", 1).await.expect_status(200);
    report(&world, "idle").await.expect_status(204);
    world.activate("g2", "o1").await.expect_problem(429, "active_group_limit_exceeded");
}

#[tokio::test]
async fn an_app_may_report_too() {
    let world = World::with_group().await;
    let call = world.ask("POST", "/infra/cleanup").json(&body("idle"));
    call.send().await.expect_status(204);
    assert_eq!(world.record("g1").await["group_status"], "idle");
}

#[tokio::test]
async fn only_the_documented_states_can_be_reported() {
    let world = World::with_group().await;
    let before = world.standing().await;
    report(&world, "asleep").await.expect_problem(400, "invalid_request");
    for status in ["archiving", "archived", "restoring", "deleting", "deleted"] {
        report(&world, status).await.expect_problem(422, "validation_failed");
    }
    assert_eq!(world.standing().await, before);
}

#[tokio::test]
async fn a_reason_has_at_most_two_hundred_characters() {
    let world = World::with_group().await;
    for (length, status) in [(200, 204), (201, 422)] {
        let body = json!({ "group_id": "g1", "status": "idle", "reason": "ä".repeat(length) });
        world.ask("POST", "/infra/cleanup").json(&body).send().await.expect_status(status);
    }
}

#[tokio::test]
async fn a_controller_repeats_its_report_under_one_key() {
    let world = World::with_group().await;
    let call = world.ask("POST", "/infra/cleanup").json(&body("idle")).key("k1");
    for _ in 0..2 {
        let token = call.controller_token("g1", 1).encode();
        call.send_with(Some(&token)).await.expect_status(204);
    }
}
