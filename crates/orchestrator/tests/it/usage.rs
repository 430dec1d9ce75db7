//! `POST` and `GET /infra/groups/{id}/usage`, `GET /infra/orgs/{id}/usage`: what is reported is counted
//! once, and never lost.

use convene_model::{Timestamp, usage::Month};
use serde_json::{Value, json};

use crate::world::{Answer, World};

/// A sound report of a run.
pub(crate) fn of_run(run: &str, input: u64, output: u64) -> Value {
    json!({
        "run_id": run, "runs": 1,
        "tokens": { "input_tokens": input, "output_tokens": output },
    })
}

/// Has the controller of a group report under a key.
pub(crate) async fn report(world: &World, group: &str, key: &str, body: &Value) -> Answer {
    let call = world.ask("POST", &format!("/infra/groups/{group}/usage")).json(body).key(key);
    let token = call.controller_token(group, 1).encode();
    call.send_with(Some(&token)).await
}

/// What an organization has used this month.
pub(crate) async fn usage(world: &World, org: &str) -> Value {
    let answer = world.ask("GET", &format!("/infra/orgs/{org}/usage")).send().await;
    answer.expect_status(200).body
}

async fn fold(world: &World) -> u64 {
    world.opened.reconcile_once().await.unwrap().folded
}

fn figures(usage: &Value) -> [u64; 5] {
    ["runs", "input_tokens", "output_tokens", "egress_bytes", "active_secs"]
        .map(|figure| usage[figure].as_u64().unwrap())
}

#[tokio::test]
async fn what_is_reported_is_counted_before_and_after_it_is_added_up() {
    let world = World::with_group().await;
    world.activate("g2", "o1").await.expect_status(200);
    report(&world, "g1", "k1", &of_run("r1", 100, 20)).await.expect_status(204);
    let awake = json!({ "egress_bytes": 5_000, "active_secs": 60 });
    report(&world, "g1", "k2", &awake).await.expect_status(204);
    report(&world, "g2", "k1", &of_run("r1", 7, 1)).await.expect_status(204);
    let before = usage(&world, "o1").await;
    assert_eq!(figures(&before), [2, 107, 21, 5_000, 60]);
    assert_eq!(before["budget_used_tokens"], 128);
    assert_eq!(before["month"], Month::of(world.now()).to_string());
    let groups = before["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2);
    assert_eq!(
        (groups[0]["group_id"].as_str(), figures(&groups[0])),
        (Some("g1"), [1, 100, 20, 5_000, 60])
    );
    assert_eq!(
        (groups[1]["group_id"].as_str(), figures(&groups[1])),
        (Some("g2"), [1, 7, 1, 0, 0])
    );
    assert_eq!(fold(&world).await, 3);
    assert_eq!(usage(&world, "o1").await, before, "adding up changes nothing that anybody sees");
    assert_eq!(fold(&world).await, 0);
    report(&world, "g1", "k3", &json!({ "egress_bytes": 1 })).await.expect_status(204);
    let group = world.ask("GET", "/infra/groups/g1/usage").send().await.expect_status(200).body;
    assert_eq!(
        figures(&group["months"][0]),
        [1, 100, 20, 5_001, 60],
        "some of it added up, some not"
    );
}

#[tokio::test]
async fn costs_are_added_up_and_what_is_not_known_is_counted() {
    let world = World::with_group().await;
    world.activate("g2", "o1").await.expect_status(200);
    let costs = |usage: &Value| {
        (usage["cost_micro_usd"].as_u64().unwrap(), usage["cost_unknown"].as_u64().unwrap())
    };
    let with = |run: &str, field: &str, figure: u64| {
        let mut body = of_run(run, 10, 5);
        body[field] = figure.into();
        body
    };
    for (group, key, body) in [
        ("g1", "k1", with("r1", "cost_micro_usd", 1_500)),
        ("g1", "k2", with("r2", "cost_unknown", 1)),
        ("g2", "k1", with("r1", "cost_micro_usd", 1_000_000_000_000)),
        ("g2", "k2", of_run("r2", 0, 0)),
    ] {
        report(&world, group, key, &body).await.expect_status(204);
    }
    let before = usage(&world, "o1").await;
    assert_eq!(costs(&before), (1_000_000_001_500, 1));
    assert_eq!(fold(&world).await, 4);
    assert_eq!(usage(&world, "o1").await, before, "adding up changes nothing that anybody sees");
    report(&world, "g1", "k3", &with("r3", "cost_micro_usd", 1)).await.expect_status(204);
    let group = world.ask("GET", "/infra/groups/g1/usage").send().await.expect_status(200).body;
    assert_eq!(costs(&group["months"][0]), (1_501, 1), "some of it added up, some not");
    for field in ["cost_micro_usd", "cost_unknown"] {
        let beyond = report(&world, "g1", field, &with("r4", field, 1_000_000_000_001)).await;
        beyond.expect_problem(422, "validation_failed");
    }
}

#[tokio::test]
async fn a_report_counts_once_however_often_it_comes_and_its_key_is_its_own() {
    let world = World::with_group().await;
    let body = of_run("r1", 10, 5);
    report(&world, "g1", "k1", &body).await.expect_status(204);
    let before = world.standing().await;
    report(&world, "g1", "k1", &body).await.expect_status(204);
    let other = report(&world, "g1", "k1", &of_run("r1", 10, 6)).await;
    other.expect_problem(422, "idempotency_key_reused");
    assert_eq!(world.standing().await, before);
    assert_eq!(fold(&world).await, 1);
    report(&world, "g1", "k1", &body).await.expect_status(204);
    assert_eq!(fold(&world).await, 0);
    assert_eq!(figures(&usage(&world, "o1").await), [1, 10, 5, 0, 0]);
}

#[tokio::test]
async fn two_that_add_up_at_the_same_time_count_nothing_twice() {
    let world = World::with_group().await;
    let second = world.second(world.db.clone()).await;
    for nth in 0..40 {
        let body = json!({ "egress_bytes": 10 });
        report(&world, "g1", &format!("k{nth}"), &body).await.expect_status(204);
    }
    let (one, two) = tokio::join!(world.opened.reconcile_once(), second.reconcile_once());
    assert_eq!(one.unwrap().folded + two.unwrap().folded, 40);
    assert_eq!(usage(&world, "o1").await["egress_bytes"], 400);
}

#[tokio::test]
async fn a_report_has_a_key_and_comes_from_the_groups_own_controller() {
    let world = World::with_group().await;
    world.activate("g2", "o1").await.expect_status(200);
    let before = world.standing().await;
    let body = json!({ "egress_bytes": 1 });
    let call = world.ask("POST", "/infra/groups/g1/usage").json(&body);
    let token = call.controller_token("g1", 1).encode();
    call.send_with(Some(&token)).await.expect_problem(400, "invalid_request");
    let call = || world.ask("POST", "/infra/groups/g1/usage").json(&body).key("k1");
    call().send_with(None).await.expect_problem(401, "unauthorized");
    call().send().await.expect_problem(401, "unauthorized");
    for (group, epoch, code) in [("g2", 1, "forbidden"), ("g1", 2, "stale_epoch")] {
        let token = call().controller_token(group, epoch).encode();
        call().send_with(Some(&token)).await.expect_problem(403, code);
    }
    assert_eq!(world.standing().await, before);
}

#[tokio::test]
async fn what_was_used_under_a_former_epoch_or_before_the_archive_counts_as_well() {
    let world = World::with_messages(2).await;
    world.archive("g1").await.expect_status(200);
    report(&world, "g1", "k1", &json!({ "active_secs": 9 })).await.expect_status(204);
    world.restore("g1").await.expect_status(200);
    report(&world, "g1", "k2", &json!({ "active_secs": 1 })).await.expect_status(204);
    assert_eq!(usage(&world, "o1").await["active_secs"], 10);
}

#[tokio::test]
async fn a_figure_is_at_most_a_million_millions_and_no_member_is_unknown() {
    let world = World::with_group().await;
    let most = 1_000_000_000_000_u64;
    for figure in ["runs", "egress_bytes", "active_secs"] {
        report(&world, "g1", figure, &json!({ figure: most })).await.expect_status(204);
        let more = report(&world, "g1", "more", &json!({ figure: most + 1 })).await;
        more.expect_problem(422, "validation_failed");
    }
    report(&world, "g1", "t", &of_run("r1", most, most)).await.expect_status(204);
    let before = world.standing().await;
    report(&world, "g1", "u", &of_run("r1", most + 1, 0))
        .await
        .expect_problem(422, "validation_failed");
    for body in [json!({ "bytes": 1 }), json!({ "runs": -1 }), json!({ "run_id": "no id" })] {
        report(&world, "g1", "v", &body).await.expect_problem(400, "invalid_request");
    }
    assert_eq!(world.standing().await, before);
}

#[tokio::test]
async fn groups_are_listed_by_the_page_those_with_the_most_tokens_first() {
    let world = World::new().await;
    for nth in 0..5_u64 {
        let group = format!("g{nth}");
        world.activate(&group, "o1").await.expect_status(200);
        report(&world, &group, "k", &of_run("r1", nth * 10, 0)).await.expect_status(204);
    }
    let page = async |query: &str| {
        let answer = world.ask("GET", &format!("/infra/orgs/o1/usage?{query}")).send().await;
        let body = answer.expect_status(200).body;
        let groups = body["groups"].as_array().unwrap();
        let names = groups.iter().map(|group| group["group_id"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>().join(" "), body["more"] == true)
    };
    assert_eq!(page("limit=2").await, ("g4 g3".to_owned(), true));
    assert_eq!(page("limit=2&offset=2").await, ("g2 g1".to_owned(), true));
    assert_eq!(page("limit=2&offset=4").await, ("g0".to_owned(), false));
    assert!(!page("limit=200").await.1);
    assert_eq!(page("month=2020-01").await, (String::new(), false));
    for (query, status) in [
        ("limit=0", 422),
        ("limit=201", 422),
        ("offset=100000", 200),
        ("offset=100001", 422),
        ("month=2026-13", 400),
        ("months=2026-12", 400),
    ] {
        let answer = world.ask("GET", &format!("/infra/orgs/o1/usage?{query}")).send().await;
        answer.expect_status(status);
    }
}

#[tokio::test]
async fn usage_is_for_the_app_whose_organization_it_is() {
    let world = World::with_group().await;
    for path in ["/infra/orgs/o1/usage", "/infra/groups/g1/usage"] {
        let foreign = world.ask("GET", path).by(&world.portal).send().await;
        foreign.expect_problem(404, "group_not_found");
        let other_org = world.ask("GET", path).for_org("o2").send().await;
        other_org.expect_problem(403, "forbidden");
    }
}

#[tokio::test]
async fn the_peak_is_the_most_groups_in_service_at_a_time_month_by_month() {
    let world = World::new().await;
    for group in ["g1", "g2", "g3"] {
        world.activate(group, "o1").await.expect_status(200);
        world.post(group, 1);
    }
    for group in ["g2", "g3"] {
        world.archive(group).await.expect_status(200);
    }
    let peak = async || {
        let usage = usage(&world, "o1").await;
        (usage["active_groups"].as_u64().unwrap(), usage["peak_active_groups"].as_u64().unwrap())
    };
    assert_eq!(peak().await, (1, 3));
    let next = Month::of(world.now()).next().begins_at();
    world.advance_ms(next.since(world.now()).as_millis() as u64);
    world.opened.reconcile_once().await.unwrap();
    assert_eq!(peak().await, (1, 1), "what is in service when a month begins is in its peak");
    world.restore("g2").await.expect_status(200);
    assert_eq!(peak().await, (2, 2));
    let before = Month::of(Timestamp::from_millis(next.millis() - 1));
    let former = world.ask("GET", &format!("/infra/orgs/o1/usage?month={before}")).send().await;
    assert_eq!(former.expect_status(200).body["peak_active_groups"], 3);
}

#[tokio::test]
async fn reports_are_forgotten_once_they_are_in_the_sums_and_the_sums_stay() {
    let world = World::with_group().await;
    report(&world, "g1", "k1", &of_run("r1", 3, 4)).await.expect_status(204);
    let month = Month::of(world.now());
    fold(&world).await;
    world.advance_ms(31 * 24 * 60 * 60 * 1000);
    world.opened.reconcile_once().await.unwrap();
    for table in ["usage_reports", "group_days"] {
        assert_eq!(world.rows(table).await, 0, "{table}");
    }
    let answer = world.ask("GET", &format!("/infra/orgs/o1/usage?month={month}")).send().await;
    assert_eq!(figures(&answer.expect_status(200).body), [1, 3, 4, 0, 0]);
}
