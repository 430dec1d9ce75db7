//! An archive whose calls get no answer, and one that scheduled work could not finish: both are tried again.

use std::sync::Arc;

use convene_model::Code;
use convene_orchestrator::Reconciled;
use http::StatusCode;
use object_store::ObjectStore;
use serde_json::json;

use crate::{
    controllers::{ASKED, Behaviour},
    stores::{Fault, Faulty},
    world::World,
};

const MINUTE_MS: u64 = 60 * 1000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// A group of seven days' sleep, whose store does not work.
struct Asleep {
    world: World,
    store: Arc<Faulty>,
}

impl Asleep {
    async fn new() -> Self {
        let store = Arc::new(Faulty::new());
        let world = World::with_store(Arc::clone(&store) as Arc<dyn ObjectStore>).await;
        world.activate("g1", "o1").await.expect_status(200);
        world.post("g1", 3);
        let asleep = Self { world, store };
        asleep.falls_asleep().await;
        asleep.world.advance_ms(7 * DAY_MS);
        asleep.store.set(Some(Fault::NoPut));
        assert_eq!(asleep.round().await, (0, 1));
        asleep
    }

    async fn falls_asleep(&self) {
        self.report("idle").await;
    }

    async fn report(&self, status: &str) {
        let body = json!({ "group_id": "g1", "status": status, "reason": "" });
        self.world.ask("POST", "/infra/cleanup").json(&body).send().await.expect_status(204);
    }

    /// A round of scheduled work: how many groups it has archived, and how many it could not.
    async fn round(&self) -> (u64, u64) {
        let Reconciled { archived, failed, .. } = self.world.opened.reconcile_once().await.unwrap();
        self.world.settled().await;
        (archived, failed)
    }

    /// That the group is archived only after so many minutes from now.
    async fn is_due_after(&self, minutes: u64, done: (u64, u64)) {
        self.world.advance_ms(minutes * MINUTE_MS - 1);
        assert_eq!(self.round().await, (0, 0), "not before {minutes} minutes");
        self.world.advance_ms(1);
        assert_eq!(self.round().await, done, "after {minutes} minutes");
    }
}

#[tokio::test]
async fn an_archive_goes_on_when_answers_of_the_controller_are_lost() {
    for verb in ["freeze", "export"] {
        for behaviour in [Behaviour::LostAnswer, Behaviour::Broken(StatusCode::BAD_GATEWAY)] {
            let world = World::with_messages(6).await;
            let before = world.lines("g1").unwrap();
            for _ in 1..ASKED {
                world.controllers.once(verb, behaviour.clone());
            }
            let answer = world.archive("g1").await.expect_status(200).body;
            assert_eq!(answer["messages"], 6, "{verb} {behaviour:?}");
            assert_eq!(answer["events"], 8, "{verb} {behaviour:?}");
            world.settled().await;
            assert_eq!(world.record("g1").await["epoch"], 1, "{verb} {behaviour:?}");
            world.restore("g1").await.expect_status(200);
            let after = world.lines("g1").unwrap();
            assert_eq!(after[..before.len()], before, "{verb} {behaviour:?}");
        }
    }
}

#[tokio::test]
async fn each_piece_of_an_export_is_asked_for_again_and_none_is_written_twice() {
    let world = World::with_messages(6).await;
    let pieces = {
        world.archive("g1").await.expect_status(200);
        let exports = world.controllers.lines();
        world.restore("g1").await.expect_status(200);
        exports.iter().filter(|line| line.contains("/export?")).count()
    };
    assert!(pieces > 3, "{pieces}");
    // Every second call is lost.
    for _ in 0..pieces {
        world.controllers.once("export", Behaviour::LostAnswer);
        world.controllers.once("export", Behaviour::Healthy);
    }
    let answer = world.archive("g1").await.expect_status(200).body;
    assert_eq!(answer["messages"], 6);
}

#[tokio::test]
async fn a_controller_that_refuses_is_not_asked_again() {
    for verb in ["freeze", "export"] {
        let world = World::with_messages(2).await;
        let refused = Behaviour::Refuse(Box::new(Code::IllegalTransition.into()));
        world.controllers.once(verb, refused);
        world.archive("g1").await.expect_problem(409, "illegal_transition");
        world.settled().await;
        let asked = world.controllers.lines();
        let asked = asked.iter().filter(|line| line.contains(&format!("/{verb}"))).count();
        assert_eq!(asked, 1, "{verb}");
        assert_eq!(world.status("g1").await, "active");
    }
}

#[tokio::test]
async fn an_automatic_archive_that_failed_is_tried_again_after_a_pause_that_grows() {
    let asleep = Asleep::new().await;
    // Its controller has gone on and falls asleep again.
    asleep.report("active").await;
    asleep.falls_asleep().await;
    asleep.is_due_after(10, (0, 1)).await;
    asleep.falls_asleep().await;
    asleep.is_due_after(20, (0, 1)).await;
    asleep.falls_asleep().await;
    asleep.store.set(None);
    asleep.is_due_after(40, (1, 0)).await;
    assert_eq!(asleep.world.status("g1").await, "archived");
    let failed = ["idle>archiving", "archiving>active", "active>idle"];
    assert_eq!(
        asleep.world.life("g1").await,
        [
            &["inactive>active", "active>idle"][..],
            &failed,
            &failed,
            &failed,
            &["idle>archiving", "archiving>archived"]
        ]
        .concat()
    );
    // The failures are forgotten with that.
    asleep.world.restore("g1").await.expect_status(200);
    asleep.falls_asleep().await;
    asleep.is_due_after(7 * 24 * 60, (1, 0)).await;
}

#[tokio::test]
async fn a_group_whose_archive_failed_and_that_is_awake_is_not_tried_again() {
    let asleep = Asleep::new().await;
    asleep.store.set(None);
    asleep.world.advance_ms(DAY_MS);
    assert_eq!(asleep.round().await, (0, 0));
    asleep.falls_asleep().await;
    assert_eq!(asleep.round().await, (1, 0), "it is overdue");
}

#[tokio::test]
async fn who_uses_a_group_whose_archive_failed_has_it_for_its_whole_time_again() {
    for sleeps in [false, true] {
        let asleep = Asleep::new().await;
        asleep.store.set(None);
        if sleeps {
            asleep.falls_asleep().await;
        }
        asleep.world.activate("g1", "o1").await.expect_status(200);
        asleep.falls_asleep().await;
        asleep.is_due_after(7 * 24 * 60, (1, 0)).await;
    }
}

#[tokio::test]
async fn an_organization_that_wants_no_archives_any_more_has_none_tried_again() {
    let asleep = Asleep::new().await;
    asleep.store.set(None);
    asleep.falls_asleep().await;
    let body = json!({ "max_active_groups": 100, "auto_archive_after_secs": 0 });
    asleep.world.ask("PUT", "/infra/orgs/o1/limits").json(&body).send().await.expect_status(200);
    asleep.world.advance_ms(30 * DAY_MS);
    assert_eq!(asleep.round().await, (0, 0));
}

#[tokio::test]
async fn an_archive_by_hand_that_failed_makes_no_automatic_one_due() {
    let store = Arc::new(Faulty::new());
    let world = World::with_store(Arc::clone(&store) as Arc<dyn ObjectStore>).await;
    world.activate("g1", "o1").await.expect_status(200);
    world.post("g1", 1);
    store.set(Some(Fault::NoPut));
    world.archive("g1").await.expect_problem(503, "archive_store_unavailable");
    store.set(None);
    let asleep = Asleep { world, store };
    asleep.falls_asleep().await;
    asleep.is_due_after(7 * 24 * 60, (1, 0)).await;
}
