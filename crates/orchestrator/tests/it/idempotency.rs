//! `Idempotency-Key` on mutating calls.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use convene_model::{Code, Problem};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    controllers::Behaviour,
    world::{Asking, World},
};

fn activation<'a>(world: &'a World, group: &str, key: &str) -> Asking<'a> {
    world.ask("POST", "/infra/groups").json(&json!({ "group_id": group, "org_id": "o1" })).key(key)
}

#[tokio::test]
async fn a_repeat_is_answered_and_not_done_again() {
    let world = World::new().await;
    let first = activation(&world, "g1", "k1").send().await.expect_status(200);
    let before = world.standing().await;
    for _ in 0..3 {
        assert_eq!(activation(&world, "g1", "k1").send().await, first);
    }
    assert_eq!(world.standing().await, before);
    activation(&world, "g1", "k2").send().await.expect_status(200);
    assert_eq!(world.controllers.calls().len(), 2);
}

/// Calls of other methods than GET that change nothing: a repeat of the first issues another token,
/// which is never stored, and the second only reads.
const WITHOUT_KEY: [&str; 2] = ["issueRoutingToken", "searchGroup"];

/// Every mutating call of the document, each at a time at which it succeeds: its operation, and the
/// method, the path and the body of it. Those of the group's controller are marked.
fn mutations() -> Vec<(&'static str, &'static str, &'static str, Value, bool)> {
    let limits = json!({ "max_active_groups": 5, "monthly_tokens": 1_000 });
    let block = json!({ "blocked": true, "reason": "a test" });
    let free = json!({ "blocked": false, "reason": "" });
    vec![
        ("setLimits", "PUT", "/infra/orgs/o1/limits", limits, false),
        (
            "activateGroup",
            "POST",
            "/infra/groups",
            json!({"group_id": "g2", "org_id": "o1"}),
            false,
        ),
        ("configureGroup", "PUT", "/infra/groups/g1/config", json!({"version": 1}), false),
        ("revokeUser", "POST", "/infra/groups/g1/revoke", json!({"user_id": "u1"}), false),
        ("reportUsage", "POST", "/infra/groups/g1/usage", json!({"egress_bytes": 1}), true),
        (
            "reserveForRun",
            "POST",
            "/infra/groups/g1/reserve",
            json!({"run_id": "r1", "tokens": 10}),
            true,
        ),
        ("releaseResources", "POST", "/infra/groups/g1/release-resources", Value::Null, true),
        (
            "reportGroup",
            "POST",
            "/infra/cleanup",
            json!({"group_id": "g1", "status": "idle", "reason": ""}),
            false,
        ),
        ("raiseEpoch", "POST", "/infra/groups/g1/epoch", json!({"from": 1, "reason": ""}), false),
        ("archiveGroup", "POST", "/infra/groups/g1/archive", json!({"reason": ""}), false),
        ("restoreGroup", "POST", "/infra/groups/g1/restore", Value::Null, false),
        ("setBlock", "PUT", "/infra/orgs/o1/block", block, false),
        ("setBlock", "PUT", "/infra/orgs/o1/block", free, false),
        ("deleteGroup", "DELETE", "/infra/groups/g1", Value::Null, false),
        ("adoptGroup", "POST", "/infra/groups/moved/adopt", json!({}), false),
    ]
}

#[tokio::test]
async fn every_mutating_call_honours_its_key() {
    let world = World::with_messages(3).await;
    // An archived group whose record is lost can be adopted: its snapshot has our own signature.
    world.activate("moved", "o1").await.expect_status(200);
    world.archive("moved").await.expect_status(200);
    world.settled().await;
    world.execute("DELETE FROM routing_records WHERE group_id = 'moved'").await;
    world.execute("DELETE FROM archives WHERE group_id = 'moved'").await;
    for (nth, (operation, method, path, body, by_controller)) in mutations().into_iter().enumerate()
    {
        let mut call = world.ask(method, path).key(&format!("k{nth}"));
        if !body.is_null() {
            call = call.json(&body);
        }
        let send = || async {
            if by_controller {
                call.send_with(Some(&call.controller_token("g1", 1).encode())).await
            } else {
                call.send().await
            }
        };
        let first = send().await;
        assert!(first.status.is_success(), "{operation}: {}", first.body);
        world.settled().await;
        world.advance_ms(2_000);
        let before = world.standing().await;
        assert_eq!(send().await, first, "{operation}");
        world.settled().await;
        assert_eq!(world.standing().await, before, "{operation}");
    }
}

#[tokio::test]
async fn every_mutating_call_of_the_document_takes_a_key() {
    let document = convene_orchestrator::openapi::document();
    let mut keyed = BTreeSet::new();
    let mut unkeyed = BTreeSet::new();
    for operations in document["paths"].as_object().unwrap().values() {
        for (method, operation) in operations.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let takes = parameters.into_iter().any(|one| one["name"] == "idempotency-key");
            match (takes, method.as_str()) {
                (true, _) => assert!(keyed.insert(id)),
                (false, "get") => {}
                (false, _) => assert!(unkeyed.insert(id)),
            }
        }
    }
    let tried: BTreeSet<_> = mutations().iter().map(|one| one.0.to_owned()).collect();
    assert_eq!(keyed, tried, "the test above makes each of them");
    assert_eq!(unkeyed, WITHOUT_KEY.map(str::to_owned).into());
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused() {
    let world = World::new().await;
    activation(&world, "g1", "k1").send().await.expect_status(200);
    let before = world.standing().await;
    activation(&world, "g2", "k1").send().await.expect_problem(422, "idempotency_key_reused");
    // The organization in the token is part of the request: no stored answer gets around a 403.
    let named = activation(&world, "g1", "k1").for_org("o2");
    named.send().await.expect_problem(422, "idempotency_key_reused");
    assert_eq!(world.standing().await, before);
}

#[tokio::test]
async fn a_key_is_scoped_to_issuer_method_and_path() {
    let world = World::with_group().await;
    activation(&world, "g2", "k1").send().await.expect_status(200);
    let config = world.ask("PUT", "/infra/groups/g1/config").json(&json!({ "version": 1 }));
    config.key("k1").send().await.expect_status(204);
    let config = world.ask("PUT", "/infra/groups/g2/config").json(&json!({ "version": 1 }));
    config.key("k1").send().await.expect_status(204);
    let other = activation(&world, "g2", "k1").by(&world.portal);
    other.send().await.expect_problem(404, "group_not_found");
}

#[tokio::test]
async fn a_key_is_kept_for_a_day() {
    let world = World::new().await;
    activation(&world, "g1", "k1").send().await.expect_status(200);
    world.advance_ms(24 * 60 * 60 * 1000 - 1);
    activation(&world, "g2", "k1").send().await.expect_problem(422, "idempotency_key_reused");
    world.advance_ms(1);
    activation(&world, "g2", "k1").send().await.expect_status(200);
}

#[tokio::test]
async fn refusals_are_kept_but_not_those_that_may_turn_out_otherwise() {
    let world = World::new().await;
    // 404 is kept.
    let config = world.ask("PUT", "/infra/groups/g1/config").json(&json!({ "version": 1 }));
    let config = config.key("k1");
    let refused = config.send().await.expect_problem(404, "group_not_found");
    world.activate("g1", "o1").await.expect_status(200);
    assert_eq!(config.send().await, refused);
    // 429 is not.
    world.set_limit("o1", 1).await.expect_status(200);
    let activation = activation(&world, "g2", "k2");
    activation.send().await.expect_problem(429, "active_group_limit_exceeded");
    world.set_limit("o1", 2).await.expect_status(200);
    activation.send().await.expect_status(200);
    // 502 is not, nor is a 503 of the controllers.
    let config = world.ask("PUT", "/infra/groups/g2/config").json(&json!({ "version": 1 }));
    let config = config.key("k3");
    world.controllers.refuse(Problem::new(Code::Unauthorized));
    config.send().await.expect_problem(502, "group_controller_unavailable");
    world.controllers.refuse(Problem::new(Code::Overloaded));
    config.send().await.expect_problem(503, "overloaded");
    world.controllers.behave(Behaviour::Healthy);
    config.send().await.expect_status(204);
}

#[tokio::test]
async fn a_key_in_use_is_a_conflict_and_with_another_body_reused() {
    let world = Arc::new(World::new().await);
    world.controllers.behave(Behaviour::Held);
    let first = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { activation(&world, "g1", "k1").send().await })
    };
    world.controllers.arrived().await;
    activation(&world, "g1", "k1").send().await.expect_problem(409, "conflict");
    activation(&world, "g2", "k1").send().await.expect_problem(422, "idempotency_key_reused");
    world.controllers.let_pass();
    let first = first.await.unwrap().expect_status(200);
    assert_eq!(activation(&world, "g1", "k1").send().await, first);
    assert_eq!(world.controllers.calls().len(), 1);
}

#[tokio::test]
async fn a_caller_that_hangs_up_finds_its_answer_later() {
    let world = Arc::new(World::new().await);
    world.controllers.behave(Behaviour::Held);
    let first = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { activation(&world, "g1", "k1").send().await })
    };
    world.controllers.arrived().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    world.controllers.let_pass();
    let settled = async {
        loop {
            let answer = activation(&world, "g1", "k1").send().await;
            if answer.status.as_u16() != 409 {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    // The deadline only turns a hang into a failure.
    let answer = timeout(Duration::from_secs(30), settled).await.expect("the work goes on");
    answer.expect_status(200);
    assert_eq!(world.controllers.calls().len(), 1);
}

#[tokio::test]
async fn what_a_crash_left_in_use_is_free_again_after_a_minute_for_the_same_request() {
    let world = World::new().await;
    activation(&world, "g1", "k1").send().await.expect_status(200);
    // As it stands when the process ended between the claim and the answer.
    world.execute("UPDATE idempotency_keys SET status = NULL, body = NULL").await;
    world.advance_ms(60_000 - 1);
    activation(&world, "g1", "k1").send().await.expect_problem(409, "conflict");
    world.advance_ms(1);
    activation(&world, "g2", "k1").send().await.expect_problem(422, "idempotency_key_reused");
    activation(&world, "g1", "k1").send().await.expect_status(200);
    assert_eq!(world.active("o1").await, 1);
}

#[tokio::test]
async fn a_key_is_given_once_and_has_up_to_255_visible_characters() {
    let world = World::new().await;
    activation(&world, "g1", &"k".repeat(255)).send().await.expect_status(200);
    let before = world.standing().await;
    for bad in ["", "a b", &"k".repeat(256)] {
        activation(&world, "g1", bad).send().await.expect_problem(400, "invalid_request");
    }
    let twice = activation(&world, "g1", "k1").key("k2");
    twice.send().await.expect_problem(400, "invalid_request");
    assert_eq!(world.standing().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_calls_at_once_with_one_key_one_is_done() {
    let world = Arc::new(World::new().await);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let world = Arc::clone(&world);
        tasks.spawn(async move { activation(&world, "g1", "k1").send().await.status.as_u16() });
    }
    let statuses = tasks.join_all().await;
    assert!(statuses.iter().all(|status| [200, 409].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&200));
    assert_eq!(world.controllers.calls().len(), 1);
}

#[tokio::test]
async fn keys_that_ran_out_are_removed_and_no_others() {
    let world = World::new().await;
    for key in ["k1", "k2"] {
        activation(&world, "g1", key).send().await.expect_status(200);
    }
    world.advance_ms(24 * 60 * 60 * 1000 - 1);
    activation(&world, "g1", "k3").send().await.expect_status(200);
    world.opened.reconcile_once().await.unwrap();
    assert_eq!(world.keys().await, ["k1", "k2", "k3"]);
    world.advance_ms(1);
    activation(&world, "g1", "k4").send().await.expect_status(200);
    world.opened.reconcile_once().await.unwrap();
    assert_eq!(world.keys().await, ["k3", "k4"]);
}
