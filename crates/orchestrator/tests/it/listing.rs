//! `GET /infra/groups`, `/infra/orgs` and `/infra/tasks`, and calls that prefer not to wait.

use convene_model::limits::MAX_PAGE;
use serde_json::{Value, json};

use crate::controllers::Behaviour;
use crate::world::World;

/// The ids in a page, and its `next`.
fn ids(page: &Value, list: &str, id: &str) -> (Vec<String>, Value) {
    let entries = page[list].as_array().unwrap().iter();
    (entries.map(|entry| entry[id].as_str().unwrap().to_owned()).collect(), page["next"].clone())
}

async fn listed(world: &World, path: &str, list: &str, id: &str) -> Vec<String> {
    let answer = world.ask("GET", path).send().await.expect_status(200);
    ids(&answer.body, list, id).0
}

/// Two groups of our App in `o1`, one in `o2`, and one of the portal.
async fn four_groups() -> World {
    let world = World::new().await;
    for (group, org) in [("g1", "o1"), ("g2", "o1"), ("g3", "o2")] {
        world.activate(group, org).await.expect_status(200);
    }
    let portals = world.ask("POST", "/infra/groups").by(&world.portal);
    let portals = portals.json(&json!({ "group_id": "p1", "org_id": "po" })).send().await;
    portals.expect_status(200);
    world
}

#[tokio::test]
async fn groups_are_listed_by_organization_and_status_page_by_page() {
    let world = four_groups().await;
    world.archive("g2").await.expect_status(200);
    world.settled().await;
    let groups = async |query: &str| {
        listed(&world, &format!("/infra/groups{query}"), "groups", "group_id").await
    };
    assert_eq!(groups("").await, ["g1", "g2", "g3", "p1"]);
    assert_eq!(groups("?org_id=o1").await, ["g1", "g2"]);
    assert_eq!(groups("?status=archived").await, ["g2"]);
    assert_eq!(groups("?org_id=o2&status=archived").await, [""; 0]);
    assert_eq!(groups("?after=g2").await, ["g3", "p1"]);
    let page = world.ask("GET", "/infra/groups?limit=3").send().await.expect_status(200);
    assert_eq!(ids(&page.body, "groups", "group_id").1, "g3");
    let page = world.ask("GET", "/infra/groups?limit=4").send().await.expect_status(200);
    assert_eq!(ids(&page.body, "groups", "group_id").1, Value::Null);
    // A tombstone is not in the way of what is there.
    world.delete("g1").await.expect_status(204);
    assert_eq!(groups("?org_id=o1").await, ["g2"]);
    assert_eq!(groups("?status=deleted").await, ["g1"]);
}

#[tokio::test]
async fn an_app_without_operator_scope_lists_its_own_and_reads_nothing_else() {
    let world = four_groups().await;
    for (path, list, id, own) in [
        ("/infra/groups", "groups", "group_id", "p1"),
        ("/infra/groups?org_id=o1", "groups", "group_id", ""),
        ("/infra/orgs", "orgs", "org_id", "po"),
    ] {
        let page = world.ask("GET", path).by(&world.portal).send().await.expect_status(200);
        let expected: Vec<_> = Some(own).into_iter().filter(|own| !own.is_empty()).collect();
        assert_eq!(ids(&page.body, list, id).0, expected, "{path}");
    }
    let foreign = world.ask("GET", "/infra/groups/g1").by(&world.portal).send().await;
    foreign.expect_problem(404, "group_not_found");
    let record = world.ask("GET", "/infra/groups/p1").send().await.expect_status(200);
    assert_eq!(record.body["org_id"], "po", "an operator reads every group's record");
    // A token for an organization lists that one's.
    let of_o2 = world.ask("GET", "/infra/groups").for_org("o2").send().await.expect_status(200);
    assert_eq!(ids(&of_o2.body, "groups", "group_id").0, ["g3"]);
    let other = world.ask("GET", "/infra/groups?org_id=o1").for_org("o2").send().await;
    other.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn organizations_are_listed_with_limit_and_block() {
    let world = four_groups().await;
    world.set_limit("o2", 7).await.expect_status(200);
    world
        .ask("PUT", "/infra/orgs/stranger/block")
        .json(&json!({ "blocked": true, "reason": "abuse" }))
        .send()
        .await
        .expect_status(200);
    let orgs = world.ask("GET", "/infra/orgs").send().await.expect_status(200).body;
    assert_eq!(ids(&orgs, "orgs", "org_id").0, ["o1", "o2", "po", "stranger"]);
    let of = |index: usize, member: &str| orgs["orgs"][index][member].clone();
    assert_eq!((of(0, "active_groups"), of(0, "issuer")), (json!(2), json!("app")));
    assert_eq!((of(1, "max_active_groups"), of(2, "issuer")), (json!(7), json!("portal")));
    assert_eq!((of(3, "issuer"), of(3, "block_reason")), (Value::Null, json!("abuse")));
    assert_eq!(listed(&world, "/infra/orgs?blocked=true", "orgs", "org_id").await, ["stranger"]);
    let free = listed(&world, "/infra/orgs?blocked=false&after=o1&limit=1", "orgs", "org_id");
    assert_eq!(free.await, ["o2"]);
}

#[tokio::test]
async fn tasks_are_listed_newest_first_by_group_and_status() {
    let world = four_groups().await;
    for group in ["g1", "g2"] {
        world.archive(group).await.expect_status(200);
        world.settled().await;
        world.advance_ms(1);
    }
    let page = world.ask("GET", "/infra/tasks?group_id=g2").send().await.expect_status(200).body;
    let kinds: Vec<_> = page["tasks"].as_array().unwrap().iter().map(|t| &t["kind"]).collect();
    assert!(kinds.contains(&&json!("archive")), "{page}");
    assert!(page["tasks"].as_array().unwrap().iter().all(|task| task["group_id"] == "g2"));
    let all = listed(&world, "/infra/tasks", "tasks", "task_id").await;
    let mut turned = Vec::new();
    let mut path = "/infra/tasks?limit=1".to_owned();
    loop {
        let page = world.ask("GET", &path).send().await.expect_status(200).body;
        let (one, next) = ids(&page, "tasks", "task_id");
        turned.extend(one);
        let Some(next) = next.as_str() else { break };
        path = format!("/infra/tasks?limit=1&after={next}");
    }
    assert_eq!(turned, all);
    assert_eq!(listed(&world, "/infra/tasks?status=running", "tasks", "task_id").await, [""; 0]);
    let none = world.ask("GET", "/infra/tasks").by(&world.portal).send().await.expect_status(200);
    assert_eq!(none.body["tasks"], json!([]));
}

#[tokio::test]
async fn a_query_that_says_nothing_sensible_is_refused() {
    let world = World::new().await;
    world.ask("GET", &format!("/infra/groups?limit={MAX_PAGE}")).send().await.expect_status(200);
    for path in [
        format!("/infra/groups?limit={}", MAX_PAGE + 1),
        "/infra/groups?limit=0".into(),
        "/infra/groups?status=asleep".into(),
        "/infra/groups?org=o1".into(),
        "/infra/orgs?blocked=maybe".into(),
        "/infra/tasks?limit=-1".into(),
    ] {
        let answer = world.ask("GET", &path).send().await;
        answer.expect_problem(400, "invalid_request");
    }
}

#[tokio::test]
async fn a_call_that_prefers_not_to_wait_answers_with_its_task() {
    let world = World::with_messages(3).await;
    // Else the archive may be done before the call looks at its task.
    world.controllers.once("freeze", Behaviour::Held);
    let answer = world
        .ask("POST", "/infra/groups/g1/archive")
        .header("prefer", "respond-async")
        .json(&json!({ "reason": "a test" }))
        .send()
        .await
        .expect_status(202);
    world.controllers.let_pass();
    world.settled().await;
    let path = format!("/infra/tasks/{}", answer.body["task_id"].as_str().unwrap());
    let task = world.ask("GET", &path).send().await.expect_status(200).body;
    assert_eq!((&task["status"], &task["result"]["messages"]), (&json!("done"), &json!(3)));
}
