//! `GET /infra/groups/{id}/events`.

use convene_model::limits::{DEFAULT_PAGE, MAX_PAGE};
use serde_json::{Value, json};

use crate::world::{Answer, World};

async fn read(world: &World, query: &str) -> Answer {
    world.ask("GET", &format!("/infra/groups/g1/events{query}")).send().await
}

/// The steps of a page as the audit has them: `from>to`.
fn steps(page: &Value) -> Vec<String> {
    let events = page["events"].as_array().unwrap().iter();
    events
        .map(|event| {
            let from = event["from"].as_str().unwrap_or("inactive");
            format!("{from}>{}", event["to"].as_str().unwrap())
        })
        .collect()
}

async fn nap(world: &World) {
    for status in ["idle", "active"] {
        let body = json!({ "group_id": "g1", "status": status, "reason": "a nap" });
        world.ask("POST", "/infra/cleanup").json(&body).send().await.expect_status(204);
    }
}

/// A group that slept, was archived and came back within a moment of the world's clock, and then was deleted.
async fn a_whole_life() -> World {
    let world = World::with_messages(2).await;
    nap(&world).await;
    world.archive("g1").await.expect_status(200);
    world.settled().await;
    world.restore("g1").await.expect_status(200);
    world.settled().await;
    world.advance_ms(1_000);
    world.delete("g1").await.expect_status(204);
    world
}

#[tokio::test]
async fn a_groups_life_is_read_newest_first_also_when_the_group_is_gone() {
    let world = a_whole_life().await;
    let page = read(&world, "").await.expect_status(200).body;
    let mut life = world.life("g1").await;
    life.reverse();
    assert_eq!(steps(&page), life);
    assert_eq!(life.len(), 9);
    assert_eq!(page["next"], Value::Null);
    let now = world.now().millis();
    let [newest, .., first] = &page["events"].as_array().unwrap()[..] else { panic!("{page}") };
    assert_eq!((&newest["at"], &newest["to"]), (&json!(now), &json!("deleted")));
    assert_eq!((&newest["epoch"], &newest["actor"]), (&json!(3), &json!("app")));
    assert_eq!((&first["at"], &first["from"]), (&json!(now - 1_000), &Value::Null));
    assert_eq!((&first["reason"], &first["task_id"]), (&json!("activated"), &Value::Null));
    let archived = &page["events"][5];
    assert_eq!((&archived["to"], &archived["reason"]), (&json!("archiving"), &json!("a test")));
    let task = format!("/infra/tasks/{}", archived["task_id"].as_str().unwrap());
    let task = world.ask("GET", &task).send().await.expect_status(200).body;
    assert_eq!(task["kind"], "archive");
}

#[tokio::test]
async fn a_groups_life_is_turned_page_by_page_without_a_gap() {
    let world = a_whole_life().await;
    let all = read(&world, "").await.expect_status(200).body;
    for size in [1, 2, 4, 9, 10] {
        let (mut turned, mut query) = (Vec::new(), format!("?limit={size}"));
        loop {
            let mut page = read(&world, &query).await.expect_status(200).body;
            let events = page["events"].as_array_mut().unwrap();
            assert!(events.len() <= size);
            turned.append(events);
            let Some(next) = page["next"].as_str() else { break };
            query = format!("?limit={size}&after={next}");
        }
        assert_eq!(json!(turned), all["events"], "pages of {size}");
    }
    // Behind what is not of this group there is nothing.
    world.activate("g2", "o1").await.expect_status(200);
    let other = world.ask("GET", "/infra/groups/g2/events").send().await.expect_status(200).body;
    let other = other["events"][0]["event_id"].as_str().unwrap();
    let page = read(&world, &format!("?after={other}")).await.expect_status(200).body;
    assert_eq!(page, json!({ "events": [], "next": null }));
}

#[tokio::test]
async fn a_page_of_a_groups_life_has_its_limits() {
    let world = World::with_group().await;
    for _ in 0..=MAX_PAGE / 2 {
        nap(&world).await;
    }
    let count = async |query: &str| {
        let page = read(&world, query).await.expect_status(200).body;
        assert!(page["next"].is_string());
        page["events"].as_array().unwrap().len()
    };
    assert_eq!(count("").await, DEFAULT_PAGE);
    assert_eq!(count("?limit=1").await, 1);
    assert_eq!(count(&format!("?limit={MAX_PAGE}")).await, MAX_PAGE);
    let too_many = format!("?limit={}", MAX_PAGE + 1);
    for wrong in [&too_many[..], "?limit=0", "?limit=x", "?after=", "?after=a%00b", "?before=1"] {
        read(&world, wrong).await.expect_problem(400, "invalid_request");
    }
}

#[tokio::test]
async fn a_groups_life_is_for_its_app_and_for_operators() {
    let world = World::with_group().await;
    let portals = world.ask("POST", "/infra/groups").by(&world.portal);
    let body = json!({ "group_id": "p1", "org_id": "po" });
    portals.json(&body).send().await.expect_status(200);
    let before = world.standing().await;
    let ask = |group: &str| world.ask("GET", &format!("/infra/groups/{group}/events"));
    ask("p1").by(&world.portal).send().await.expect_status(200);
    let by_operator = ask("p1").send().await.expect_status(200).body;
    assert_eq!(by_operator["events"][0]["actor"], "portal");
    ask("g1").by(&world.portal).send().await.expect_problem(404, "group_not_found");
    ask("nobody").send().await.expect_problem(404, "group_not_found");
    ask("g1").for_org("o2").send().await.expect_problem(403, "forbidden");
    ask("g1").send_with(None).await.expect_status(401);
    let by_controller = ask("g1").controller_token("g1", 1).encode();
    ask("g1").send_with(Some(&by_controller)).await.expect_status(401);
    assert_eq!(world.standing().await, before);
}
