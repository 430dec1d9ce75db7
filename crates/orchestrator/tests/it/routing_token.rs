//! `POST /infra/routing-token`.

use convene_model::{Role, keys::TrustedKeys, token::verify_routing};
use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn a_routing_token_says_who_where_as_what_and_until_when() {
    let world = World::with_group().await;
    world.advance_ms(999);
    let answer = world
        .ask("POST", "/infra/routing-token")
        .json(&json!({ "group_id": "g1", "user_id": "u7", "role": "admin" }))
        .send()
        .await
        .expect_status(200);
    let keys = TrustedKeys::of("orchestrator", &world.orchestrator.key.jwks()).unwrap();
    let token = answer.body["routing_token"].as_str().unwrap();
    let access = verify_routing(&keys, token, world.now()).unwrap();
    assert_eq!(access.claims.user_id.as_str(), "u7");
    assert_eq!(access.claims.group_id.as_str(), "g1");
    assert_eq!(access.claims.org_id.as_str(), "o1");
    assert_eq!(access.claims.role, Role::Admin);
    assert_eq!(access.claims.epoch, 1);
    assert_eq!(answer.body["expires_at"], access.expires_at.millis());
    assert_eq!(access.expires_at.secs(), world.now().secs() + 300);
}

#[tokio::test]
async fn a_sleeping_group_has_routing_tokens_too_and_issuing_changes_nothing() {
    let world = World::with_group().await;
    world
        .ask("POST", "/infra/cleanup")
        .json(&json!({ "group_id": "g1", "status": "idle", "reason": "" }))
        .send()
        .await
        .expect_status(204);
    let before = world.standing().await;
    world.routing_token("g1", "u1").await;
    assert_eq!(world.standing().await, before);
}

#[tokio::test]
async fn an_idempotency_key_stores_no_routing_token() {
    let world = World::with_group().await;
    let before = world.standing().await;
    let call = world
        .ask("POST", "/infra/routing-token")
        .json(&json!({ "group_id": "g1", "user_id": "u1", "role": "member" }))
        .key("k1");
    let first = call.send().await.expect_status(200);
    let second = call.send().await.expect_status(200);
    assert_ne!(first.body["routing_token"], second.body["routing_token"]);
    assert_eq!(world.standing().await, before);
}

#[tokio::test]
async fn a_role_that_nobody_has_is_refused() {
    let world = World::with_group().await;
    let body = json!({ "group_id": "g1", "user_id": "u1", "role": "emperor" });
    let call = world.ask("POST", "/infra/routing-token").json(&body);
    call.send().await.expect_problem(400, "invalid_request");
}
