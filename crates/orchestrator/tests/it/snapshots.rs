//! Snapshots as a caller meets them: too large to be written, on their way into the store, and not to be
//! read where the history of an archived group is asked for.

use std::{sync::Arc, time::Duration};

use convene_orchestrator::Times;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use serde_json::{Value, json};

use crate::{
    controllers::Behaviour,
    stores::{Fault, Faulty},
    world::World,
};

#[tokio::test]
async fn a_snapshot_above_the_limit_is_refused_and_the_group_stays_live() {
    let with_limit = async |max_snapshot_bytes| {
        let world = World::with_times(Times { max_snapshot_bytes, ..Times::default() }).await;
        world.activate("g1", "o1").await.expect_status(200);
        world.post("g1", 40);
        world
    };
    let world = with_limit(u64::MAX).await;
    let bytes = world.archive("g1").await.expect_status(200).body["plain_bytes"].as_u64().unwrap();

    let world = with_limit(bytes - 1_000).await;
    let before = world.lines("g1").unwrap();
    let refused = world.archive("g1").await.expect_problem(413, "snapshot_too_large").body;
    assert_eq!(refused["limit_bytes"], bytes - 1_000, "{refused}");
    world.settled().await;
    let record = world.record("g1").await;
    assert_eq!((&record["group_status"], &record["epoch"]), (&json!("active"), &json!(2)));
    assert_eq!((world.active("o1").await, world.files().await), (1, vec![]));
    assert_eq!(world.life("g1").await.last().unwrap(), "archiving>active");
    // It is used like before.
    world.activate("g1", "o1").await.expect_status(200);
    world.post("g1", 1);
    assert_eq!(world.lines("g1").unwrap()[..before.len()], before);

    let world = with_limit(bytes + 1_000).await;
    world.archive("g1").await.expect_status(200);
    assert_eq!(world.status("g1").await, "archived");
}

#[tokio::test]
async fn the_history_of_an_archived_group_says_that_its_store_is_away_or_its_snapshot_damaged() {
    let store = Arc::new(Faulty::new());
    let world = World::with_store(Arc::clone(&store) as Arc<dyn ObjectStore>).await;
    world.activate("g1", "o1").await.expect_status(200);
    world.post("g1", 6);
    let content = world.archive("g1").await.expect_status(200).body["path"].clone();
    world.settled().await;
    let token = world.routing_token("g1", "u1").await;
    let reads = ["/groups/g1/history", "/groups/g1/history?limit=2&before=4"];
    let reads = [reads[0], reads[1], "/groups/g1/messages/m3/why"];
    let ask = |path: &str| world.ask("GET", path).routing_token(&token);
    let refused = async |status: u16, code: &str| {
        for path in reads {
            ask(path).send().await.expect_problem(status, code);
        }
    };
    // Nothing was read yet, not even the manifest.
    store.set(Some(Fault::NoGet));
    refused(503, "archive_store_unavailable").await;
    store.set(None);
    let mut good = Vec::new();
    for path in reads {
        good.push(ask(path).send().await.expect_status(200));
    }
    assert_eq!(good[0].body["messages"].as_array().unwrap().len(), 6);

    let path = Path::from(content.as_str().unwrap());
    let whole = store.get(&path).await.unwrap().bytes().await.unwrap();
    let mut flipped = whole.to_vec();
    for byte in &mut flipped {
        *byte ^= 1;
    }
    for damaged in [flipped, whole[..whole.len() / 2].to_vec(), Vec::new()] {
        store.put(&path, damaged.into()).await.unwrap();
        refused(409, "snapshot_corrupt").await;
    }
    store.delete(&path).await.unwrap();
    refused(409, "snapshot_corrupt").await;
    assert_eq!(world.status("g1").await, "archived");

    // With the file as it was, the answers are as they were.
    store.put(&path, whole.into()).await.unwrap();
    for (path, good) in reads.iter().zip(good) {
        assert_eq!(ask(path).send().await, good);
    }
}

#[tokio::test]
async fn the_task_of_an_archive_says_how_far_its_export_is_while_it_goes_on() {
    // Progress is written when a lease is renewed, which is often then.
    let task_lease = Duration::from_millis(60);
    let world = World::with_times(Times { task_lease, ..Times::default() }).await;
    world.activate("g1", "o1").await.expect_status(200);
    world.post("g1", 10);
    // The state, the messages in three pieces, and one of the events.
    for _ in 0..5 {
        world.controllers.once("export", Behaviour::Healthy);
    }
    world.controllers.once("export", Behaviour::Held);
    let call = world.ask("POST", "/infra/groups/g1/archive").header("prefer", "respond-async");
    let task = call.json(&json!({ "reason": "" })).send().await.expect_status(202).body;
    let path = format!("/infra/tasks/{}", task["task_id"].as_str().unwrap());
    world.controllers.arrived().await;
    let figures = |task: &Value| (task["done"].as_u64().unwrap(), task["total"].as_u64().unwrap());
    let moving = async {
        loop {
            let task = world.ask("GET", &path).send().await.expect_status(200).body;
            // The messages are out; what was noted on the way there is passed over.
            if task["step"] == "export" && figures(&task).0 > 10 {
                return task;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let task = tokio::time::timeout(Duration::from_secs(30), moving).await.expect("it moves");
    let (done, total) = figures(&task);
    assert_eq!(task["status"], "running");
    // The first events are out as well; the activation and the freeze are events, too.
    assert_eq!(total, 10 + 12, "{task}");
    assert!(done < total, "{task}");
    world.controllers.let_pass();
    world.settled().await;
    let task = world.ask("GET", &path).send().await.expect_status(200).body;
    assert_eq!((&task["status"], &task["result"]["messages"]), (&json!("done"), &json!(10)));
}
