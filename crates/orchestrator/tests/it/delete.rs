//! `DELETE /infra/groups/{id}`.

use http::StatusCode;
use serde_json::json;

use crate::{controllers::Behaviour, world::World};

#[tokio::test]
async fn of_a_deleted_group_nothing_is_left_but_its_tombstone() {
    let world = World::with_messages(5).await;
    world.archive("g1").await.expect_status(200);
    world.restore("g1").await.expect_status(200);
    let body = json!({ "user_id": "u1" });
    let revoked = world.ask("POST", "/infra/groups/g1/revoke").json(&body).send().await;
    revoked.expect_status(204);
    let token = world.routing_token("g1", "u2").await;
    world.delete("g1").await.expect_status(204);
    assert!(!world.controllers.groups().has_anything_of(&"g1".parse().unwrap()));
    assert_eq!(world.files().await, Vec::<String>::new());
    assert_eq!(world.active("o1").await, 0);
    for (table, rows) in [("archives", 0), ("access_revocations", 0), ("routing_records", 1)] {
        assert_eq!(world.rows(table).await, rows, "{table}");
    }
    assert_eq!(world.status("g1").await, "deleted");
    world.activate("g1", "o1").await.expect_problem(410, "group_deleted");
    world.archive("g1").await.expect_problem(410, "group_deleted");
    world.restore("g1").await.expect_problem(410, "group_deleted");
    world.delete("g1").await.expect_problem(410, "group_deleted");
    let body = json!({ "group_id": "g1", "user_id": "u1", "role": "member" });
    let call = world.ask("POST", "/infra/routing-token").json(&body);
    call.send().await.expect_problem(410, "group_deleted");
    let call = world.ask("GET", "/groups/g1/history").routing_token(&token);
    call.send().await.expect_problem(403, "stale_epoch");
}

#[tokio::test]
async fn an_archived_group_is_deleted_beyond_the_limit_and_counts_until_it_is_gone() {
    let world = World::with_messages(1).await;
    world.archive("g1").await.expect_status(200);
    world.settled().await;
    world.set_limit("o1", 0).await.expect_status(200);
    world.controllers.once("remove", Behaviour::Held);
    let counted = async {
        world.controllers.arrived().await;
        let active = world.active("o1").await;
        world.controllers.let_pass();
        active
    };
    let (deleted, active) = tokio::join!(world.delete("g1"), counted);
    deleted.expect_status(204);
    assert_eq!(active, 1);
    assert_eq!(world.active("o1").await, 0);
}

#[tokio::test]
async fn a_delete_that_finds_a_part_away_goes_on_until_all_is_gone() {
    for behaviour in [Behaviour::LostAnswer, Behaviour::Broken(StatusCode::BAD_GATEWAY)] {
        let world = World::with_messages(1).await;
        world.controllers.once("remove", behaviour);
        let answer = world.delete("g1").await.expect_status(202).body;
        assert_eq!(answer["kind"], "delete");
        assert_eq!(world.status("g1").await, "deleting");
        world.activate("g1", "o1").await.expect_problem(410, "group_deleted");
        assert_eq!(world.reconciled().await.tasks, 1);
        assert_eq!(world.status("g1").await, "deleted");
        assert!(!world.controllers.groups().has_anything_of(&"g1".parse().unwrap()));
        let task = format!("/infra/tasks/{}", answer["task_id"].as_str().unwrap());
        let done = world.ask("GET", &task).send().await.expect_status(200).body;
        assert_eq!(done["status"], "done");
    }
}

#[tokio::test]
async fn a_group_that_is_being_archived_is_deleted_and_its_archive_comes_to_nothing() {
    let world = World::with_messages(3).await;
    world.controllers.once("export", Behaviour::Held);
    let deleted = async {
        world.controllers.arrived().await;
        let answer = world.delete("g1").await;
        world.controllers.let_pass();
        answer
    };
    let (archived, deleted) = tokio::join!(world.archive("g1"), deleted);
    deleted.expect_status(204);
    assert!(!archived.status.is_success(), "{}", archived.body);
    world.settled().await;
    assert_eq!(world.status("g1").await, "deleted");
    assert_eq!(world.active("o1").await, 0);
    assert_eq!(world.files().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_somebody_wrote_into_the_store_meanwhile_is_purged_after_the_longest_archive() {
    let world = World::with_messages(1).await;
    world.archive("g1").await.expect_status(200);
    world.delete("g1").await.expect_status(204);
    // A worker that was away for long puts its snapshot after all.
    let late = object_store::path::Path::from("groups/g1/archives/late.ndjson.gz");
    object_store::ObjectStoreExt::put(&world.archives, &late, "text".into()).await.unwrap();
    assert_eq!(world.reconciled().await.tasks, 0, "it is not due yet");
    world.advance_ms(6 * 60 * 60 * 1000);
    assert_eq!(world.reconciled().await.tasks, 1);
    assert_eq!(world.files().await, Vec::<String>::new());
}
