//! `GET` and `PUT /infra/orgs/{id}/limits`.

use serde_json::json;

use crate::world::{DEFAULT_LIMIT, World};

#[tokio::test]
async fn an_operator_sets_a_limit_and_everybody_with_the_organization_reads_it() {
    let world = World::new().await;
    let read = world.ask("GET", "/infra/orgs/o1/limits");
    let default = json!({ "max_active_groups": DEFAULT_LIMIT });
    assert_eq!(read.send().await.expect_status(200).body, default);
    let answer = world.set_limit("o1", 7).await.expect_status(200);
    assert_eq!(answer.body, json!({ "max_active_groups": 7 }));
    assert_eq!(read.send().await.expect_status(200).body, json!({ "max_active_groups": 7 }));
}

#[tokio::test]
async fn without_operator_scope_no_limit_is_set_not_even_on_ones_own_organization() {
    let world = World::new().await;
    world
        .ask("POST", "/infra/groups")
        .by(&world.portal)
        .json(&json!({ "group_id": "g1", "org_id": "o1" }))
        .send()
        .await
        .expect_status(200);
    let before = world.standing().await;
    for org in ["o1", "o2"] {
        world
            .ask("PUT", &format!("/infra/orgs/{org}/limits"))
            .by(&world.portal)
            .json(&json!({ "max_active_groups": 1000 }))
            .send()
            .await
            .expect_problem(403, "forbidden");
        assert_eq!(world.standing().await, before);
    }
    let read = world.ask("GET", "/infra/orgs/o1/limits").by(&world.portal);
    read.send().await.expect_status(200);
}

#[tokio::test]
async fn an_operator_sets_the_limits_of_every_organization_and_takes_none() {
    let world = World::new().await;
    world
        .ask("POST", "/infra/groups")
        .by(&world.portal)
        .json(&json!({ "group_id": "g1", "org_id": "o1" }))
        .send()
        .await
        .expect_status(200);
    world.set_limit("o1", 1).await.expect_status(200);
    let read = world.ask("GET", "/infra/orgs/o1/limits").send().await.expect_status(200);
    assert_eq!(read.body["max_active_groups"], 1);
    // The organization is still the portal's, under the new limit.
    world.activate("g2", "o1").await.expect_problem(404, "group_not_found");
    let second = world.ask("POST", "/infra/groups").by(&world.portal);
    let second = second.json(&json!({ "group_id": "g2", "org_id": "o1" })).send().await;
    second.expect_problem(429, "active_group_limit_exceeded");
}

#[tokio::test]
async fn a_lowered_limit_takes_nobodys_place_away() {
    let world = World::with_group().await;
    world.activate("g2", "o1").await.expect_status(200);
    world.set_limit("o1", 1).await.expect_status(200);
    world.activate("g2", "o1").await.expect_status(200);
    let answer = world.activate("g3", "o1").await;
    let answer = answer.expect_problem(429, "active_group_limit_exceeded");
    assert_eq!((&answer.body["limit"], &answer.body["active"]), (&json!(1), &json!(2)));
    world.set_limit("o1", 3).await.expect_status(200);
    world.activate("g3", "o1").await.expect_status(200);
}

#[tokio::test]
async fn a_limit_is_a_number_up_to_a_thousand_million() {
    let world = World::new().await;
    world.set_limit("o1", 1_000_000_000).await.expect_status(200);
    world.set_limit("o1", 1_000_000_001).await.expect_problem(422, "validation_failed");
    for body in ["{\"max_active_groups\":-1}", "{\"max_active_groups\":1.5}", "{}", ""] {
        let call = world.ask("PUT", "/infra/orgs/o1/limits").body(body);
        call.send().await.expect_problem(400, "invalid_request");
    }
}

#[tokio::test]
async fn every_limit_is_optional_is_read_back_and_has_a_highest_value() {
    let world = World::new().await;
    let budget = 1_000_000_000_000_000_u64;
    let all = json!({
        "max_active_groups": 5, "auto_archive_after_secs": 60, "monthly_tokens": budget,
        "monthly_egress_bytes": budget, "group_daily_egress_bytes": budget,
        "user_posts_per_minute": 1_000_000, "org_posts_per_minute": 1_000_000,
        "user_attaches_per_minute": 1_000_000, "activations_per_minute": 1_000_000,
    });
    let set = async |body: &serde_json::Value| {
        world.ask("PUT", "/infra/orgs/o1/limits").json(body).send().await
    };
    assert_eq!(set(&all).await.expect_status(200).body, all);
    let read = world.ask("GET", "/infra/orgs/o1/limits").send().await.expect_status(200);
    assert_eq!(read.body, all);
    for (name, most) in [
        ("monthly_tokens", budget),
        ("monthly_egress_bytes", budget),
        ("group_daily_egress_bytes", budget),
        ("user_posts_per_minute", 1_000_000),
        ("org_posts_per_minute", 1_000_000),
        ("user_attaches_per_minute", 1_000_000),
        ("activations_per_minute", 1_000_000),
    ] {
        set(&json!({ "max_active_groups": 5, name: most + 1 }))
            .await
            .expect_problem(422, "validation_failed");
    }
    for name in ["user_posts_per_minute", "activations_per_minute"] {
        let none = json!({ "max_active_groups": 5, name: 0 });
        set(&none).await.expect_problem(422, "validation_failed");
        set(&json!({ "max_active_groups": 5, name: 1 })).await.expect_status(200);
    }
    for name in ["monthly_tokens", "group_daily_egress_bytes"] {
        set(&json!({ "max_active_groups": 5, name: 0 })).await.expect_status(200);
    }
    let least = json!({ "max_active_groups": 5 });
    assert_eq!(set(&least).await.expect_status(200).body, least, "what is not said is not limited");
}
