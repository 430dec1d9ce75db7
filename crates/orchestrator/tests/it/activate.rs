//! `POST /infra/groups` and `GET /infra/groups/{id}`.

use std::sync::Arc;

use convene_model::{Code, GroupId, Problem};
use http::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    controllers::Behaviour,
    world::{DEFAULT_LIMIT, World},
};

#[tokio::test]
async fn an_activation_records_the_group_and_brings_its_controller_to_life() {
    let world = World::new().await;
    let answer = world
        .ask("POST", "/infra/groups")
        .json(&json!({ "group_id": "g1", "org_id": "o1", "region": "eu-1" }))
        .send()
        .await
        .expect_status(200);
    let controller = GroupId::new("g1").unwrap().controller_id();
    assert_eq!(
        answer.body,
        json!({
            "group_id": "g1",
            "group_controller_id": controller,
            "status": "active",
            "history_mode": "internal",
            "epoch": 1,
        })
    );
    let calls = world.controllers.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].line, "POST /groups/g1/init");
    assert_eq!(calls[0].epoch, 1);
    assert_eq!(calls[0].body, r#"{"org_id":"o1","history_mode":"internal","epoch":1}"#);
    assert_eq!(
        world.record("g1").await,
        json!({
            "group_id": "g1",
            "org_id": "o1",
            "group_controller_id": controller,
            "group_status": "active",
            "history_mode": "internal",
            "epoch": 1,
            "last_active": world.now().millis(),
            "idle_at": null,
            "region": "eu-1",
        })
    );
}

#[tokio::test]
async fn a_repeated_activation_has_the_same_answer_and_is_not_counted_again() {
    let world = World::new().await;
    let first = world.activate("g1", "o1").await.expect_status(200);
    for _ in 0..3 {
        assert_eq!(world.activate("g1", "o1").await, first);
    }
    assert_eq!(world.active("o1").await, 1);
    assert_eq!(world.controllers.lines(), vec!["POST /groups/g1/init"; 4]);
}

#[tokio::test]
async fn activating_a_group_that_sleeps_wakes_it_without_counting_it_again() {
    let world = World::with_group().await;
    world
        .ask("POST", "/infra/cleanup")
        .json(&json!({ "group_id": "g1", "status": "idle", "reason": "" }))
        .send()
        .await
        .expect_status(204);
    world.advance_ms(5);
    let answer = world.activate("g1", "o1").await.expect_status(200);
    assert_eq!(answer.body["status"], "active");
    let record = world.record("g1").await;
    assert_eq!(record["group_status"], "active");
    assert_eq!(record["idle_at"], json!(null));
    assert_eq!(record["last_active"], world.now().millis());
    assert_eq!(world.active("o1").await, 1);
}

#[tokio::test]
async fn the_limit_refuses_the_first_group_beyond_it_with_figures() {
    let world = World::new().await;
    world.set_limit("o1", 2).await.expect_status(200);
    world.activate("g1", "o1").await.expect_status(200);
    world.activate("g2", "o1").await.expect_status(200);
    let before = world.standing().await;
    let answer = world.activate("g3", "o1").await;
    let answer = answer.expect_problem(429, "active_group_limit_exceeded");
    assert_eq!(answer.body["limit"], 2);
    assert_eq!(answer.body["active"], 2);
    assert_eq!(world.standing().await, before);
    world.ask("GET", "/infra/groups/g3").send().await.expect_problem(404, "group_not_found");
    // Groups that have their place keep it, and other organizations have their own.
    world.activate("g2", "o1").await.expect_status(200);
    world.activate("g3", "o2").await.expect_status(200);
}

#[tokio::test]
async fn a_refusal_at_the_limit_does_not_make_the_organization_the_callers() {
    let world = World::new().await;
    world.set_limit("o1", 0).await.expect_status(200);
    world.activate("g1", "o1").await.expect_problem(429, "active_group_limit_exceeded");
    world.set_limit("o1", 1).await.expect_status(200);
    world
        .ask("POST", "/infra/groups")
        .by(&world.portal)
        .json(&json!({ "group_id": "g1", "org_id": "o1" }))
        .send()
        .await
        .expect_status(200);
}

#[tokio::test]
async fn without_a_limit_of_its_own_an_organization_has_the_default() {
    let world = World::new().await;
    for number in 0..DEFAULT_LIMIT {
        world.activate(&format!("g{number}"), "o1").await.expect_status(200);
    }
    let answer = world.activate("one-more", "o1").await;
    assert_eq!(answer.expect_problem(429, "active_group_limit_exceeded").body["limit"], 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_activations_for_the_last_place_give_exactly_one_success() {
    let world = Arc::new(World::new().await);
    world.set_limit("o1", 3).await.expect_status(200);
    world.activate("a", "o1").await.expect_status(200);
    world.activate("b", "o1").await.expect_status(200);
    let mut tasks = JoinSet::new();
    for number in 0..64 {
        let world = Arc::clone(&world);
        tasks.spawn(async move { world.activate(&format!("g{number}"), "o1").await });
    }
    let answers = tasks.join_all().await;
    let placed = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(placed, 1);
    for answer in answers.into_iter().filter(|answer| answer.status != StatusCode::OK) {
        let answer = answer.expect_problem(429, "active_group_limit_exceeded");
        assert_eq!((&answer.body["limit"], &answer.body["active"]), (&json!(3), &json!(3)));
    }
    assert_eq!((world.active("o1").await, world.records("o1").await), (3, 3));
    assert_eq!(world.controllers.calls().len(), 3, "nothing that was refused reached a controller");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_activations_of_one_group_all_succeed_and_count_once() {
    let world = Arc::new(World::new().await);
    world.set_limit("o1", 1).await.expect_status(200);
    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        let world = Arc::clone(&world);
        tasks.spawn(async move { world.activate("g1", "o1").await });
    }
    for answer in tasks.join_all().await {
        answer.expect_status(200);
    }
    assert_eq!((world.active("o1").await, world.records("o1").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_issuers_that_race_for_an_organization_one_gets_it() {
    let world = Arc::new(World::new().await);
    for round in 0..20 {
        let mut tasks = JoinSet::new();
        for by in [world.app.clone(), world.portal.clone()] {
            let world = Arc::clone(&world);
            tasks.spawn(async move {
                let (org, group) = (format!("o{round}"), format!("{}-{round}", by.issuer()));
                let call = world
                    .ask("POST", "/infra/groups")
                    .by(&by)
                    .json(&json!({ "group_id": group, "org_id": org }));
                call.send().await.status.as_u16()
            });
        }
        let mut statuses = tasks.join_all().await;
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 404]);
    }
}

#[tokio::test]
async fn an_organization_belongs_to_the_issuer_that_first_activated_a_group_in_it() {
    let world = World::with_group().await;
    let before = world.standing().await;
    for (group, org) in [("g1", "o1"), ("g2", "o1"), ("g1", "o2")] {
        world
            .ask("POST", "/infra/groups")
            .by(&world.portal)
            .json(&json!({ "group_id": group, "org_id": org }))
            .send()
            .await
            .expect_problem(404, "group_not_found");
        assert_eq!(world.standing().await, before);
    }
}

#[tokio::test]
async fn a_group_stays_with_its_organization() {
    let world = World::with_group().await;
    let before = world.standing().await;
    world.activate("g1", "o2").await.expect_problem(409, "org_mismatch");
    assert_eq!(world.standing().await, before);
}

#[tokio::test]
async fn naming_another_issuers_organization_does_not_tell_that_it_exists() {
    let world = World::with_group().await;
    world
        .ask("POST", "/infra/groups")
        .by(&world.portal)
        .json(&json!({ "group_id": "g2", "org_id": "o2" }))
        .send()
        .await
        .expect_status(200);
    world.activate("g1", "o2").await.expect_problem(404, "group_not_found");
}

#[tokio::test]
async fn a_group_whose_organization_keeps_its_history_is_external_and_is_not_archived() {
    let world = World::new().await;
    let body = json!({ "group_id": "g1", "org_id": "o-external", "history_mode": "external" });
    let answer = world.ask("POST", "/infra/groups").json(&body).send().await.expect_status(200);
    assert_eq!(answer.body["history_mode"], "external");
    let init = world.controllers.calls().pop().unwrap();
    assert_eq!(init.body, r#"{"org_id":"o-external","history_mode":"external","epoch":1}"#);
    let before = world.standing().await;
    world.archive("g1").await.expect_problem(422, "history_mode_unsupported");
    assert_eq!(world.standing().await, before);
}

#[tokio::test]
async fn what_cannot_be_activated_changes_nothing() {
    let world = World::new().await;
    let before = world.standing().await;
    let long = "r".repeat(65);
    for (body, status, code) in [
        (
            json!({ "group_id": "g1", "org_id": "o1", "history_mode": "external" }),
            422,
            "history_mode_unsupported",
        ),
        (json!({ "group_id": "g1", "org_id": "o1", "region": "" }), 422, "validation_failed"),
        (json!({ "group_id": "g1", "org_id": "o1", "region": long }), 422, "validation_failed"),
        (json!({ "group_id": "g1", "org_id": "o1", "colour": "red" }), 400, "invalid_request"),
        (json!({ "group_id": "g 1", "org_id": "o1" }), 400, "invalid_request"),
        (json!({ "group_id": "g1" }), 400, "invalid_request"),
        (json!([]), 400, "invalid_request"),
    ] {
        let answer = world.ask("POST", "/infra/groups").json(&body).send().await;
        answer.expect_problem(status, code);
        assert_eq!(world.standing().await, before, "{body}");
    }
    let too_large = " ".repeat(256 * 1024 + 1);
    let answer = world.ask("POST", "/infra/groups").body(too_large).send().await;
    answer.expect_problem(413, "too_large");
    let longest = "r".repeat(64);
    world
        .ask("POST", "/infra/groups")
        .json(&json!({ "group_id": "g1", "org_id": "o1", "region": longest }))
        .send()
        .await
        .expect_status(200);
}

#[tokio::test]
async fn a_failed_init_leaves_the_record_and_a_repeat_heals() {
    let world = World::new().await;
    for behaviour in [
        Behaviour::Refuse(Box::new(Problem::new(Code::Overloaded))),
        Behaviour::Refuse(Box::new(Problem::new(Code::Unauthorized))),
        Behaviour::Refuse(Box::new(Problem::new(Code::OrgMismatch))),
        Behaviour::Broken(StatusCode::INTERNAL_SERVER_ERROR),
        Behaviour::OtherEpoch,
        Behaviour::EmptySuccess,
    ] {
        world.controllers.behave(behaviour.clone());
        let answer = world.activate("g1", "o1").await;
        let answer = answer.expect_problem(502, "group_controller_unavailable");
        assert!(answer.body.get("detail").is_none(), "{behaviour:?}: the cause is for the log");
        assert_eq!(world.record("g1").await["group_status"], "active");
    }
    world.controllers.behave(Behaviour::Healthy);
    world.activate("g1", "o1").await.expect_status(200);
    assert_eq!(world.active("o1").await, 1);
}

#[tokio::test(start_paused = true)]
async fn controllers_that_do_not_answer_are_given_up() {
    let world = World::in_a_file().await;
    world.controllers.behave(Behaviour::Silent);
    world.activate("g1", "o1").await.expect_problem(502, "group_controller_unavailable");
}
