//! Rivals for one group's record.

use std::sync::Arc;

use convene_model::archive::WipeRequest;
use object_store::ObjectStore;

use crate::{
    controllers::Behaviour,
    stores::{Fault, Faulty},
    world::World,
};

#[tokio::test]
async fn a_mark_that_comes_after_the_thaw_marks_nothing_and_nothing_is_wiped() {
    let world = World::with_messages(4).await;
    // The worker has written and verified everything; its mark is about to come.
    world.controllers.once("thaw", Behaviour::Healthy);
    world.controllers.once("export", Behaviour::Held);
    let thawed = async {
        world.controllers.arrived().await;
        world.advance_ms(61_000);
        let second = world.second(Arc::clone(&world.db)).await;
        second.reconcile_once().await.unwrap();
        world.controllers.let_pass();
    };
    let (answer, ()) = tokio::join!(world.archive("g1"), thawed);
    world.settled().await;
    assert!(!answer.status.is_success());
    assert_eq!(world.status("g1").await, "active");
    let wipes = world.controllers.lines().iter().filter(|line| line.ends_with("/wipe")).count();
    assert_eq!(wipes, 0);
}

#[tokio::test]
async fn what_is_stored_after_the_thaw_has_tidied_is_taken_back() {
    let store = Arc::new(Faulty::new());
    let world = World::with_store(Arc::clone(&store) as Arc<dyn ObjectStore>).await;
    world.activate("g1", "o1").await.expect_status(200);
    world.post("g1", 4);
    store.set(Some(Fault::HoldsPut));
    let thawed = async {
        store.arrived().await;
        world.advance_ms(61_000);
        let second = world.second(Arc::clone(&world.db)).await;
        second.reconcile_once().await.unwrap();
        assert_eq!(world.status("g1").await, "active");
        store.let_pass();
    };
    let (answer, ()) = tokio::join!(world.archive("g1"), thawed);
    world.settled().await;
    assert!(!answer.status.is_success());
    assert_eq!(world.status("g1").await, "active");
    assert_eq!(world.files().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_thaw_that_comes_after_the_mark_thaws_nothing() {
    let world = World::with_messages(4).await;
    world.controllers.once("wipe", Behaviour::Held);
    world.archive("g1").await.expect_status(200);
    world.controllers.arrived().await;
    // Whoever would give the archive up by now finds that its task has ended.
    world.advance_ms(61_000);
    let second = world.second(Arc::clone(&world.db)).await;
    second.reconcile_once().await.unwrap();
    assert_eq!(world.status("g1").await, "archived");
    let thaws = world.controllers.lines().iter().filter(|line| line.ends_with("/thaw")).count();
    assert_eq!(thaws, 0);
    world.controllers.let_pass();
    world.settled().await;
}

#[tokio::test]
async fn a_wipe_that_comes_after_the_group_was_restored_removes_nothing() {
    let world = World::with_messages(4).await;
    world.archive("g1").await.expect_status(200);
    world.restore("g1").await.expect_status(200);
    world.post("g1", 2);
    let lines = world.lines("g1");
    let wipe = world.controllers.calls().into_iter().find(|call| call.line.ends_with("/wipe"));
    let wipe: WipeRequest = serde_json::from_str(&wipe.unwrap().body).unwrap();
    let late = world.controllers.groups().wipe(&"g1".parse().unwrap(), &wipe);
    assert!(late.is_err());
    assert_eq!(world.lines("g1"), lines);
}

#[tokio::test]
async fn of_many_archives_restores_and_deletes_at_once_one_wins_and_the_count_is_right() {
    let world = World::with_messages(4).await;
    world.activate("g2", "o1").await.expect_status(200);
    for _ in 0..3 {
        let (a, b, c) = tokio::join!(world.archive("g1"), world.archive("g1"), world.archive("g1"));
        let done = [a, b, c].iter().filter(|answer| answer.status == 200).count();
        assert_eq!(done, 1);
        let (a, b, c) = tokio::join!(world.restore("g1"), world.restore("g1"), world.restore("g1"));
        let done = [a, b, c].iter().filter(|answer| answer.status == 200).count();
        assert_eq!(done, 1);
        assert_eq!(world.active("o1").await, 2);
    }
    let (a, b, c) = tokio::join!(world.archive("g1"), world.delete("g1"), world.delete("g1"));
    world.settled().await;
    assert!(b.status == 204 || c.status == 204, "{a:?} {b:?} {c:?}");
    assert_eq!(world.status("g1").await, "deleted");
    assert_eq!(world.active("o1").await, 1);
}
