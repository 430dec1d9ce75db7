//! Health, keys, and what is not there.

use crate::world::World;

#[tokio::test]
async fn health_readiness_and_keys_need_no_token() {
    let world = World::new().await;
    for path in ["/healthz", "/readyz"] {
        world.ask("GET", path).send_with(None).await.expect_status(200);
    }
    let answer = world.ask("GET", "/.well-known/jwks.json").send_with(None).await;
    let answer = answer.expect_status(200);
    let published = serde_json::to_value(world.orchestrator.key.jwks()).unwrap();
    assert_eq!(answer.body, published);
    assert!(answer.body["keys"][0].get("d").is_none(), "no private part is published");
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let world = World::new().await;
    let unknown = world.ask("GET", "/infra/nothing").send_with(None).await;
    unknown.expect_problem(404, "not_found");
    let unknown = world.ask("DELETE", "/infra/cleanup").send_with(None).await;
    unknown.expect_problem(405, "method_not_allowed");
}
