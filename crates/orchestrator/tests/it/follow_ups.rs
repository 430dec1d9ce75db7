//! What is still to be done after an archive, a restore or a delete: repeated until it is confirmed, and harmless
//! when it is done twice or comes late.

use std::sync::Arc;

use bytes::Bytes;
use convene_model::Code;
use http::StatusCode;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};

use crate::{
    controllers::Behaviour,
    stores::{Fault, Faulty},
    world::World,
};

/// A group in a store that can be at fault.
async fn stored(count: usize) -> (World, Arc<Faulty>) {
    let store = Arc::new(Faulty::new());
    let world = World::with_store(Arc::clone(&store) as Arc<dyn ObjectStore>).await;
    world.activate("g1", "o1").await.expect_status(200);
    world.post("g1", count);
    (world, store)
}

/// An archived group whose restore a controller has refused in the middle; the answer to the first call to
/// remove what it has of it is `removal`.
async fn refused(removal: Behaviour) -> World {
    let world = World::with_messages(6).await;
    world.archive("g1").await.expect_status(200);
    world.settled().await;
    world.controllers.once("finish", Behaviour::Refuse(Box::new(Code::SnapshotCorrupt.into())));
    world.controllers.once("remove", removal);
    world.restore("g1").await.expect_problem(409, "snapshot_corrupt");
    world.settled().await;
    assert_eq!(world.status("g1").await, "archived");
    world
}

fn has_anything(world: &World) -> bool {
    world.controllers.groups().has_anything_of(&"g1".parse().unwrap())
}

fn removals(world: &World) -> usize {
    world.controllers.lines().iter().filter(|line| line.starts_with("DELETE")).count()
}

#[tokio::test]
async fn what_a_restore_that_failed_has_left_is_removed_until_that_is_confirmed() {
    let broken = Behaviour::Broken(StatusCode::BAD_GATEWAY);
    for (removal, left) in [(Behaviour::LostAnswer, false), (broken, true)] {
        let world = refused(removal.clone()).await;
        assert_eq!((has_anything(&world), removals(&world)), (left, 1), "{removal:?}");
        let files = world.files().await;
        // Once more it gets no answer, after what was there is gone.
        world.controllers.once("remove", Behaviour::LostAnswer);
        assert_eq!(world.reconciled().await.tasks, 1, "{removal:?}");
        assert!(!has_anything(&world), "{removal:?}");
        assert_eq!(world.reconciled().await.tasks, 1, "{removal:?}");
        assert_eq!(removals(&world), 3, "{removal:?}");
        assert_eq!(world.reconciled().await.tasks, 0, "{removal:?}");
        assert_eq!(world.status("g1").await, "archived", "{removal:?}");
        assert_eq!(world.active("o1").await, 0, "{removal:?}");
        assert_eq!(world.files().await, files, "{removal:?}");
        world.restore("g1").await.expect_status(200);
        assert_eq!(world.lines("g1").unwrap().len(), 9, "{removal:?}");
    }
}

#[tokio::test]
async fn a_removal_that_comes_late_leaves_a_group_that_was_restored_meanwhile_as_it_is() {
    let world = refused(Behaviour::Broken(StatusCode::BAD_GATEWAY)).await;
    world.restore("g1").await.expect_status(200);
    world.post("g1", 1);
    let lines = world.lines("g1");
    assert_eq!(world.reconciled().await.tasks, 1);
    assert_eq!(removals(&world), 1, "it is not asked for again");
    assert_eq!(world.lines("g1"), lines);
    assert_eq!(world.status("g1").await, "active");
    assert_eq!(world.reconciled().await.tasks, 0);
}

#[tokio::test]
async fn a_removal_that_comes_late_finds_a_group_that_was_deleted_meanwhile_gone() {
    let world = refused(Behaviour::Broken(StatusCode::BAD_GATEWAY)).await;
    world.delete("g1").await.expect_status(204);
    assert_eq!(world.reconciled().await.tasks, 1);
    assert!(!has_anything(&world));
    assert_eq!(world.status("g1").await, "deleted");
}

#[tokio::test]
async fn what_an_archive_that_was_given_up_has_written_goes_once_the_store_lets_it() {
    let (world, store) = stored(6).await;
    store.set(Some(Fault::KeepsAll));
    world.archive("g1").await.expect_problem(503, "archive_store_unavailable");
    world.settled().await;
    assert_eq!(world.files().await.len(), 1, "its content");
    // The group goes on all the same.
    assert_eq!(world.status("g1").await, "active");
    world.post("g1", 1);
    assert_eq!(world.reconciled().await.tasks, 1);
    assert_eq!(world.files().await.len(), 1);
    store.set(None);
    assert_eq!(world.reconciled().await.tasks, 1);
    assert_eq!(world.files().await, Vec::<String>::new());
    assert_eq!(world.rows("archives").await, 0);
    assert_eq!(world.reconciled().await.tasks, 0);
    world.archive("g1").await.expect_status(200);
}

#[tokio::test]
async fn a_deleted_group_is_looked_after_until_the_store_has_nothing_of_it() {
    let (world, store) = stored(2).await;
    world.archive("g1").await.expect_status(200);
    world.settled().await;
    store.set(Some(Fault::KeepsAll));
    world.delete("g1").await.expect_status(202);
    assert_eq!(world.status("g1").await, "deleting");
    assert_eq!(world.files().await.len(), 2);
    store.set(None);
    assert_eq!(world.reconciled().await.tasks, 1);
    assert_eq!(world.status("g1").await, "deleted");
    assert_eq!(world.files().await, Vec::<String>::new());

    // Somebody who was away puts its content after all, and at first it cannot be removed.
    let late = Path::from("groups/g1/archives/late.ndjson.gz");
    world.archives.put(&late, Bytes::from_static(b"text").into()).await.unwrap();
    store.set(Some(Fault::KeepsAll));
    world.advance_ms(6 * 60 * 60 * 1000);
    assert_eq!(world.reconciled().await.tasks, 1);
    assert_eq!(world.files().await.len(), 1);
    store.set(None);
    assert_eq!(world.reconciled().await.tasks, 1);
    assert_eq!(world.files().await, Vec::<String>::new());
    assert_eq!(world.reconciled().await.tasks, 0);
}
