//! `POST /infra/groups/{id}/archive`.

use std::sync::Arc;

use convene_model::{Code, Problem};
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value, json};

use crate::{
    controllers::{ASKED, Behaviour},
    stores::Faulty,
    world::World,
};

#[tokio::test]
async fn an_archived_group_is_in_its_snapshot_and_nowhere_else() {
    let world = World::with_messages(10).await;
    let answer = world.archive("g1").await.expect_status(200).body;
    assert_eq!(answer["messages"], 10);
    // The activation, the messages, and the freeze.
    assert_eq!(answer["events"], 12);
    assert_eq!(answer["last_seq"], 12);
    world.settled().await;
    assert_eq!(world.status("g1").await, "archived");
    assert_eq!(world.active("o1").await, 0);
    let path = answer["path"].as_str().unwrap();
    let files = world.files().await;
    assert_eq!(files.len(), 2, "content and manifest: {files:?}");
    assert!(files.contains(&path.to_owned()), "{files:?}");
    let stored = world.archives.head(&path.into()).await.unwrap().size;
    assert_eq!(answer["bytes"], stored);
    assert!(!world.controllers.groups().has_anything_of(&"g1".parse().unwrap()));
    assert_eq!(
        world.life("g1").await,
        ["inactive>active", "active>archiving", "archiving>archived"]
    );
}

#[tokio::test]
async fn a_sleeping_group_is_archived_like_one_that_is_awake() {
    let world = World::with_messages(1).await;
    let body = json!({ "group_id": "g1", "status": "idle", "reason": "" });
    world.ask("POST", "/infra/cleanup").json(&body).send().await.expect_status(204);
    world.archive("g1").await.expect_status(200);
    assert_eq!(world.status("g1").await, "archived");
}

#[tokio::test]
async fn a_group_that_is_neither_active_nor_idle_is_not_archived() {
    let world = World::with_messages(1).await;
    world.archive("nobody").await.expect_problem(404, "group_not_found");
    world.archive("g1").await.expect_status(200);
    world.settled().await;
    let before = world.standing().await;
    let answer = world.archive("g1").await.expect_problem(409, "group_not_active");
    assert_eq!(answer.body["group_status"], "archived");
    assert_eq!(world.standing().await, before);
}

#[tokio::test]
async fn a_second_archive_of_a_group_that_is_being_archived_names_the_task_that_does_it() {
    let world = World::with_messages(1).await;
    world.controllers.once("freeze", Behaviour::Held);
    let second = async {
        world.controllers.arrived().await;
        let answer = world.archive("g1").await.expect_problem(409, "group_not_active");
        world.controllers.let_pass();
        let task = format!("/infra/tasks/{}", answer.body["task_id"].as_str().unwrap());
        world.ask("GET", &task).send().await.expect_status(200).body
    };
    let (first, task) = tokio::join!(world.archive("g1"), second);
    first.expect_status(200);
    assert_eq!(task["kind"], "archive");
    assert_eq!(task["group_id"], "g1");
}

#[tokio::test]
async fn an_archived_group_takes_nothing_but_readers() {
    let world = World::with_messages(3).await;
    world.archive("g1").await.expect_status(200);
    let token = world.routing_token("g1", "u1").await;
    let refused = world.activate("g1", "o1").await.expect_problem(409, "group_archived");
    assert_eq!(refused.body["group_status"], "archived");
    world
        .ask("PUT", "/infra/groups/g1/config")
        .json(&json!({ "version": 1, "agents": [] }))
        .send()
        .await
        .expect_problem(409, "group_archived");
    for call in [
        world.ask("GET", "/groups/g1/ws"),
        world.ask("GET", "/groups/g1/messages/m2"),
        world.ask("POST", "/groups/g1/search").json(&json!({ "query": "message" })),
    ] {
        call.routing_token(&token).send().await.expect_problem(409, "group_archived");
    }
    for status in ["active", "idle"] {
        let body = json!({ "group_id": "g1", "status": status, "reason": "" });
        let answer = world.ask("POST", "/infra/cleanup").json(&body).send().await;
        answer.expect_problem(409, "illegal_transition");
    }
}

#[tokio::test]
async fn the_history_of_an_archived_group_is_read_page_by_page_from_its_snapshot() {
    let world = World::with_messages(10).await;
    world.archive("g1").await.expect_status(200);
    world.settled().await;
    let token = world.routing_token("g1", "u1").await;
    let calls = world.controllers.calls().len();
    let read = async |query: &str| {
        let call = world.ask("GET", &format!("/groups/g1/history{query}")).routing_token(&token);
        call.send().await.expect_status(200).body
    };
    let numbers = |page: &Value| -> Vec<u64> {
        let messages = page["messages"].as_array().unwrap();
        messages.iter().map(|message| message["seq"].as_u64().unwrap()).collect()
    };
    let newest = read("?limit=4").await;
    assert_eq!(numbers(&newest), [8, 9, 10, 11]);
    assert_eq!(newest["head"], 12);
    assert_eq!(newest["messages"][3]["text"], "message 11");
    let before = read("?limit=4&before=8").await;
    assert_eq!(numbers(&before), [4, 5, 6, 7]);
    assert_eq!(numbers(&read("?limit=3&after=9").await), [10, 11]);
    for wrong in ["?limit=0", "?limit=201", "?around=3&after=1", "?page=1"] {
        let call = world.ask("GET", &format!("/groups/g1/history{wrong}")).routing_token(&token);
        call.send().await.expect_problem(400, "invalid_request");
    }
    assert_eq!(world.controllers.calls().len(), calls, "no controller was asked");
}

#[tokio::test]
async fn who_was_removed_reads_no_archived_history_either() {
    let world = World::with_messages(2).await;
    world.archive("g1").await.expect_status(200);
    let token = world.routing_token("g1", "u1").await;
    world
        .ask("POST", "/infra/groups/g1/revoke")
        .json(&json!({ "user_id": "u1" }))
        .send()
        .await
        .expect_status(204);
    let call = world.ask("GET", "/groups/g1/history").routing_token(&token);
    call.send().await.expect_problem(403, "access_revoked");
}

#[tokio::test]
async fn another_issuer_archives_restores_and_deletes_nothing_and_sees_no_task() {
    let world = World::with_messages(1).await;
    let task = world.archive("g1").await.expect_status(200).body["archive_id"].clone();
    world.settled().await;
    let before = world.standing().await;
    for (method, path) in [
        ("POST", "/infra/groups/g1/archive"),
        ("POST", "/infra/groups/g1/restore"),
        ("DELETE", "/infra/groups/g1"),
    ] {
        let call = world.ask(method, path).by(&world.portal).json(&json!({ "reason": "" }));
        call.send().await.expect_problem(404, "group_not_found");
    }
    let task = format!("/infra/tasks/{}", task.as_str().unwrap());
    let call = world.ask("GET", &task).by(&world.portal);
    call.send().await.expect_problem(404, "task_not_found");
    assert_eq!(world.standing().await, before);
    let done = world.ask("GET", &task).send().await.expect_status(200).body;
    assert_eq!(done["status"], "done");
    assert_eq!(done["result"]["messages"], 1);
}

#[tokio::test]
async fn a_controller_that_refuses_or_breaks_off_leaves_the_group_live_under_a_higher_epoch() {
    let broken = Behaviour::Broken(http::StatusCode::INTERNAL_SERVER_ERROR);
    for (verb, behaviour, times) in [
        ("freeze", broken.clone(), ASKED),
        ("freeze", Behaviour::LostAnswer, ASKED),
        ("freeze", Behaviour::Refuse(Box::new(Code::IllegalTransition.into())), 1),
        ("export", Behaviour::Refuse(Box::new(Code::Overloaded.into())), ASKED),
        ("export", broken, ASKED),
        ("export", Behaviour::Refuse(Box::new(Code::IllegalTransition.into())), 1),
        ("export", Behaviour::EmptySuccess, 1),
    ] {
        let world = World::with_messages(6).await;
        if matches!(behaviour, Behaviour::EmptySuccess) {
            // The state may be missing, but not the messages.
            world.controllers.once(verb, Behaviour::Healthy);
        }
        for _ in 0..times {
            world.controllers.once(verb, behaviour.clone());
        }
        let answer = world.archive("g1").await;
        assert!(answer.status.as_u16() >= 400, "{behaviour:?}: {}", answer.body);
        world.settled().await;
        let record = world.record("g1").await;
        assert_eq!(record["group_status"], "active", "{behaviour:?}");
        assert_eq!(record["epoch"], 2, "{behaviour:?}");
        assert_eq!(world.active("o1").await, 1);
        assert_eq!(world.files().await, Vec::<String>::new(), "{behaviour:?}");
        world.activate("g1", "o1").await.expect_status(200);
        world.post("g1", 1);
        assert_eq!(
            world.life("g1").await,
            ["inactive>active", "active>archiving", "archiving>active"]
        );
    }
}

#[tokio::test]
async fn a_controller_that_is_busy_and_says_when_to_come_back_is_asked_again() {
    let world = World::with_messages(5).await;
    let busy = Problem::new(Code::Overloaded).with("retry_after_ms", 1);
    for _ in 0..3 {
        world.controllers.once("export", Behaviour::Refuse(Box::new(busy.clone())));
    }
    world.archive("g1").await.expect_status(200);
    world.settled().await;
    assert_eq!(world.status("g1").await, "archived");
}

#[tokio::test]
async fn a_thaw_that_did_not_arrive_is_made_up_for_by_the_next_activation() {
    let world = World::with_messages(1).await;
    world.controllers.refuses("export", Code::Overloaded);
    world.controllers.once("thaw", Behaviour::Broken(http::StatusCode::BAD_GATEWAY));
    world.archive("g1").await.expect_problem(503, "overloaded");
    world.settled().await;
    assert_eq!(world.status("g1").await, "active");
    assert!(world.controllers.groups().is_frozen(&"g1".parse().unwrap()));
    world.activate("g1", "o1").await.expect_status(200);
    world.post("g1", 1);
}

#[tokio::test]
async fn a_thaw_that_did_not_arrive_is_repeated_by_scheduled_work() {
    let world = World::with_messages(1).await;
    world.controllers.refuses("export", Code::Overloaded);
    world.controllers.once("thaw", Behaviour::LostAnswer);
    world.archive("g1").await.expect_problem(503, "overloaded");
    world.settled().await;
    assert_eq!(world.reconciled().await.tasks, 1);
    world.post("g1", 1);
    world.archive("g1").await.expect_status(200);
}

#[tokio::test]
async fn a_wipe_that_did_not_arrive_is_repeated_until_it_is_confirmed() {
    for behaviour in [Behaviour::LostAnswer, Behaviour::Broken(http::StatusCode::BAD_GATEWAY)] {
        let world = World::with_messages(1).await;
        world.controllers.once("wipe", behaviour.clone());
        world.controllers.once("wipe", behaviour);
        world.archive("g1").await.expect_status(200);
        world.settled().await;
        assert_eq!(world.reconciled().await.tasks, 1);
        assert_eq!(world.reconciled().await.tasks, 1);
        assert!(!world.controllers.groups().has_anything_of(&"g1".parse().unwrap()));
        assert_eq!(world.reconciled().await.tasks, 0);
    }
}

#[tokio::test]
async fn a_store_that_fails_in_any_way_leaves_the_group_live_and_says_so() {
    for fault in Faulty::EACH {
        let faulty = Arc::new(Faulty::new());
        let world = World::with_store(Arc::clone(&faulty) as Arc<dyn ObjectStore>).await;
        world.activate("g1", "o1").await.expect_status(200);
        world.post("g1", 6);
        let before = world.lines("g1").unwrap();
        faulty.set(fault);
        world.archive("g1").await.expect_problem(503, "archive_store_unavailable");
        world.settled().await;
        assert_eq!(world.status("g1").await, "active", "{fault:?}");
        let after = world.lines("g1").unwrap();
        assert_eq!(after[..before.len()], before, "{fault:?}");
        assert_eq!(after.len(), before.len() + 2, "frozen and thawed: {fault:?}");
        // When the store works again, what was left there goes, and the group can be archived.
        faulty.set(None);
        world.reconciled().await;
        assert_eq!(world.files().await, Vec::<String>::new(), "{fault:?}");
        world.archive("g1").await.expect_status(200);
    }
}

#[tokio::test]
async fn an_archive_is_repeated_with_its_key_and_answered_not_done_again() {
    let world = World::with_messages(2).await;
    let call = world
        .ask("POST", "/infra/groups/g1/archive")
        .json(&json!({ "reason": "a test" }))
        .key("k1");
    let first = call.send().await.expect_status(200);
    world.settled().await;
    let calls = world.controllers.calls().len();
    assert_eq!(call.send().await, first);
    assert_eq!(world.controllers.calls().len(), calls);
}

#[tokio::test]
async fn an_archive_that_takes_long_goes_on_as_a_task_that_can_be_followed() {
    let world = World::with_messages(2).await;
    world.controllers.once("freeze", Behaviour::Held);
    let answer = world.archive("g1").await.expect_status(202).body;
    assert_eq!(answer["status"], "running");
    assert_eq!(answer["group_id"], "g1");
    let task = format!("/infra/tasks/{}", answer["task_id"].as_str().unwrap());
    world.controllers.let_pass();
    world.settled().await;
    let done = world.ask("GET", &task).send().await.expect_status(200).body;
    assert_eq!(done["status"], "done");
    assert_eq!(done["result"]["messages"], 2);
    assert_eq!(done["done"], done["total"]);
    world.ask("GET", "/infra/tasks/t1").send().await.expect_problem(404, "task_not_found");
}

#[tokio::test]
async fn a_reason_has_at_most_two_hundred_characters() {
    let world = World::with_messages(1).await;
    for (length, status) in [(201, 422), (200, 200)] {
        world
            .ask("POST", "/infra/groups/g1/archive")
            .json(&json!({ "reason": "ä".repeat(length) }))
            .send()
            .await
            .expect_status(status);
    }
}

#[tokio::test]
async fn while_a_group_is_archived_its_epoch_is_not_raised_from_outside() {
    let world = World::with_messages(1).await;
    world.controllers.once("freeze", Behaviour::Held);
    let raise = async {
        world.controllers.arrived().await;
        let body = json!({ "from": 1, "reason": "" });
        let answer = world.ask("POST", "/infra/groups/g1/epoch").json(&body).send().await;
        world.controllers.let_pass();
        answer
    };
    let (archived, raised) = tokio::join!(world.archive("g1"), raise);
    archived.expect_status(200);
    raised.expect_problem(409, "illegal_transition");
}
