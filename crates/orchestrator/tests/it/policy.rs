//! Rates and egress: who goes beyond is refused with a time, operators see who it was, and a group that
//! has sent as much as it may is closed until its window passes.

use convene_hop::{ConnectError, GroupLink, Hop};
use convene_model::{
    Code, Problem,
    usage::{Month, end_of_day},
};
use serde_json::{Value, json};

use crate::{
    controllers::Behaviour,
    usage::{report, usage},
    world::World,
};

async fn limit(world: &World, org: &str, limits: &Value) {
    let mut body = limits.clone();
    body["max_active_groups"] = json!(100);
    let path = format!("/infra/orgs/{org}/limits");
    world.ask("PUT", &path).json(&body).send().await.expect_status(200);
}

async fn flags(world: &World) -> Vec<Value> {
    let answer = world.ask("GET", "/infra/abuse").send().await.expect_status(200);
    answer.body["flags"].as_array().unwrap().clone()
}

/// The limits that the controllers were handed with the last `init` of a group.
fn handed_down(world: &World, group: &str) -> Value {
    let line = format!("POST /groups/{group}/init");
    let call = world.controllers.calls().into_iter().rfind(|call| call.line == line).unwrap();
    serde_json::from_str::<Value>(&call.body).unwrap()["limits"].clone()
}

/// Sets limits of an organization while a call of a controller is held, and lets that pass then.
async fn limit_meanwhile(world: &World, limits: Value) {
    world.controllers.arrived().await;
    limit(world, "o1", &limits).await;
    world.controllers.let_pass();
}

/// Opens an upstream, or says why it is refused.
async fn connect(world: &World, group: &str) -> Result<GroupLink, Problem> {
    let token = world.routing_token(group, "u1").await;
    let call = world.ask("GET", &format!("/groups/{group}/ws")).routing_token(&token);
    let token = call.app_token().encode();
    let opened = Hop::in_process(world.router.clone()).connect(call.request(Some(&token))).await;
    opened.map_err(|error| match error {
        ConnectError::Refused(problem) => problem,
        other => panic!("{other}"),
    })
}

/// The end of the window of a group that is closed.
async fn closed_until(world: &World, group: &str) -> u64 {
    let problem = connect(world, group).await.expect_err("it is closed");
    assert_eq!((problem.status, problem.code), (402, Code::EgressExhausted));
    problem.extra["resets_at"].as_u64().unwrap()
}

#[tokio::test]
async fn an_organization_activates_so_often_and_then_it_is_told_when() {
    let world = World::new().await;
    limit(&world, "o1", &json!({ "activations_per_minute": 2 })).await;
    for group in ["g1", "g2"] {
        world.activate(group, "o1").await.expect_status(200);
    }
    let before = world.active("o1").await;
    let refused = world.activate("g3", "o1").await.expect_problem(429, "rate_limited");
    assert_eq!(refused.body["retry_after_ms"], 30_000);
    assert_eq!(world.active("o1").await, before);
    world.activate("g4", "o2").await.expect_status(200);
    world.advance_ms(29_999);
    world.activate("g3", "o1").await.expect_problem(429, "rate_limited");
    world.advance_ms(1);
    world.activate("g3", "o1").await.expect_status(200);
    let flags = flags(&world).await;
    assert_eq!(flags.len(), 1);
    let flag = &flags[0];
    assert_eq!((&flag["org_id"], &flag["kind"]), (&json!("o1"), &json!("activations")));
    assert_eq!((&flag["count"], &flag["user_id"]), (&json!(2), &Value::Null));
}

#[tokio::test]
async fn controllers_are_handed_the_limits_and_told_when_they_change() {
    let world = World::new().await;
    world.activate("g1", "o1").await.expect_status(200);
    assert_eq!(handed_down(&world, "g1"), Value::Null);
    let rates = json!({
        "user_posts_per_minute": 30, "org_posts_per_minute": 300, "user_attaches_per_minute": 60,
    });
    limit(&world, "o1", &rates).await;
    assert_eq!(world.opened.reconcile_once().await.unwrap().told, 1);
    assert_eq!(handed_down(&world, "g1"), rates);
    world.activate("g2", "o1").await.expect_status(200);
    assert_eq!(handed_down(&world, "g2"), rates, "a new group has them from the beginning");
    world.activate("g2", "o1").await.expect_status(200);
    assert_eq!(handed_down(&world, "g2"), rates);
    limit(&world, "o1", &json!({})).await;
    world.opened.reconcile_once().await.unwrap();
    assert_eq!(handed_down(&world, "g1"), Value::Null);
}

#[tokio::test]
async fn a_group_that_has_sent_as_much_as_it_may_is_closed_until_the_day_ends() {
    let world = World::new().await;
    for group in ["g1", "g2"] {
        world.activate(group, "o1").await.expect_status(200);
    }
    limit(&world, "o1", &json!({ "group_daily_egress_bytes": 1_000 })).await;
    report(&world, "g1", "k1", &json!({ "egress_bytes": 999 })).await.expect_status(204);
    world.opened.reconcile_once().await.unwrap();
    connect(&world, "g1").await.unwrap();
    report(&world, "g1", "k2", &json!({ "egress_bytes": 1 })).await.expect_status(204);
    world.opened.reconcile_once().await.unwrap();
    let until = end_of_day(world.now());
    assert_eq!(closed_until(&world, "g1").await, until.millis());
    assert_eq!(handed_down(&world, "g1"), json!({ "egress_until": until.millis() }));
    connect(&world, "g2").await.unwrap();
    world.advance_ms(until.since(world.now()).as_millis() as u64);
    connect(&world, "g1").await.unwrap();
}

#[tokio::test]
async fn an_organization_that_has_sent_as_much_as_it_may_is_closed_until_the_month_ends_or_has_more()
 {
    let world = World::new().await;
    for (group, org) in [("g1", "o1"), ("g2", "o1"), ("g3", "o2")] {
        world.activate(group, org).await.expect_status(200);
    }
    limit(&world, "o1", &json!({ "monthly_egress_bytes": 1_000 })).await;
    for group in ["g1", "g3"] {
        report(&world, group, "k1", &json!({ "egress_bytes": 5_000 })).await.expect_status(204);
    }
    world.opened.reconcile_once().await.unwrap();
    let until = Month::of(world.now()).next().begins_at();
    for group in ["g1", "g2"] {
        assert_eq!(closed_until(&world, group).await, until.millis());
    }
    connect(&world, "g3").await.unwrap();
    // A new group is no way around it, and no further report comes.
    for (group, org) in [("g4", "o1"), ("g5", "o2")] {
        world.activate(group, org).await.expect_status(200);
    }
    assert_eq!(handed_down(&world, "g4"), json!({ "egress_until": until.millis() }));
    assert_eq!(closed_until(&world, "g4").await, until.millis());
    assert_eq!(handed_down(&world, "g5"), Value::Null);
    connect(&world, "g5").await.unwrap();
    limit(&world, "o1", &json!({ "monthly_egress_bytes": 10_000 })).await;
    world.opened.reconcile_once().await.unwrap();
    connect(&world, "g1").await.unwrap();
    connect(&world, "g4").await.unwrap();
    assert_eq!(handed_down(&world, "g1"), Value::Null);
}

#[tokio::test]
async fn a_change_of_limits_opens_and_closes_groups_by_what_they_have_sent_already() {
    let world = World::new().await;
    for (group, org) in [("g1", "o1"), ("g2", "o1"), ("g3", "o2")] {
        world.activate(group, org).await.expect_status(200);
    }
    for (group, bytes) in [("g1", 5_000), ("g2", 1), ("g3", 5_000)] {
        report(&world, group, "k1", &json!({ "egress_bytes": bytes })).await.expect_status(204);
    }
    world.opened.reconcile_once().await.unwrap();
    limit(&world, "o2", &json!({ "group_daily_egress_bytes": 5_001 })).await;
    // No further report comes from here on.
    let month = Month::of(world.now()).next().begins_at().millis();
    let day = end_of_day(world.now()).millis();
    for (limits, closed) in [
        (json!({ "group_daily_egress_bytes": 5_000 }), [Some(day), None]),
        (
            json!({ "group_daily_egress_bytes": 5_000, "user_posts_per_minute": 9 }),
            [Some(day), None],
        ),
        (json!({ "monthly_egress_bytes": 5_001 }), [Some(month); 2]),
        (json!({ "monthly_egress_bytes": 5_002, "group_daily_egress_bytes": 1 }), [Some(day); 2]),
        (json!({ "monthly_egress_bytes": 5_002 }), [None; 2]),
    ] {
        limit(&world, "o1", &limits).await;
        for (group, until) in ["g1", "g2"].into_iter().zip(closed) {
            match until {
                Some(until) => assert_eq!(closed_until(&world, group).await, until, "{limits}"),
                None => drop(connect(&world, group).await.unwrap()),
            }
        }
        world.opened.reconcile_once().await.unwrap();
        let told = handed_down(&world, "g1")["egress_until"].as_u64();
        assert_eq!(told, closed[0], "{limits}");
        connect(&world, "g3").await.unwrap();
    }
}

#[tokio::test]
async fn a_group_on_its_way_into_the_archive_and_back_has_the_limits_that_are_set_meanwhile() {
    let world = World::with_messages(3).await;
    report(&world, "g1", "k1", &json!({ "egress_bytes": 5_000 })).await.expect_status(204);
    world.opened.reconcile_once().await.unwrap();
    let day = end_of_day(world.now()).millis();
    // Closed while it is frozen, open again while its events are read back.
    world.controllers.once("export", Behaviour::Held);
    let closed = limit_meanwhile(&world, json!({ "group_daily_egress_bytes": 5_000 }));
    let (archived, ()) = tokio::join!(world.archive("g1"), closed);
    archived.expect_status(200);
    assert_eq!(closed_until(&world, "g1").await, day);
    world.controllers.once("piece", Behaviour::Held);
    let opened = limit_meanwhile(&world, json!({ "user_posts_per_minute": 9 }));
    let (restored, ()) = tokio::join!(world.restore("g1"), opened);
    restored.expect_status(200);
    world.opened.reconcile_once().await.unwrap();
    connect(&world, "g1").await.unwrap();
    assert_eq!(handed_down(&world, "g1"), json!({ "user_posts_per_minute": 9 }));
}

#[tokio::test]
async fn limits_that_change_while_a_controller_is_told_of_the_former_ones_are_told_as_well() {
    let world = World::new().await;
    world.activate("g1", "o1").await.expect_status(200);
    limit(&world, "o1", &json!({ "user_posts_per_minute": 8 })).await;
    world.controllers.once("init", Behaviour::Held);
    let changed = limit_meanwhile(&world, json!({ "user_posts_per_minute": 9 }));
    let (told, ()) = tokio::join!(world.opened.reconcile_once(), changed);
    told.unwrap();
    world.opened.reconcile_once().await.unwrap();
    assert_eq!(handed_down(&world, "g1"), json!({ "user_posts_per_minute": 9 }));
    let calls = world.controllers.calls().len();
    world.opened.reconcile_once().await.unwrap();
    assert_eq!(world.controllers.calls().len(), calls, "it is told once");
}

#[tokio::test]
async fn operators_see_who_went_beyond_a_rate_and_nobody_else_does() {
    let world = World::with_group().await;
    let refused = |user: &str, count: u64| json!({ "refused": [{ "kind": "posts", "user_id": user, "count": count }] });
    report(&world, "g1", "k1", &refused("u1", 3)).await.expect_status(204);
    report(&world, "g1", "k1", &refused("u1", 3)).await.expect_status(204);
    let first = world.now().millis();
    world.advance_ms(1_000);
    report(&world, "g1", "k2", &refused("u1", 4)).await.expect_status(204);
    report(&world, "g1", "k3", &refused("u2", 1)).await.expect_status(204);
    let flags = flags(&world).await;
    let expected = json!({
        "org_id": "o1", "user_id": "u1", "kind": "posts", "group_id": "g1", "count": 7,
        "first_at": first, "last_at": first + 1_000,
    });
    assert_eq!(flags.len(), 2);
    assert_eq!(flags[0], expected, "each report counts once");
    let one = world.ask("GET", "/infra/abuse?limit=1&offset=1").send().await.expect_status(200);
    assert_eq!(one.body["flags"], json!([flags[1]]));
    for (query, status) in [("limit=0", 422), ("limit=201", 422), ("limit=200", 200), ("x=1", 400)]
    {
        world.ask("GET", &format!("/infra/abuse?{query}")).send().await.expect_status(status);
    }
    let foreign = world.ask("GET", "/infra/abuse").by(&world.portal).send().await;
    foreign.expect_problem(403, "forbidden");

    let refusals = |count: usize| {
        let all = (0..count)
            .map(|nth| json!({ "kind": "posts", "user_id": format!("u{nth}"), "count": 1 }));
        json!({ "refused": all.collect::<Vec<_>>() })
    };
    report(&world, "g1", "k4", &refusals(64)).await.expect_status(204);
    report(&world, "g1", "k5", &refusals(65)).await.expect_problem(422, "validation_failed");
}

#[tokio::test]
async fn what_is_read_of_an_archived_group_counts_and_is_refused_when_its_organization_is_closed() {
    let world = World::with_messages(10).await;
    world.archive("g1").await.expect_status(200);
    world.settled().await;
    let token = world.routing_token("g1", "u1").await;
    let history =
        async || world.ask("GET", "/groups/g1/history").routing_token(&token).send().await;
    let page = history().await.expect_status(200).body.to_string().len() as u64;
    world.opened.reconcile_once().await.unwrap();
    let counted = usage(&world, "o1").await["egress_bytes"].as_u64().unwrap();
    assert_eq!(counted, page);
    limit(&world, "o1", &json!({ "monthly_egress_bytes": counted })).await;
    world.opened.reconcile_once().await.unwrap();
    let until = Month::of(world.now()).next().begins_at();
    let refused = history().await.expect_problem(402, "egress_exhausted");
    assert_eq!(refused.body["resets_at"], until.millis());
}
