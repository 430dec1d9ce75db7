//! `POST /infra/groups/{id}/restore`.

use convene_model::{Code, Problem};
use http::StatusCode;
use object_store::{ObjectStoreExt, path::Path};

use crate::{controllers::Behaviour, world::World};

/// What becomes of a file; `None` when it is removed.
type Damage = fn(Vec<u8>) -> Option<Vec<u8>>;

async fn archived(count: usize) -> World {
    let world = World::with_messages(count).await;
    world.archive("g1").await.expect_status(200);
    world.settled().await;
    world
}

#[tokio::test]
async fn a_restored_group_is_the_one_that_was_archived() {
    let world = World::with_messages(10).await;
    let before = world.lines("g1").unwrap();
    world.archive("g1").await.expect_status(200);
    let answer = world.restore("g1").await.expect_status(200).body;
    assert_eq!(answer["status"], "active");
    assert_eq!(answer["epoch"], 2);
    let after = world.lines("g1").unwrap();
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.len(), before.len() + 2, "frozen and restored");
    assert_eq!(world.active("o1").await, 1);
    world.activate("g1", "o1").await.expect_status(200);
    world.post("g1", 1);
    assert_eq!(
        world.life("g1").await[2..],
        ["archiving>archived", "archived>restoring", "restoring>active"]
    );
}

#[tokio::test]
async fn a_group_is_archived_and_restored_again_and_again() {
    let world = World::with_messages(1).await;
    for round in 1..=3 {
        world.archive("g1").await.expect_status(200);
        let answer = world.restore("g1").await.expect_status(200).body;
        assert_eq!(answer["epoch"], round + 1);
        world.post("g1", 5);
    }
    let lines = world.lines("g1").unwrap();
    assert_eq!(lines.len(), 1 + 1 + 3 * (2 + 5));
}

#[tokio::test]
async fn a_restore_needs_a_place_under_the_limit() {
    let world = archived(1).await;
    world.activate("g2", "o1").await.expect_status(200);
    world.set_limit("o1", 1).await.expect_status(200);
    let before = world.standing().await;
    let answer = world.restore("g1").await.expect_problem(429, "active_group_limit_exceeded");
    assert_eq!(answer.body["limit"], 1);
    assert_eq!(answer.body["active"], 1);
    assert_eq!(world.standing().await, before);
    world.archive("g2").await.expect_status(200);
    world.restore("g1").await.expect_status(200);
}

#[tokio::test]
async fn only_an_archived_group_is_restored() {
    let world = World::with_messages(1).await;
    let before = world.standing().await;
    let answer = world.restore("g1").await.expect_problem(409, "illegal_transition");
    assert_eq!(answer.body["group_status"], "active");
    world.restore("nobody").await.expect_problem(404, "group_not_found");
    assert_eq!(world.standing().await, before);
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused_and_left_as_it_is() {
    let damages: [Damage; 4] = [
        |mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            Some(bytes)
        },
        |mut bytes| {
            bytes.truncate(bytes.len() / 2);
            Some(bytes)
        },
        |mut bytes| {
            bytes.extend_from_slice(b"more");
            Some(bytes)
        },
        |_| None,
    ];
    for (at, damage) in damages.into_iter().enumerate() {
        for file in [".ndjson.gz", ".manifest.json"] {
            let world = archived(5).await;
            let files = world.files().await;
            let path = Path::from(files.iter().find(|path| path.ends_with(file)).unwrap().clone());
            let bytes = world.archives.get(&path).await.unwrap().bytes().await.unwrap();
            match damage(bytes.to_vec()) {
                Some(bytes) => drop(world.archives.put(&path, bytes.into()).await.unwrap()),
                None => world.archives.delete(&path).await.unwrap(),
            }
            let files = world.files().await;
            let answer = world.restore("g1").await.expect_problem(409, "snapshot_corrupt");
            assert!(answer.body["detail"].is_string(), "{file} {at}: {}", answer.body);
            world.settled().await;
            assert_eq!(world.status("g1").await, "archived", "{file} {at}");
            assert_eq!(world.active("o1").await, 0);
            assert_eq!(world.files().await, files, "{file} {at}");
            assert!(!world.controllers.groups().has_anything_of(&"g1".parse().unwrap()));
        }
    }
}

#[tokio::test]
async fn an_import_that_breaks_off_goes_on_where_it_was() {
    for verb in ["import", "piece", "finish"] {
        for behaviour in [Behaviour::LostAnswer, Behaviour::Broken(StatusCode::BAD_GATEWAY)] {
            let world = archived(6).await;
            world.controllers.once(verb, behaviour.clone());
            world.restore("g1").await.expect_status(200);
            assert_eq!(world.lines("g1").unwrap().len(), 9, "{verb} {behaviour:?}");
            world.activate("g1", "o1").await.expect_status(200);
        }
    }
}

#[tokio::test]
async fn a_restore_that_a_controller_refuses_leaves_the_group_archived_and_nothing_behind() {
    for verb in ["import", "piece", "finish"] {
        let world = archived(6).await;
        world.controllers.once(verb, Behaviour::Refuse(Box::new(Code::StorageFull.into())));
        for _ in 0..8 {
            world.controllers.once(verb, Behaviour::Refuse(Box::new(Code::Overloaded.into())));
        }
        let refused = Behaviour::Refuse(Box::new(Code::ValidationFailed.into()));
        if verb != "finish" {
            world.controllers.once(verb, refused);
        }
        let answer = world.restore("g1").await;
        if verb == "finish" {
            // It waits for long before it gives up; the call is told where to look.
            answer.expect_status(202);
            continue;
        }
        assert!(answer.status.is_server_error(), "{verb}: {}", answer.body);
        world.settled().await;
        assert_eq!(world.status("g1").await, "archived", "{verb}");
        assert_eq!(world.active("o1").await, 0);
        assert!(!world.controllers.groups().has_anything_of(&"g1".parse().unwrap()), "{verb}");
    }
}

#[tokio::test]
async fn a_restore_waits_while_what_the_group_had_is_still_being_wiped() {
    let world = archived(6).await;
    for _ in 0..8 {
        let busy = Problem::new(Code::Unavailable).with("retry_after_ms", 100);
        world.controllers.once("import", Behaviour::Refuse(Box::new(busy)));
    }
    let answer = world.restore("g1").await;
    assert!(answer.status.is_success(), "{}", answer.body);
    world.settled().await;
    assert_eq!(world.lines("g1").unwrap().len(), 9);
    world.activate("g1", "o1").await.expect_status(200);
}

#[tokio::test]
async fn a_wipe_that_is_not_confirmed_comes_before_the_restore() {
    let world = World::with_messages(3).await;
    world.controllers.once("wipe", Behaviour::Broken(StatusCode::BAD_GATEWAY));
    world.archive("g1").await.expect_status(200);
    world.settled().await;
    assert!(world.controllers.groups().is_frozen(&"g1".parse().unwrap()));
    world.restore("g1").await.expect_status(200);
    world.post("g1", 1);
    // The repeated wipe finds that there is nothing to do.
    world.reconciled().await;
    world.post("g1", 1);
}

#[tokio::test]
async fn while_a_group_is_restored_its_history_comes_from_the_snapshot() {
    let world = archived(4).await;
    world.controllers.once("import", Behaviour::Held);
    let read = async {
        world.controllers.arrived().await;
        let token = world.routing_token("g1", "u1").await;
        let page = world.ask("GET", "/groups/g1/history").routing_token(&token).send().await;
        let refused = world.activate("g1", "o1").await;
        world.controllers.let_pass();
        (page, refused)
    };
    let (restored, (page, refused)) = tokio::join!(world.restore("g1"), read);
    restored.expect_status(200);
    assert_eq!(page.expect_status(200).body["messages"].as_array().unwrap().len(), 4);
    assert_eq!(refused.expect_problem(409, "group_archived").body["group_status"], "restoring");
}
