//! Several Orchestrators on one directory, on each kind of database: limits hold and counts stay
//! true whoever is faster.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use convene_db::{Statement, params};
use convene_testing::postgres::TestDatabase;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    place::Place,
    world::{DEFAULT_LIMIT, RECONCILE_EVERY, World},
};

/// Calls that run for the same place at the same time.
const RIVALS: usize = 64;

/// Kinds of scheduled work, each with a lease of its own.
const KINDS_OF_WORK: usize = 4;

/// Two Orchestrators on one directory; the directory lives as long as this.
pub(crate) struct Two {
    pub(crate) worlds: [Arc<World>; 2],
    _place: Place,
}

impl Two {
    async fn on(place: Place) -> Self {
        // Each opens the directory itself, as a process of its own does.
        let one = World::on(place.open(), Place::folder()).await;
        let two = one.beside(place.open()).await;
        Self { worlds: [Arc::new(one), Arc::new(two)], _place: place }
    }

    pub(crate) async fn on_each_database() -> [Self; 2] {
        let server = Place::Server(TestDatabase::fresh().await);
        [Self::on(Place::folder()).await, Self::on(server).await]
    }

    /// All groups at the same time, by both in turn; the statuses of the answers.
    async fn activate(&self, groups: impl Iterator<Item = String>, org: &str) -> Vec<u16> {
        let mut calls = JoinSet::new();
        for (index, group) in groups.enumerate() {
            let (world, org) = (Arc::clone(&self.worlds[index % 2]), org.to_owned());
            calls.spawn(async move { world.activate(&group, &org).await.status.as_u16() });
        }
        calls.join_all().await
    }

    async fn assert_counted(&self, org: &str, expected: u64) {
        let world = &self.worlds[0];
        assert_eq!((world.active(org).await, world.records(org).await), (expected, expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_64_activations_for_the_last_place_exactly_one_succeeds() {
    for two in Two::on_each_database().await {
        for group in ["a", "b"] {
            two.worlds[0].activate(group, "o1").await.expect_status(200);
        }
        two.worlds[1].set_limit("o1", 3).await.expect_status(200);
        let statuses = two.activate((0..RIVALS).map(|nth| format!("g{nth}")), "o1").await;
        let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
        assert_eq!((count(200), count(429)), (1, RIVALS - 1), "{statuses:?}");
        two.assert_counted("o1", 3).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_64_activate_at_once_is_counted_once() {
    for two in Two::on_each_database().await {
        let statuses = two.activate((0..RIVALS).map(|_| "g1".to_owned()), "o1").await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        two.assert_counted("o1", 1).await;
    }
}

/// Everything that changes a count, at the same time, by two Orchestrators, while a third thing looks
/// whether the counts are right: it never finds one to repair.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_at_the_same_time_the_counts_are_those_of_the_records() {
    for two in Two::on_each_database().await {
        let mut dice = 0x5eed_u64;
        let mut roll = move |sides: u64| {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        let mut lives = 0;
        for round in 0..8 {
            let mut calls = JoinSet::new();
            for _ in 0..24 {
                let world = Arc::clone(&two.worlds[roll(2) as usize]);
                let (org, nth) = (roll(3), roll(6));
                let (act, limit) = (roll(11), roll(6));
                calls.spawn(async move {
                    let (org, group) = (format!("o{org}"), format!("g{org}-{nth}-{}", limit / 5));
                    let answer = match act {
                        0 => world.set_limit(&org, limit).await,
                        1 | 2 => {
                            let status = if act == 1 { "idle" } else { "active" };
                            let body = json!({
                                "group_id": group, "status": status, "reason": "a roll of dice"
                            });
                            world.ask("POST", "/infra/cleanup").json(&body).send().await
                        }
                        3 | 4 => world.archive(&group).await,
                        5 | 6 => world.restore(&group).await,
                        7 if limit == 5 => world.delete(&group).await,
                        _ => world.activate(&group, &org).await,
                    };
                    assert!(answer.status.as_u16() < 500, "{act}: {}", answer.body);
                    u64::from((3..7).contains(&act) && answer.status.is_success())
                });
            }
            let looking = Arc::clone(&two.worlds[roll(2) as usize]);
            calls.spawn(async move {
                let done = looking.opened.reconcile_once().await.unwrap();
                assert_eq!(done.repaired, 0, "a count was not that of its records");
                0
            });
            while let Some(done) = calls.join_next().await {
                lives += done.unwrap();
            }
            for world in &two.worlds {
                world.settled().await;
            }
            for org in ["o0", "o1", "o2"] {
                let world = &two.worlds[0];
                let (active, counted) = (world.active(org).await, world.counted(org).await);
                assert_eq!(active, counted, "{org} after round {round}");
                assert!(active <= DEFAULT_LIMIT);
            }
        }
        assert!(lives > 5, "groups went into the archive and came back: {lives}");
    }
}

/// Who has the leases of scheduled work once each has a holder whose time is not over.
async fn leaders(world: &World) -> BTreeSet<String> {
    let held = async {
        loop {
            let sql = "SELECT holder FROM leases WHERE name LIKE 'reconcile.%' AND expires_at > $1";
            let now = world.now().millis();
            let rows = world.db.query(Statement::new(sql, params![now])).await.unwrap();
            if rows.len() == KINDS_OF_WORK {
                return rows.iter().map(|row| row.get("holder").unwrap()).collect();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), held).await.expect("somebody leads")
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduled_work_has_one_leader_at_a_time_and_another_when_it_is_gone() {
    for two in Two::on_each_database().await {
        let [one, other] = &two.worlds;
        let works = |world: &Arc<World>| {
            let opened = world.opened.clone();
            tokio::spawn(async move { opened.reconcile().await })
        };
        let first = works(one);
        let leading = leaders(one).await;
        assert_eq!(leading.len(), 1, "one process has all of it: {leading:?}");
        let second = works(other);
        // The other asks again and again, and gets nothing while the first renews its leases.
        for _ in 0..20 {
            one.advance_ms(1_000);
            tokio::time::sleep(RECONCILE_EVERY * 3).await;
            assert_eq!(leaders(other).await, leading);
        }
        first.abort();
        one.advance_ms(60_000);
        let next = leaders(other).await;
        assert!(next.len() == 1 && next.is_disjoint(&leading), "{next:?} after {leading:?}");
        second.abort();
    }
}
