//! `POST /infra/groups/{id}/reserve` and `release-resources`: the budget is held before a run and
//! settled after it.

use std::sync::Arc;

use convene_model::usage::{Month, RESERVATION_TTL};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    rivals::Two,
    usage::{of_run, report, usage},
    world::{Answer, World},
};

async fn budget(world: &World, tokens: u64) {
    let body = json!({ "max_active_groups": 100, "monthly_tokens": tokens });
    world.ask("PUT", "/infra/orgs/o1/limits").json(&body).send().await.expect_status(200);
}

async fn reserve(world: &World, group: &str, run: &str, tokens: u64) -> Answer {
    let body = json!({ "run_id": run, "tokens": tokens });
    let call = world.ask("POST", &format!("/infra/groups/{group}/reserve")).json(&body);
    let token = call.controller_token(group, 1).encode();
    call.send_with(Some(&token)).await
}

async fn release(world: &World) -> Answer {
    let call = world.ask("POST", "/infra/groups/g1/release-resources");
    let token = call.controller_token("g1", 1).encode();
    call.send_with(Some(&token)).await
}

/// What is used and what is held.
async fn standing(world: &World) -> (u64, u64) {
    let usage = usage(world, "o1").await;
    let figure = |name: &str| usage[name].as_u64().unwrap();
    (figure("budget_used_tokens"), figure("budget_reserved_tokens"))
}

async fn world_with_budget(tokens: u64) -> World {
    let world = World::with_group().await;
    budget(&world, tokens).await;
    world
}

#[tokio::test]
async fn runs_reserve_until_the_budget_is_held_and_what_they_do_not_use_is_free_again() {
    let world = world_with_budget(1_000).await;
    for run in ["r1", "r2"] {
        let granted = reserve(&world, "g1", run, 400).await.expect_status(200).body;
        let until = (world.now() + RESERVATION_TTL).millis();
        assert_eq!(granted, json!({ "run_id": run, "tokens": 400, "expires_at": until }));
    }
    let refused = reserve(&world, "g1", "r3", 201).await.expect_problem(402, "budget_exhausted");
    for (figure, expected) in [("limit", 1_000), ("used", 0), ("reserved", 800), ("asked", 201)] {
        assert_eq!(refused.body[figure], expected, "{figure}");
    }
    let resets_at = Month::of(world.now()).next().begins_at();
    assert_eq!(refused.body["resets_at"], resets_at.millis());
    reserve(&world, "g1", "r3", 200).await.expect_status(200);
    assert_eq!(standing(&world).await, (0, 1_000));
    report(&world, "g1", "e1", &of_run("r1", 100, 50)).await.expect_status(204);
    assert_eq!(standing(&world).await, (150, 600));
    reserve(&world, "g1", "r4", 250).await.expect_status(200);
    assert_eq!(standing(&world).await, (150, 850));
}

#[tokio::test]
async fn a_run_that_asks_again_holds_what_it_held_and_one_that_ended_gets_nothing() {
    let world = world_with_budget(1_000).await;
    let first = reserve(&world, "g1", "r1", 400).await.expect_status(200);
    world.advance_ms(5_000);
    assert_eq!(reserve(&world, "g1", "r1", 400).await, first);
    assert_eq!(standing(&world).await, (0, 400));
    report(&world, "g1", "e1", &of_run("r1", 1, 1)).await.expect_status(204);
    reserve(&world, "g1", "r1", 400).await.expect_problem(409, "conflict");
    assert_eq!(standing(&world).await, (2, 0));
}

#[tokio::test]
async fn with_a_key_a_run_hears_the_first_answer_again_whatever_has_happened_since() {
    let world = world_with_budget(1_000).await;
    let ask = async |key: &str, run: &str, tokens: u64| {
        let body = json!({ "run_id": run, "tokens": tokens });
        let call = world.ask("POST", "/infra/groups/g1/reserve").json(&body).key(key);
        let token = call.controller_token("g1", 1).encode();
        call.send_with(Some(&token)).await
    };
    let granted = ask("k1", "r1", 400).await.expect_status(200);
    let refused = ask("k2", "r2", 700).await.expect_problem(402, "budget_exhausted");
    report(&world, "g1", "e1", &of_run("r1", 1, 1)).await.expect_status(204);
    assert_eq!(ask("k1", "r1", 400).await, granted);
    assert_eq!(ask("k2", "r2", 700).await, refused);
    assert_eq!(standing(&world).await, (2, 0), "an answer that is repeated holds nothing");
    ask("k1", "r1", 401).await.expect_problem(422, "idempotency_key_reused");
    let ended = ask("k3", "r1", 400).await.expect_problem(409, "conflict");
    assert_eq!(ended.body["ended"], true);
    ask("k4", "r2", 700).await.expect_status(200);
    for malformed in ["", "with space", &"k".repeat(256)] {
        ask(malformed, "r9", 1).await.expect_problem(400, "invalid_request");
    }
    assert_eq!(standing(&world).await, (2, 700));
}

#[tokio::test]
async fn a_run_that_does_not_say_what_it_used_is_settled_at_all_that_it_held() {
    let world = world_with_budget(1_000).await;
    reserve(&world, "g1", "r1", 400).await.expect_status(200);
    let silent = json!({ "run_id": "r1", "runs": 1 });
    report(&world, "g1", "e1", &silent).await.expect_status(204);
    report(&world, "g1", "e1", &silent).await.expect_status(204);
    assert_eq!(standing(&world).await, (400, 0));
    assert_eq!(usage(&world, "o1").await["input_tokens"], 0, "what nobody said is no figure");
}

#[tokio::test]
async fn a_run_that_never_settles_is_settled_in_full_after_its_time_and_corrected_when_it_speaks() {
    let world = world_with_budget(1_000).await;
    reserve(&world, "g1", "r1", 400).await.expect_status(200);
    reserve(&world, "g1", "r2", 100).await.expect_status(200);
    world.advance_ms(RESERVATION_TTL.as_millis() as u64 - 1);
    assert_eq!(world.opened.reconcile_once().await.unwrap().expired, 0);
    assert_eq!(standing(&world).await, (0, 500));
    world.advance_ms(1);
    assert_eq!(world.opened.reconcile_once().await.unwrap().expired, 2);
    assert_eq!(world.opened.reconcile_once().await.unwrap().expired, 0);
    assert_eq!(standing(&world).await, (500, 0));
    report(&world, "g1", "e1", &of_run("r1", 30, 3)).await.expect_status(204);
    assert_eq!(standing(&world).await, (133, 0));
    report(&world, "g1", "e2", &json!({ "run_id": "r2", "runs": 1 })).await.expect_status(204);
    assert_eq!(standing(&world).await, (133, 0));
}

#[tokio::test]
async fn what_was_reserved_in_a_month_counts_in_that_month_whenever_it_is_settled() {
    let world = world_with_budget(1_000).await;
    let month = Month::of(world.now());
    world.advance_ms(month.next().begins_at().since(world.now()).as_millis() as u64 - 1);
    reserve(&world, "g1", "r1", 1_000).await.expect_status(200);
    world.advance_ms(1);
    reserve(&world, "g1", "r2", 1_000).await.expect_status(200);
    report(&world, "g1", "e1", &of_run("r1", 600, 0)).await.expect_status(204);
    assert_eq!(standing(&world).await, (0, 1_000));
    let former = world.ask("GET", &format!("/infra/orgs/o1/usage?month={month}")).send().await;
    let former = former.expect_status(200).body;
    assert_eq!(
        (&former["budget_used_tokens"], &former["input_tokens"]),
        (&json!(600), &json!(600))
    );
}

#[tokio::test]
async fn without_a_budget_nothing_is_held_and_nobody_needs_to_ask_again_for_a_minute() {
    let world = World::with_group().await;
    let before = world.standing().await;
    let granted = reserve(&world, "g1", "r1", 400).await.expect_status(200).body;
    let until = world.now().millis() + 60_000;
    assert_eq!(granted, json!({ "run_id": "r1", "tokens": 0, "unlimited_until": until }));
    assert_eq!(world.standing().await, before);
    report(&world, "g1", "e1", &of_run("r1", 30, 3)).await.expect_status(204);
    budget(&world, 32).await;
    let refused = reserve(&world, "g1", "r2", 1).await.expect_problem(402, "budget_exhausted");
    assert_eq!(refused.body["used"], 33, "what was used before the budget was set counts");
}

#[tokio::test]
async fn a_reservation_is_for_the_groups_controller_while_the_group_may_be_used() {
    let world = world_with_budget(1_000).await;
    let body = json!({ "run_id": "r1", "tokens": 1 });
    let call = || world.ask("POST", "/infra/groups/g1/reserve").json(&body);
    let before = world.standing().await;
    call().send().await.expect_problem(401, "unauthorized");
    call().send_with(None).await.expect_problem(401, "unauthorized");
    for (group, epoch, code) in
        [("g2", 1, "forbidden"), ("g1", 2, "stale_epoch"), ("g1", 0, "stale_epoch")]
    {
        let token = call().controller_token(group, epoch).encode();
        call().send_with(Some(&token)).await.expect_problem(403, code);
    }
    for tokens in [0, 10_000_001] {
        reserve(&world, "g1", "r1", tokens).await.expect_problem(422, "validation_failed");
    }
    assert_eq!(world.standing().await, before);
    budget(&world, 10_000_000).await;
    reserve(&world, "g1", "r1", 10_000_000).await.expect_status(200);
    let block = json!({ "blocked": true, "reason": "" });
    world.ask("PUT", "/infra/orgs/o1/block").json(&block).send().await.expect_status(200);
    let call = || world.ask("POST", "/infra/groups/g1/reserve").json(&body);
    let token = call().controller_token("g1", 2).encode();
    call().send_with(Some(&token)).await.expect_problem(403, "org_blocked");
}

#[tokio::test]
async fn a_group_releases_what_it_holds_and_says_what_that_was() {
    let world = world_with_budget(1_000).await;
    world.activate("g2", "o1").await.expect_status(200);
    for (group, run, tokens) in [("g1", "r1", 300), ("g1", "r2", 200), ("g2", "r1", 100)] {
        reserve(&world, group, run, tokens).await.expect_status(200);
    }
    let released = release(&world).await.expect_status(200).body;
    assert_eq!((&released["tokens"], &released["group_status"]), (&json!(500), &json!("idle")));
    let mut runs: Vec<_> = released["reservations"].as_array().unwrap().iter().collect();
    runs.sort_by_key(|reservation| reservation["run_id"].to_string());
    assert_eq!(
        runs,
        [&json!({ "run_id": "r1", "tokens": 300 }), &json!({ "run_id": "r2", "tokens": 200 })]
    );
    assert_eq!(standing(&world).await, (500, 100), "another group's are its own");
    assert_eq!(world.status("g1").await, "idle");
    let before = world.standing().await;
    let again = release(&world).await.expect_status(200).body;
    assert_eq!((&again["tokens"], &again["reservations"]), (&json!(0), &json!([])));
    assert_eq!(world.standing().await, before);
    report(&world, "g1", "e1", &of_run("r1", 10, 0)).await.expect_status(204);
    assert_eq!(standing(&world).await, (210, 100), "who speaks after all is believed");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_64_reservations_for_the_last_tokens_exactly_one_is_granted() {
    for two in Two::on_each_database().await {
        two.worlds[0].activate("g1", "o1").await.expect_status(200);
        budget(&two.worlds[1], 1_000).await;
        reserve(&two.worlds[0], "g1", "first", 900).await.expect_status(200);
        let mut calls = JoinSet::new();
        for nth in 0..64_usize {
            let world = Arc::clone(&two.worlds[nth % 2]);
            calls.spawn(async move { reserve(&world, "g1", &format!("r{nth}"), 100).await.status });
        }
        let statuses: Vec<u16> =
            calls.join_all().await.iter().map(|status| status.as_u16()).collect();
        let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
        assert_eq!((count(200), count(402)), (1, 63), "{statuses:?}");
        assert_eq!(standing(&two.worlds[0]).await, (0, 1_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_at_the_same_time_used_and_held_never_exceed_the_budget() {
    const BUDGET: u64 = 5_000;
    for two in Two::on_each_database().await {
        let groups = ["g0", "g1", "g2"];
        for group in groups {
            two.worlds[0].activate(group, "o1").await.expect_status(200);
        }
        budget(&two.worlds[0], BUDGET).await;
        let mut dice = 0x5eed_u64;
        let mut roll = move |sides: u64| {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        for round in 0..6 {
            let mut calls = JoinSet::new();
            for nth in 0..24 {
                let world = Arc::clone(&two.worlds[roll(2) as usize]);
                let (group, run) = (groups[roll(3) as usize], format!("r{}", roll(12)));
                let (act, tokens) = (roll(8), 100 + roll(4) * 100);
                calls.spawn(async move {
                    let answer = match act {
                        // A run that was granted uses at most what it reserved, or does not say.
                        0 | 1 => {
                            let granted = reserve(&world, group, &run, tokens).await;
                            if granted.status != 200 {
                                return;
                            }
                            let body = if act == 0 {
                                of_run(&run, 60, 40)
                            } else {
                                json!({ "run_id": run, "runs": 1 })
                            };
                            report(&world, group, &format!("{run}-{act}"), &body).await
                        }
                        2 => {
                            report(
                                &world,
                                group,
                                &format!("{round}-{nth}"),
                                &json!({ "egress_bytes": 7 }),
                            )
                            .await
                        }
                        3 => {
                            let call = world
                                .ask("POST", &format!("/infra/groups/{group}/release-resources"));
                            let token = call.controller_token(group, 1).encode();
                            call.send_with(Some(&token)).await
                        }
                        4 => {
                            world.opened.reconcile_once().await.unwrap();
                            return;
                        }
                        _ => reserve(&world, group, &run, tokens).await,
                    };
                    assert!(answer.status.as_u16() < 500, "{}", answer.body);
                });
            }
            while let Some(done) = calls.join_next().await {
                done.unwrap();
            }
            let (used, held) = standing(&two.worlds[0]).await;
            assert!(used + held <= BUDGET, "{used} + {held} in round {round}");
            assert_eq!(held, held_by_rows(&two.worlds[0]).await, "in round {round}");
        }
    }
}

/// The tokens of the reservations that are held.
async fn held_by_rows(world: &World) -> u64 {
    let sql = "SELECT CAST(COALESCE(SUM(tokens), 0) AS BIGINT) AS n FROM reservations
        WHERE state = 'held'";
    let statement = convene_db::Statement::new(sql, convene_db::params![]);
    world.db.query(statement).await.unwrap()[0].get("n").unwrap()
}
