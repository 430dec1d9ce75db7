//! Health, keys, and what is not there.

use std::sync::Arc;

use async_trait::async_trait;
use convene_db::{Database, DbError, Migration, Row, Statement};
use serde_json::json;

use crate::place::Place;
use crate::world::World;

/// A directory that fails at everything but its migration.
struct Failing(DbError);

#[async_trait]
impl Database for Failing {
    async fn query(&self, _: Statement) -> Result<Vec<Row>, DbError> {
        Err(self.0.clone())
    }

    async fn execute(&self, _: Statement) -> Result<u64, DbError> {
        Err(self.0.clone())
    }

    async fn batch(&self, _: Vec<Statement>) -> Result<Vec<Vec<Row>>, DbError> {
        Err(self.0.clone())
    }

    async fn migrate(&self, _: &[Migration]) -> Result<(), DbError> {
        Ok(())
    }
}

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

#[tokio::test]
async fn a_directory_that_fails_is_an_error_whose_cause_stays_inside() {
    for (error, status, code) in [
        (DbError::Unavailable("secret cause".into()), 503, "unavailable"),
        (DbError::Other("secret cause".into()), 500, "internal"),
        (DbError::decode("secret", "cause"), 500, "internal"),
    ] {
        let world = World::on(Arc::new(Failing(error)), Place::new().await).await;
        world.ask("GET", "/healthz").send_with(None).await.expect_status(200);
        let body = json!({ "group_id": "g1", "org_id": "o1" });
        for call in [
            world.ask("GET", "/readyz"),
            world.ask("POST", "/infra/groups").json(&body),
            world.ask("POST", "/infra/groups").json(&body).key("k1"),
            world.ask("GET", "/infra/groups/g1"),
            world.ask("GET", "/infra/orgs/o1/limits"),
            world.ask("PUT", "/infra/orgs/o1/limits").json(&json!({ "max_active_groups": 1 })),
        ] {
            let answer = call.send().await.expect_problem(status, code);
            assert!(!answer.body.to_string().contains("secret"), "{}", answer.body);
        }
        assert_eq!(world.controllers.calls(), []);
    }
}

#[tokio::test]
async fn everything_on_record_survives_a_restart() {
    let world = World::with_group().await;
    world.set_limit("o1", 1).await.expect_status(200);
    let token = world.routing_token("g1", "u1").await;
    let revoke = world.ask("POST", "/infra/groups/g1/revoke").json(&json!({ "user_id": "u1" }));
    revoke.send().await.expect_status(204);
    let world = world.restarted().await;
    assert_eq!(world.record("g1").await["epoch"], 1);
    world.activate("g2", "o1").await.expect_problem(429, "active_group_limit_exceeded");
    let call = world.ask("GET", "/groups/g1/history").routing_token(&token);
    call.send().await.expect_problem(403, "access_revoked");
}
