//! Archive, restore and delete of groups: who may, what the workspace knows of it, and what clients
//! are told when it is refused.

use std::time::Duration;

use convene_app::rooms::Groups;
use convene_model::{Code, GroupId, Problem, infra::GroupStatus};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Client, World};

/// An owner and a member of one workspace, with a group that was used.
async fn two(world: &World) -> (String, String, [Client<'_>; 2]) {
    let mut ann = world.person("Ann").await;
    let mut bob = world.person("Bob").await;
    let org = ann.org("Works").await;
    ann.bring(&org, &mut bob).await;
    let group = ann.group(&org, "Plans", None).await;
    world.activate(&group).await;
    (org, group, [ann, bob])
}

fn record(group: &str, org: &str, status: &str) -> Value {
    json!({"group_id": group, "org_id": org, "group_controller_id": "c1", "group_status": status,
        "history_mode": "internal", "epoch": 1, "last_active": 1, "idle_at": null, "region": null})
}

fn archived(group: &str) -> Value {
    let digest = "0".repeat(64);
    json!({"group_id": group, "archive_id": "x1", "snapshot_id": digest, "path": "p", "checksum": digest,
        "bytes": 10, "plain_bytes": 20, "messages": 3, "events": 9, "last_seq": 9})
}

fn activation(group: &str) -> Value {
    json!({"group_id": group, "group_controller_id": "c1", "status": "active",
        "history_mode": "internal", "epoch": 2})
}

fn task(group: &str, status: &str, done: u64) -> Value {
    json!({"task_id": "t1", "kind": "archive", "group_id": group, "status": status, "step": "export",
        "done": done, "total": 100, "created_at": 1, "updated_at": 2})
}

fn problem(code: Code) -> (u16, Value) {
    let problem = Problem::new(code);
    (problem.status, serde_json::to_value(problem).unwrap())
}

async fn listed(client: &mut Client<'_>, org: &str, status: &str) -> Vec<String> {
    let list = client.get(&format!("/api/groups?org_id={org}{status}")).await;
    assert_eq!(list.status, StatusCode::OK, "{}", list.text);
    let list = list.json.as_array().unwrap();
    list.iter().map(|group| group["group_id"].as_str().unwrap().to_owned()).collect()
}

async fn entries(client: &mut Client<'_>, org: &str) -> Vec<(String, String)> {
    let audit = client.get(&format!("/api/orgs/{org}/audit")).await.json;
    let entries = audit.as_array().unwrap().iter();
    let of_groups = entries.filter(|entry| entry["action"].as_str().unwrap().starts_with("group."));
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    of_groups.map(|entry| (text(entry, "action"), text(entry, "actor_id"))).collect()
}

#[tokio::test]
async fn an_owner_archives_and_restores_and_everybody_sees_where_the_group_stands() {
    let world = World::new().await;
    let (org, group, [mut ann, mut bob]) = two(&world).await;
    let root = format!("/api/groups/{group}");
    world.script(&format!("GET /infra/groups/{group}"), 200, record(&group, &org, "idle"));
    let shown = bob.get(&root).await.json;
    assert_eq!((&shown["status"], &shown["can_govern"]), (&json!("active"), &json!(false)));
    world.script(&format!("POST /infra/groups/{group}/archive"), 200, archived(&group));
    world.script(&format!("GET /infra/groups/{group}"), 200, record(&group, &org, "archived"));
    let done = ann.post(&format!("{root}/archive"), &json!({})).await;
    assert_eq!((done.status, &done.json["status"]), (StatusCode::OK, &json!("archived")));
    let shown = bob.get(&root).await.json;
    assert_eq!(shown["status"], "archived");
    assert_eq!(shown["status_at"], world.now().millis());
    assert_eq!(listed(&mut bob, &org, "").await, [group.as_str()]);
    assert_eq!(listed(&mut bob, &org, "&status=archived").await, [group.as_str()]);
    assert_eq!(listed(&mut bob, &org, "&status=active").await, Vec::<String>::new());
    let nonsense = bob.get(&format!("/api/groups?org_id={org}&status=gone")).await;
    assert_eq!(nonsense.status, StatusCode::BAD_REQUEST, "{}", nonsense.text);
    let page = bob.get(&format!("/g/{group}")).await;
    assert!(page.text.contains("This group is archived. It can be read."), "{}", page.text);
    assert!(page.text.contains("<convene-composer class=\"composer\" hidden>"));

    world.script(&format!("POST /infra/groups/{group}/restore"), 200, activation(&group));
    world.script(&format!("GET /infra/groups/{group}"), 200, record(&group, &org, "active"));
    let done = ann.post(&format!("{root}/restore"), &json!({})).await;
    assert_eq!((done.status, &done.json["status"]), (StatusCode::OK, &json!("active")));
    assert_eq!(listed(&mut bob, &org, "&status=active").await, [group.as_str()]);
    let by_ann = |action: &str| (action.to_owned(), ann.id.clone());
    let expected = [by_ann("group.restored"), by_ann("group.archived")];
    assert_eq!(entries(&mut ann, &org).await, expected);
}

#[tokio::test]
async fn only_owners_and_admins_put_a_group_away_and_others_change_nothing() {
    let world = World::new().await;
    let (org, _, [mut ann, mut bob]) = two(&world).await;
    // Its maker leads it, which is not enough for this.
    let group = bob.group(&org, "Bob's", None).await;
    world.activate(&group).await;
    for (method, path) in
        [(Method::POST, "/archive"), (Method::POST, "/restore"), (Method::DELETE, "")]
    {
        let path = format!("/api/groups/{group}{path}");
        let refused = bob.send(method, &path, None, Vec::new()).await;
        assert_eq!(refused.refusal(), (403, "forbidden"), "{path}");
        let mut stranger = world.browser();
        let refused = stranger.send(Method::POST, &path, None, Vec::new()).await;
        assert!([401, 403, 405].contains(&refused.status.as_u16()), "{path} {}", refused.status);
    }
    assert_eq!(listed(&mut ann, &org, "").await.len(), 2);
    assert_eq!(entries(&mut ann, &org).await, []);
}

#[tokio::test]
async fn refusals_are_passed_on_with_their_figures_and_change_nothing() {
    let world = World::new().await;
    let (org, group, [mut ann, _]) = two(&world).await;
    let full = Problem::new(Code::ActiveGroupLimitExceeded).with("limit", 3).with("active", 3);
    let path = format!("/api/groups/{group}/restore");
    let call = format!("POST /infra/groups/{group}/restore");
    world.script(&call, 429, serde_json::to_value(full).unwrap());
    let refused = ann.post(&path, &json!({})).await;
    assert_eq!(refused.refusal(), (429, "active_group_limit_exceeded"));
    assert_eq!((&refused.json["limit"], &refused.json["active"]), (&json!(3), &json!(3)));
    for code in [Code::SnapshotCorrupt, Code::ArchiveStoreUnavailable] {
        let (status, body) = problem(code);
        world.script(&call, status, body);
        assert_eq!(ann.post(&path, &json!({})).await.refusal(), (status, code.as_str()));
    }
    let unused = ann.group(&org, "Unused", None).await;
    let refused = ann.post(&format!("/api/groups/{unused}/archive"), &json!({})).await;
    assert_eq!(refused.refusal(), (409, "group_not_active"), "{}", refused.text);
    // What the refusal says of where the group stands is known from then on.
    let archived = Problem::new(Code::GroupNotActive).with("group_status", "archived");
    let archived = serde_json::to_value(archived).unwrap();
    world.script(&format!("POST /infra/groups/{group}/archive"), 409, archived);
    let refused = ann.post(&format!("/api/groups/{group}/archive"), &json!({})).await;
    assert_eq!(refused.refusal(), (409, "group_not_active"));
    assert_eq!(listed(&mut ann, &org, "&status=archived").await, [group.as_str()]);
    assert_eq!(entries(&mut ann, &org).await, []);
}

#[tokio::test]
async fn an_archive_that_takes_long_is_a_task_whose_progress_and_end_are_seen() {
    let world = World::new().await;
    let (org, group, [mut ann, mut bob]) = two(&world).await;
    world.script(&format!("POST /infra/groups/{group}/archive"), 202, task(&group, "running", 0));
    world.script(&format!("GET /infra/groups/{group}"), 200, record(&group, &org, "archiving"));
    let begun = ann.post(&format!("/api/groups/{group}/archive"), &json!({})).await;
    assert_eq!(begun.status, StatusCode::ACCEPTED);
    assert_eq!(begun.json["task"]["task_id"], "t1");
    let shown = bob.get(&format!("/api/groups/{group}")).await.json;
    assert_eq!((&shown["status"], &shown["task_id"]), (&json!("archiving"), &json!("t1")));
    world.script("GET /infra/tasks/t1", 200, task(&group, "running", 40));
    let how = bob.get(&format!("/api/groups/{group}/tasks/t1")).await;
    assert_eq!((&how.json["done"], &how.json["total"]), (&json!(40), &json!(100)));
    // A task of another group is none of this one's.
    world.script("GET /infra/tasks/t2", 200, task("other", "running", 1));
    let other = bob.get(&format!("/api/groups/{group}/tasks/t2")).await;
    assert_eq!(other.refusal(), (404, "task_not_found"));
    // Nobody asks, and it is known all the same.
    world.script(&format!("GET /infra/groups/{group}"), 200, record(&group, &org, "archived"));
    let known = async {
        while listed(&mut bob, &org, "&status=archived").await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), known).await.expect("the end is seen");
}

#[tokio::test]
async fn a_group_that_was_archived_by_itself_looks_the_same_once_it_is_opened_or_says_so() {
    let world = World::new().await;
    let (org, group, [mut ann, _]) = two(&world).await;
    world.script(&format!("GET /infra/groups/{group}"), 200, record(&group, &org, "archived"));
    let page = ann.get(&format!("/g/{group}")).await;
    assert!(page.text.contains("This group is archived."), "{}", page.text);
    assert_eq!(listed(&mut ann, &org, "&status=archived").await, [group.as_str()]);
    let id = GroupId::new(&group).unwrap();
    world.groups().activated(&id).await.unwrap();
    assert_eq!(listed(&mut ann, &org, "&status=archived").await, Vec::<String>::new());
    world.groups().stands(&id, GroupStatus::Archived).await.unwrap();
    assert_eq!(listed(&mut ann, &org, "&status=archived").await, [group.as_str()]);
    let workspace = ann.get(&format!("/o/{org}?status=archived")).await;
    assert!(workspace.text.contains("<span class=\"tag\">archived</span>"), "{}", workspace.text);
    let active = ann.get(&format!("/o/{org}?status=active")).await;
    assert!(active.text.contains("No group is active."), "{}", active.text);
}

#[tokio::test]
async fn what_a_group_has_used_is_shown_to_whoever_sees_it() {
    let world = World::new().await;
    let (org, group, [mut ann, mut bob]) = two(&world).await;
    let month = json!({"month": "2026-11", "runs": 2, "input_tokens": 1000, "output_tokens": 204,
        "cost_micro_usd": 1500, "cost_unknown": 1,
        "egress_bytes": 0, "active_secs": 60});
    let used = json!({"group_id": group, "months": [month]});
    world.script(&format!("GET /infra/groups/{group}/usage"), 200, used.clone());
    assert_eq!(bob.get(&format!("/api/groups/{group}/usage")).await.json, used);
    let unused = ann.group(&org, "Unused", Some(&[])).await;
    let path = format!("/api/groups/{unused}/usage");
    assert_eq!(ann.get(&path).await.json["months"], json!([]));
    assert_eq!(bob.get(&path).await.refusal(), (404, "group_not_found"));
}

#[tokio::test]
async fn whoever_looks_at_a_list_learns_soon_what_was_archived_or_restored_by_others() {
    let world = World::new().await;
    let (org, group, [mut ann, mut bob]) = two(&world).await;
    let listing = |groups: Value| json!({"groups": groups, "next": null});
    let found = record(&group, &org, "archived");
    world.script("GET /infra/groups", 200, listing(json!([found.clone()])));
    world.script(&format!("GET /infra/groups/{group}"), 200, found);
    let known = async {
        while listed(&mut bob, &org, "&status=archived").await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), known).await.expect("the list is compared");
    // Another process of the App, which has not looked yet.
    world.script("GET /infra/groups", 200, listing(json!([])));
    world.script(&format!("GET /infra/groups/{group}"), 200, record(&group, &org, "idle"));
    let other = world.second_app().await;
    let request = ann.request(Method::GET, &format!("/o/{org}"), None, Vec::new());
    let page = tower::ServiceExt::oneshot(other, request).await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    let known = async {
        while listed(&mut bob, &org, "&status=active").await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), known).await.expect("the list is compared");
    assert_eq!(listed(&mut ann, &org, "&status=archived").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_deleted_group_says_so_to_those_who_could_see_it_and_to_nobody_else() {
    let world = World::new().await;
    let (org, _, [mut ann, mut bob]) = two(&world).await;
    let group = ann.group(&org, "Between us", Some(&[])).await;
    world.activate(&group).await;
    world.script(&format!("DELETE /infra/groups/{group}"), 503, problem(Code::Unavailable).1);
    let root = format!("/api/groups/{group}");
    assert_eq!(ann.delete(&root).await.refusal(), (503, "unavailable"));
    assert_eq!(listed(&mut ann, &org, "").await.len(), 2, "nothing was changed");
    world.script(&format!("DELETE /infra/groups/{group}"), 202, task(&group, "running", 0));
    assert_eq!(ann.delete(&root).await.status, StatusCode::NO_CONTENT);
    for path in [root.clone(), format!("{root}/messages"), format!("{root}/members")] {
        assert_eq!(ann.get(&path).await.refusal(), (410, "group_deleted"), "{path}");
        assert_eq!(bob.get(&path).await.refusal(), (404, "group_not_found"), "{path}");
    }
    assert_eq!(ann.delete(&root).await.refusal(), (410, "group_deleted"));
    let page = ann.get(&format!("/g/{group}")).await;
    assert_eq!(page.status, StatusCode::GONE);
    assert!(page.text.contains("This group was deleted"), "{}", page.text);
    assert_eq!(bob.get(&format!("/g/{group}")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(listed(&mut ann, &org, "").await.len(), 1);
    assert_eq!(entries(&mut ann, &org).await, [("group.deleted".to_owned(), ann.id.clone())]);
    // One that an operator deleted is met in the same way.
    let other = ann.group(&org, "Elsewhere", None).await;
    world.activate(&other).await;
    world.script(&format!("GET /infra/groups/{other}"), 410, problem(Code::GroupDeleted).1);
    assert_eq!(bob.get(&format!("/g/{other}")).await.status, StatusCode::GONE);
    assert_eq!(listed(&mut ann, &org, "").await.len(), 1);
    // One that was never used leaves nothing but the same.
    let unused = ann.group(&org, "Unused", None).await;
    assert_eq!(ann.delete(&format!("/api/groups/{unused}")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ann.get(&format!("/api/groups/{unused}")).await.status, StatusCode::GONE);
}
