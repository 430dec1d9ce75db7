//! Scheduled work.

use std::sync::Arc;

use convene_orchestrator::Reconciled;
use object_store::ObjectStore;
use serde_json::json;

use crate::{
    controllers::Behaviour,
    stores::{Fault, Faulty},
    world::World,
};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

async fn sleep(world: &World, group: &str) {
    let body = json!({ "group_id": group, "status": "idle", "reason": "" });
    world.ask("POST", "/infra/cleanup").json(&body).send().await.expect_status(204);
}

async fn set(world: &World, org: &str, auto_archive_after_secs: Option<u64>) {
    let mut body = json!({ "max_active_groups": 100 });
    if let Some(secs) = auto_archive_after_secs {
        body["auto_archive_after_secs"] = json!(secs);
    }
    let path = format!("/infra/orgs/{org}/limits");
    let answer = world.ask("PUT", &path).json(&body).send().await.expect_status(200);
    assert_eq!(answer.body, body);
}

async fn once(world: &World) -> Reconciled {
    world.opened.reconcile_once().await.unwrap()
}

#[tokio::test]
async fn a_group_that_sleeps_for_seven_days_is_archived_and_not_before() {
    let world = World::with_messages(3).await;
    sleep(&world, "g1").await;
    world.advance_ms(7 * DAY_MS - 1);
    assert_eq!(once(&world).await, Reconciled::default());
    assert_eq!(world.files().await, Vec::<String>::new());
    world.advance_ms(1);
    assert_eq!(once(&world).await, Reconciled { archived: 1, ..Reconciled::default() });
    assert_eq!(world.status("g1").await, "archived");
    assert_eq!(once(&world).await, Reconciled::default());
    assert_eq!(
        world.life("g1").await,
        ["inactive>active", "active>idle", "idle>archiving", "archiving>archived"]
    );
}

#[tokio::test]
async fn an_organization_has_a_time_of_its_own_or_never() {
    let world = World::new().await;
    for (org, group, secs) in [("o1", "g1", Some(60)), ("o2", "g2", Some(0)), ("o3", "g3", None)] {
        set(&world, org, secs).await;
        world.activate(group, org).await.expect_status(200);
        sleep(&world, group).await;
    }
    world.advance_ms(60_000);
    assert_eq!(once(&world).await.archived, 1);
    assert_eq!(world.status("g1").await, "archived");
    world.advance_ms(365 * DAY_MS);
    assert_eq!(once(&world).await.archived, 1);
    assert_eq!(world.status("g3").await, "archived");
    assert_eq!(world.status("g2").await, "idle");
}

#[tokio::test]
async fn a_group_in_use_is_never_archived_by_itself() {
    let world = World::with_messages(1).await;
    world.advance_ms(30 * DAY_MS);
    let done = once(&world).await;
    assert_eq!((done.archived, done.asked), (0, 1), "its controller is asked whether it is");
    assert_eq!(world.controllers.lines().last().unwrap(), "POST /groups/g1/init");
    assert_eq!(once(&world).await.asked, 0, "and then not for a while");
    sleep(&world, "g1").await;
    world.advance_ms(6 * DAY_MS);
    world.activate("g1", "o1").await.expect_status(200);
    world.advance_ms(2 * DAY_MS);
    assert_eq!(once(&world).await.archived, 0);
}

#[tokio::test]
async fn a_store_that_is_away_stops_the_round_and_every_group_lives() {
    let faulty = Arc::new(Faulty::new());
    let world = World::with_store(Arc::clone(&faulty) as Arc<dyn ObjectStore>).await;
    for group in 0..8 {
        let group = format!("g{group}");
        world.activate(&group, "o1").await.expect_status(200);
        sleep(&world, &group).await;
    }
    faulty.set(Some(Fault::NoPut));
    world.advance_ms(7 * DAY_MS);
    let done = once(&world).await;
    world.settled().await;
    assert_eq!(done.archived, 0);
    assert!((1..=2).contains(&done.failed), "{done:?}");
    assert_eq!(world.active("o1").await, 8);
    let frozen = world.controllers.lines().iter().filter(|line| line.ends_with("freeze")).count();
    assert!(frozen <= 2, "{frozen} groups were frozen in vain");
}

#[tokio::test]
async fn the_task_of_a_worker_that_is_away_is_taken_up_and_the_worker_can_do_no_more() {
    let world = World::with_messages(5).await;
    world.controllers.once("export", Behaviour::Held);
    let taken_up = async {
        world.controllers.arrived().await;
        // The worker stalls for longer than its lease; another Orchestrator takes its task up.
        world.advance_ms(61_000);
        let second = world.second(Arc::clone(&world.db)).await;
        assert_eq!(second.reconcile_once().await.unwrap().tasks, 1);
        assert_eq!(world.status("g1").await, "active");
        world.post("g1", 1);
        let lines = world.lines("g1");
        world.controllers.let_pass();
        lines
    };
    let (answer, lines) = tokio::join!(world.archive("g1"), taken_up);
    world.settled().await;
    assert!(!answer.status.is_success(), "{}", answer.body);
    assert_eq!(world.lines("g1"), lines);
    assert_eq!(world.record("g1").await["epoch"], 2);
    assert_eq!(world.files().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_process_that_stood_still_beyond_its_lease_goes_on_with_its_own_task() {
    let world = World::with_messages(5).await;
    world.controllers.once("export", Behaviour::Held);
    let stood_still = async {
        world.controllers.arrived().await;
        world.advance_ms(61_000);
        // Its own scheduled work finds the task due.
        assert_eq!(world.opened.reconcile_once().await.unwrap().tasks, 0);
        world.controllers.let_pass();
    };
    let (answer, ()) = tokio::join!(world.archive("g1"), stood_still);
    answer.expect_status(200);
    world.settled().await;
    assert_eq!(world.status("g1").await, "archived");
    assert_eq!(world.record("g1").await["epoch"], 1);
}

#[tokio::test]
async fn what_a_deceased_process_began_to_restore_or_delete_is_finished() {
    for (path, method, status) in
        [("/infra/groups/g1/restore", "POST", "active"), ("/infra/groups/g1", "DELETE", "deleted")]
    {
        let world = World::with_messages(5).await;
        world.archive("g1").await.expect_status(200);
        world.settled().await;
        let verb = if method == "DELETE" { "remove" } else { "piece" };
        world.controllers.once(verb, Behaviour::Silent);
        let call = world.ask(method, path);
        let begun = async {
            while !world
                .controllers
                .lines()
                .iter()
                .any(|line| line.contains(if method == "DELETE" { "DELETE" } else { "PUT" }))
            {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            answer = call.send() => panic!("it is held: {answer:?}"),
            () = begun => {}
        }
        world.advance_ms(61_000);
        let second = world.second(Arc::clone(&world.db)).await;
        assert_eq!(second.reconcile_once().await.unwrap().tasks, 1, "{path}");
        assert_eq!(world.status("g1").await, status);
        if status == "active" {
            assert_eq!(world.lines("g1").unwrap().len(), 8);
        } else {
            assert!(!world.controllers.groups().has_anything_of(&"g1".parse().unwrap()));
            assert_eq!(world.files().await, Vec::<String>::new());
            assert_eq!(world.rows("archives").await, 0);
        }
    }
}

#[tokio::test]
async fn a_count_that_is_not_that_of_the_groups_is_repaired() {
    let world = World::with_messages(1).await;
    world.activate("g2", "o1").await.expect_status(200);
    world.archive("g2").await.expect_status(200);
    world.settled().await;
    assert_eq!(once(&world).await.repaired, 0);
    world.execute("UPDATE org_counts SET active = 7").await;
    assert_eq!(once(&world).await.repaired, 1);
    assert_eq!(world.active("o1").await, 1);
}

#[tokio::test]
async fn what_is_kept_for_a_while_goes_and_the_audit_of_a_groups_life_stays() {
    let world = World::with_messages(1).await;
    let body = json!({ "group_id": "g1", "status": "idle", "reason": "" });
    world.ask("POST", "/infra/cleanup").json(&body).key("k1").send().await.expect_status(204);
    world.archive("g1").await.expect_status(200);
    world.settled().await;
    world.advance_ms(DAY_MS);
    assert_eq!(once(&world).await.forgotten, 1, "the key");
    world.advance_ms(31 * DAY_MS);
    let done = once(&world).await;
    assert_eq!(done.forgotten, 3, "two tasks and falling asleep");
    assert_eq!(world.life("g1").await, ["inactive>active", "idle>archiving", "archiving>archived"]);
}
