//! Several Orchestrators on one directory, on each kind of database: limits hold and counts stay
//! true whoever is faster.

use std::sync::Arc;

use convene_testing::postgres::TestDatabase;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    place::Place,
    world::{DEFAULT_LIMIT, World},
};

/// Calls that run for the same place at the same time.
const RIVALS: usize = 64;

/// Two Orchestrators on one directory; the directory lives as long as this.
pub(crate) struct Two {
    pub(crate) worlds: [Arc<World>; 2],
    _place: Place,
}

impl Two {
    async fn on(place: Place) -> Self {
        // Each opens the directory itself, as a process of its own does.
        let one = World::on(place.open(), Place::folder()).await;
        let two = World::on(place.open(), Place::folder()).await;
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
        for round in 0..6 {
            let mut calls = JoinSet::new();
            for _ in 0..24 {
                let world = Arc::clone(&two.worlds[roll(2) as usize]);
                let (org, nth) = (roll(3), roll(12));
                let (act, limit) = (roll(6), roll(8));
                calls.spawn(async move {
                    let (org, group) = (format!("o{org}"), format!("g{org}-{nth}"));
                    let answer = match act {
                        0 => world.set_limit(&org, limit).await,
                        1 | 2 => {
                            let status = if act == 1 { "idle" } else { "active" };
                            let body = json!({
                                "group_id": group, "status": status, "reason": "a roll of dice"
                            });
                            world.ask("POST", "/infra/cleanup").json(&body).send().await
                        }
                        _ => world.activate(&group, &org).await,
                    };
                    assert!(answer.status.as_u16() < 500, "{}", answer.body);
                });
            }
            while let Some(done) = calls.join_next().await {
                done.unwrap();
            }
            for org in ["o0", "o1", "o2"] {
                let world = &two.worlds[0];
                let (active, records) = (world.active(org).await, world.records(org).await);
                assert_eq!(active, records, "{org} after round {round}");
                assert!(active <= DEFAULT_LIMIT);
            }
        }
    }
}
