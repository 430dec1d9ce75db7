//! `POST /infra/groups/{id}/epoch`.

use convene_model::{Code, Problem};
use serde_json::json;

use crate::{
    controllers::Behaviour,
    world::{Answer, World},
};

async fn raise(world: &World, from: u64) -> Answer {
    let body = json!({ "from": from, "reason": "a key leaked" });
    world.ask("POST", "/infra/groups/g1/epoch").json(&body).send().await
}

async fn history(world: &World, token: &str) -> Answer {
    world.ask("GET", "/groups/g1/history").routing_token(token).send().await
}

#[tokio::test]
async fn a_raised_epoch_voids_every_token_and_the_controller_is_told() {
    let world = World::with_group().await;
    let before = world.routing_token("g1", "u1").await;
    let answer = raise(&world, 1).await.expect_status(200);
    assert_eq!((&answer.body["group_id"], &answer.body["epoch"]), (&json!("g1"), &json!(2)));
    let calls = world.controllers.calls();
    let call = calls.last().unwrap();
    assert_eq!((call.line.as_str(), call.epoch), ("POST /groups/g1/init", 2));
    history(&world, &before).await.expect_problem(403, "stale_epoch");
    let after = world.routing_token("g1", "u1").await;
    history(&world, &after).await.expect_status(200);
    let read = world.ask("GET", "/infra/groups/g1").send().await.expect_status(200);
    assert_eq!(read.body["epoch"], 2);
    world.activate("g1", "o1").await.expect_status(200);
    assert_eq!(world.ask("GET", "/infra/groups/g1").send().await.body["epoch"], 2);
}

#[tokio::test]
async fn a_repeat_raises_nothing_twice_and_tells_the_controller_again() {
    let world = World::with_group().await;
    raise(&world, 1).await.expect_status(200);
    let told = world.controllers.calls().len();
    let again = raise(&world, 1).await.expect_status(200);
    assert_eq!(again.body["epoch"], 2);
    assert_eq!(world.controllers.calls().len(), told + 1);
    assert_eq!(raise(&world, 2).await.expect_status(200).body["epoch"], 3);
    let (one, two) = tokio::join!(raise(&world, 3), raise(&world, 3));
    assert_eq!((&one.body["epoch"], &two.body["epoch"]), (&json!(4), &json!(4)));
}

#[tokio::test]
async fn an_epoch_that_never_was_is_a_conflict_and_changes_nothing() {
    let world = World::with_group().await;
    let before = world.standing().await;
    for from in [0, 2, u64::MAX >> 1] {
        let refused = raise(&world, from).await.expect_problem(409, "conflict");
        assert_eq!(refused.body["epoch"], 1);
    }
    assert_eq!(world.standing().await, before);
}

#[tokio::test]
async fn a_controller_that_cannot_be_told_is_an_error_that_a_repeat_heals() {
    let world = World::with_group().await;
    let token = world.routing_token("g1", "u1").await;
    world.controllers.refuse(Problem::new(Code::Overloaded));
    raise(&world, 1).await.expect_problem(502, "group_controller_unavailable");
    world.controllers.behave(Behaviour::Healthy);
    history(&world, &token).await.expect_problem(403, "stale_epoch");
    assert_eq!(raise(&world, 1).await.expect_status(200).body["epoch"], 2);
}

#[tokio::test]
async fn only_the_groups_own_app_and_operators_raise_it() {
    let world = World::with_group().await;
    let body = json!({ "from": 1, "reason": "x" });
    let before = world.standing().await;
    let foreign = world.ask("POST", "/infra/groups/g1/epoch").by(&world.portal).json(&body);
    foreign.send().await.expect_problem(404, "group_not_found");
    let other_org = world.ask("POST", "/infra/groups/g1/epoch").for_org("o2").json(&body);
    other_org.send().await.expect_problem(403, "forbidden");
    assert_eq!(world.standing().await, before);
    let theirs = json!({ "group_id": "g9", "org_id": "o9" });
    let activate = world.ask("POST", "/infra/groups").by(&world.portal).json(&theirs);
    activate.send().await.expect_status(200);
    for (by, epoch) in [(&world.portal, 2), (&world.app, 3)] {
        let body = json!({ "from": epoch - 1, "reason": "x" });
        let raised = world.ask("POST", "/infra/groups/g9/epoch").by(by).json(&body);
        assert_eq!(raised.send().await.expect_status(200).body["epoch"], epoch);
    }
    let none = world.ask("POST", "/infra/groups/none/epoch").json(&body);
    none.send().await.expect_problem(404, "group_not_found");
}
