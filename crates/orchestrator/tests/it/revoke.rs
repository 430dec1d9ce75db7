//! `POST /infra/groups/{id}/revoke`.

use convene_model::{Code, Problem};
use serde_json::json;

use crate::world::{Answer, World};

async fn revoke(world: &World, user: &str) -> Answer {
    let call = world.ask("POST", "/infra/groups/g1/revoke").json(&json!({ "user_id": user }));
    call.send().await
}

async fn history(world: &World, token: &str) -> Answer {
    world.ask("GET", "/groups/g1/history").routing_token(token).send().await
}

#[tokio::test]
async fn the_controller_is_told_who_was_removed() {
    let world = World::with_group().await;
    revoke(&world, "u1").await.expect_status(204);
    let calls = world.controllers.calls();
    let call = calls.last().unwrap();
    assert_eq!(call.line, "POST /groups/g1/revoke");
    assert_eq!(call.body, r#"{"user_id":"u1"}"#);
}

#[tokio::test]
async fn tokens_issued_until_that_second_are_void_and_later_ones_hold() {
    let world = World::with_group().await;
    let before = world.routing_token("g1", "u1").await;
    world.advance_ms(1_500);
    revoke(&world, "u1").await.expect_status(204);
    history(&world, &before).await.expect_problem(403, "access_revoked");
    // Within the revocation's own second a token cannot be told from one issued before it.
    world.advance_ms(400);
    let same_second = world.routing_token("g1", "u1").await;
    history(&world, &same_second).await.expect_problem(403, "access_revoked");
    world.advance_ms(100);
    let later = world.routing_token("g1", "u1").await;
    history(&world, &later).await.expect_status(200);
}

#[tokio::test]
async fn nobody_else_is_touched_and_no_other_group() {
    let world = World::with_group().await;
    world.activate("g2", "o1").await.expect_status(200);
    let (other, elsewhere) =
        (world.routing_token("g1", "u2").await, world.routing_token("g2", "u1").await);
    revoke(&world, "u1").await.expect_status(204);
    history(&world, &other).await.expect_status(200);
    let call = world.ask("GET", "/groups/g2/history").routing_token(&elsewhere);
    call.send().await.expect_status(200);
}

#[tokio::test]
async fn a_second_removal_voids_what_was_issued_in_between() {
    let world = World::with_group().await;
    revoke(&world, "u1").await.expect_status(204);
    world.advance_ms(5_000);
    let between = world.routing_token("g1", "u1").await;
    history(&world, &between).await.expect_status(200);
    world.advance_ms(5_000);
    revoke(&world, "u1").await.expect_status(204);
    history(&world, &between).await.expect_problem(403, "access_revoked");
}

#[tokio::test]
async fn a_controller_that_cannot_be_told_is_an_error_but_the_tokens_are_void_already() {
    let world = World::with_group().await;
    let token = world.routing_token("g1", "u1").await;
    world
        .controllers
        .behave(crate::controllers::Behaviour::Broken(http::StatusCode::INTERNAL_SERVER_ERROR));
    revoke(&world, "u1").await.expect_problem(502, "group_controller_unavailable");
    world.controllers.refuse(Problem::new(Code::Overloaded));
    revoke(&world, "u1").await.expect_problem(503, "overloaded");
    world.controllers.behave(crate::controllers::Behaviour::Healthy);
    history(&world, &token).await.expect_problem(403, "access_revoked");
}
