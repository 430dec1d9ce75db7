//! Workspaces: who belongs to them, who may do what, invitations, agents, the audit.

use std::time::Duration;

use convene_app::{agents::MAX_AGENTS_PER_ORG, validate::MAX_SYSTEM_PROMPT_BYTES};
use convene_model::limits::MAX_NAME_CHARS;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Client, World};

/// An owner, an admin, a member and a stranger, with the workspace of the first three.
async fn team(world: &World) -> (String, [Client<'_>; 4]) {
    let mut owner = world.person("Owner").await;
    let mut admin = world.person("Admin").await;
    let mut member = world.person("Member").await;
    let stranger = world.person("Stranger").await;
    let org = owner.org("Works").await;
    owner.bring(&org, &mut admin).await;
    owner.bring(&org, &mut member).await;
    assert_eq!(set_role(&mut owner, &org, &admin.id, "admin").await, (204, String::new()));
    (org, [owner, admin, member, stranger])
}

async fn set_role(client: &mut Client<'_>, org: &str, user: &str, role: &str) -> (u16, String) {
    let path = format!("/api/orgs/{org}/members/{user}");
    let reply = client.patch(&path, &json!({"role": role})).await;
    (reply.status.as_u16(), reply.code().to_owned())
}

async fn remove(client: &mut Client<'_>, org: &str, user: &str) -> (u16, String) {
    let reply = client.delete(&format!("/api/orgs/{org}/members/{user}")).await;
    (reply.status.as_u16(), reply.code().to_owned())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn who_makes_a_workspace_owns_it_and_it_begins_with_one_agent() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let made = ada.post("/api/orgs", &json!({"name": "  Harbour Lab "})).await;
    assert_eq!(made.json["name"], "Harbour Lab");
    assert_eq!(made.json["role"], "owner");
    let org = made.json["org_id"].as_str().unwrap();
    let agents = ada.get(&format!("/api/orgs/{org}/agents")).await;
    assert_eq!(agents.json.as_array().unwrap().len(), 1);
    let guide = &agents.json[0];
    assert_eq!((&guide["name"], &guide["provider_id"]), (&json!("Guide"), &Value::Null));
    assert_eq!((&guide["is_default"], &guide["trigger"]), (&json!(true), &json!("mention")));
    assert_eq!(ada.get("/api/me").await.json["orgs"][0]["org_id"], org);
}

#[tokio::test]
async fn a_workspaces_name_is_held_to_its_limit() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let name = |count: usize| json!({"name": "ä".repeat(count)});
    assert_eq!(ada.post("/api/orgs", &name(MAX_NAME_CHARS)).await.status, StatusCode::CREATED);
    let reply = ada.post("/api/orgs", &name(MAX_NAME_CHARS + 1)).await;
    assert_eq!(
        (reply.refusal(), &reply.json["field"]),
        ((422, "validation_failed"), &json!("name"))
    );
    assert_eq!(ada.post("/api/orgs", &name(0)).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn each_call_is_open_to_whom_the_matrix_says() {
    let world = World::new().await;
    let (org, mut people) = team(&world).await;
    let agent = people[0].get(&format!("/api/orgs/{org}/agents")).await.json[0]["agent_id"].clone();
    let agent = agent.as_str().unwrap();
    let root = format!("/api/orgs/{org}");
    let provider = json!({"name": "P", "base_url": "http://localhost/v1"});
    let made = people[0].post(&format!("{root}/providers"), &provider).await;
    let provider = made.json["provider_id"].as_str().unwrap().to_owned();
    // Statuses for owner, admin, member, stranger and somebody who is not signed in.
    let everybody = [200, 200, 200, 404, 401];
    let managers = |ok| [ok, ok, 403, 404, 401];
    let none = json!({});
    for (method, path, body, expected) in [
        (Method::GET, format!("{root}/members"), &none, everybody),
        (Method::GET, format!("{root}/agents"), &none, everybody),
        (Method::GET, format!("{root}/providers"), &none, everybody),
        (Method::GET, format!("/api/groups?org_id={org}"), &none, everybody),
        (Method::GET, format!("{root}/audit"), &none, managers(200)),
        (Method::POST, format!("{root}/invites"), &none, managers(201)),
        (Method::GET, format!("{root}/invites"), &none, managers(200)),
        (Method::DELETE, format!("{root}/invites/none"), &none, managers(404)),
        (Method::PATCH, root.clone(), &json!({"name": "Works"}), managers(200)),
        // Refused by what is asked for, once it is known that the caller may ask.
        (Method::POST, format!("{root}/agents"), &json!({"name": "9"}), managers(422)),
        (Method::PATCH, format!("{root}/agents/{agent}"), &none, managers(200)),
        (Method::DELETE, format!("{root}/agents/none"), &none, managers(404)),
        (
            Method::POST,
            format!("{root}/providers"),
            &json!({"name": "P", "base_url": ""}),
            managers(422),
        ),
        (Method::PATCH, format!("{root}/providers/{provider}"), &none, managers(200)),
        (Method::DELETE, format!("{root}/providers/none"), &none, managers(404)),
        (
            Method::POST,
            "/api/groups".to_owned(),
            &json!({"org_id": org, "title": "T"}),
            [201, 201, 201, 404, 401],
        ),
    ] {
        for (person, expected) in people.iter_mut().zip(expected) {
            let kind = Some("application/json");
            let reply = person.send(method.clone(), &path, kind, serde_json::to_vec(body).unwrap());
            assert_eq!(reply.await.status.as_u16(), expected, "{method} {path}");
        }
        let reply = world.browser().json(method.clone(), &path, body).await;
        assert_eq!(reply.status.as_u16(), expected[4], "{method} {path}, not signed in");
    }
}

#[tokio::test]
async fn roles_are_given_by_owners_and_up_to_admin_by_admins() {
    let world = World::new().await;
    let (org, [mut owner, mut admin, mut member, mut stranger]) = team(&world).await;
    let (owner_id, admin_id, member_id) = (owner.id.clone(), admin.id.clone(), member.id.clone());
    assert_eq!(set_role(&mut member, &org, &member_id, "admin").await, refused(403, "forbidden"));
    assert_eq!(set_role(&mut member, &org, &admin_id, "member").await, refused(403, "forbidden"));
    assert_eq!(set_role(&mut admin, &org, &member_id, "owner").await, refused(403, "forbidden"));
    assert_eq!(set_role(&mut admin, &org, &owner_id, "member").await, refused(403, "forbidden"));
    assert_eq!(set_role(&mut stranger, &org, &member_id, "admin").await, refused(404, "not_found"));
    let stranger_id = stranger.id.clone();
    assert_eq!(set_role(&mut owner, &org, &stranger_id, "admin").await, refused(404, "not_found"));
    let agent = refused(422, "validation_failed");
    assert_eq!(set_role(&mut owner, &org, &member_id, "agent").await, agent);
    assert_eq!(
        set_role(&mut owner, &org, &member_id, "god").await,
        refused(400, "invalid_request")
    );

    assert_eq!(set_role(&mut admin, &org, &member_id, "admin").await, refused(204, ""));
    assert_eq!(set_role(&mut admin, &org, &member_id, "member").await, refused(204, ""));
    assert_eq!(set_role(&mut owner, &org, &admin_id, "owner").await, refused(204, ""));
}

#[tokio::test]
async fn the_last_owner_can_neither_leave_nor_step_down() {
    let world = World::new().await;
    let (org, [mut owner, mut admin, ..]) = team(&world).await;
    let (owner_id, admin_id) = (owner.id.clone(), admin.id.clone());
    for role in ["admin", "member"] {
        assert_eq!(set_role(&mut owner, &org, &owner_id, role).await, refused(409, "conflict"));
    }
    assert_eq!(remove(&mut owner, &org, &owner_id).await, refused(409, "conflict"));
    assert_eq!(owner.get(&format!("/api/orgs/{org}/audit")).await.status, StatusCode::OK);

    assert_eq!(set_role(&mut owner, &org, &admin_id, "owner").await, refused(204, ""));
    assert_eq!(remove(&mut owner, &org, &owner_id).await, refused(204, ""));
    assert_eq!(remove(&mut admin, &org, &admin_id).await, refused(409, "conflict"));
}

#[tokio::test]
async fn two_owners_who_step_down_at_once_leave_one() {
    let world = World::new().await;
    let (org, [mut owner, mut admin, ..]) = team(&world).await;
    let (owner_id, admin_id) = (owner.id.clone(), admin.id.clone());
    set_role(&mut owner, &org, &admin_id, "owner").await;
    let (a, b) = tokio::join!(
        set_role(&mut owner, &org, &owner_id, "member"),
        set_role(&mut admin, &org, &admin_id, "member"),
    );
    let mut statuses = [a.0, b.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 409]);
}

#[tokio::test]
async fn who_is_removed_sees_nothing_any_more() {
    let world = World::new().await;
    let (org, [mut owner, mut admin, mut member, _]) = team(&world).await;
    let (owner_id, member_id) = (owner.id.clone(), member.id.clone());
    let group = owner.group(&org, "Room", None).await;
    assert_eq!(remove(&mut member, &org, &owner_id).await, refused(403, "forbidden"));
    assert_eq!(remove(&mut admin, &org, &owner_id).await, refused(403, "forbidden"));
    assert_eq!(remove(&mut admin, &org, &member_id).await, refused(204, ""));
    let path = format!("/api/orgs/{org}/members");
    assert_eq!(member.get(&path).await.refusal(), (404, "not_found"));
    let path = format!("/api/groups/{group}");
    assert_eq!(member.get(&path).await.refusal(), (404, "group_not_found"));
    assert_eq!(remove(&mut admin, &org, &member_id).await, refused(404, "not_found"));
}

#[tokio::test]
async fn everybody_may_leave() {
    let world = World::new().await;
    let (org, [_, _, mut member, _]) = team(&world).await;
    let id = member.id.clone();
    assert_eq!(remove(&mut member, &org, &id).await, refused(204, ""));
    assert_eq!(member.get("/api/me").await.json["orgs"], json!([]));
}

#[tokio::test]
async fn a_removal_or_another_role_is_told_for_each_activated_group_that_it_concerns() {
    let world = World::new().await;
    let (org, [mut owner, admin, member, _]) = team(&world).await;
    let open = owner.group(&org, "Open", None).await;
    let asleep = owner.group(&org, "Never used", None).await;
    let theirs = owner.group(&org, "Private", Some(&[&member.id])).await;
    let others = owner.group(&org, "Private too", Some(&[&admin.id])).await;
    for group in [&open, &theirs, &others] {
        world.activate(group).await;
    }
    let revoked = |group: &str| {
        format!("POST /infra/groups/{group}/revoke {{\"user_id\":\"{}\"}}", member.id)
    };
    let mut expected = [revoked(&open), revoked(&theirs)];
    expected.sort();
    set_role(&mut owner, &org, &member.id, "admin").await;
    let mut calls = world.calls(2).await;
    calls.sort();
    assert_eq!(calls, expected);
    set_role(&mut owner, &org, &member.id, "admin").await;
    remove(&mut owner, &org, &member.id).await;
    let mut calls = world.calls(2).await;
    calls.sort();
    assert_eq!(calls, expected, "and nothing for {asleep}, nor for a role that stays");
}

#[tokio::test]
async fn an_invite_works_once() {
    let world = World::new().await;
    let mut owner = world.person("Owner").await;
    let mut first = world.person("First").await;
    let mut second = world.person("Second").await;
    let org = owner.org("Works").await;
    let made = owner.post(&format!("/api/orgs/{org}/invites"), &json!({})).await;
    let token = made.json["token"].as_str().unwrap();
    assert_eq!(made.json["url"], format!("http://convene.test/invite/{token}"));
    let path = format!("/api/invites/{token}");
    let own = owner.post(&path, &json!({})).await;
    assert_eq!(own.json["org_id"], org, "a member leaves the link as it is");
    assert_eq!(first.post(&path, &json!({})).await.json["org_id"], org);
    assert_eq!(second.post(&path, &json!({})).await.refusal(), (410, "gone"));
    assert_eq!(second.get("/api/me").await.json["orgs"], json!([]));
    let members = owner.get(&format!("/api/orgs/{org}/members")).await;
    assert_eq!(members.json[1]["role"], "member");
    assert_eq!(second.post("/api/invites/nonsense", &json!({})).await.refusal(), (410, "gone"));
}

#[tokio::test]
async fn of_many_who_open_one_link_at_once_one_joins() {
    let world = World::new().await;
    let mut owner = world.person("Owner").await;
    let org = owner.org("Works").await;
    let made = owner.post(&format!("/api/orgs/{org}/invites"), &json!({})).await;
    let path = format!("/api/invites/{}", made.json["token"].as_str().unwrap());
    let mut guests = Vec::new();
    for n in 0..6 {
        guests.push(world.person(&format!("Guest{n}")).await);
    }
    let joined = guests.iter_mut().map(|guest| {
        let path = path.clone();
        async move { guest.post(&path, &json!({})).await.status.as_u16() }
    });
    let mut statuses = futures_util::future::join_all(joined).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 410, 410, 410, 410, 410]);
    assert_eq!(world.rows("org_members").await, 2);
}

#[tokio::test]
async fn an_invite_ends_after_seven_days() {
    let world = World::new().await;
    let mut owner = world.person("Owner").await;
    let mut guest = world.person("Guest").await;
    let org = owner.org("Works").await;
    let week = Duration::from_secs(7 * 24 * 60 * 60);
    let made = owner.post(&format!("/api/orgs/{org}/invites"), &json!({})).await;
    assert_eq!(made.json["expires_at"], (world.now() + week).millis());
    let path = format!("/api/invites/{}", made.json["token"].as_str().unwrap());
    world.pass(week);
    assert_eq!(guest.post(&path, &json!({})).await.refusal(), (410, "gone"));
    let made = owner.post(&format!("/api/orgs/{org}/invites"), &json!({})).await;
    let path = format!("/api/invites/{}", made.json["token"].as_str().unwrap());
    world.pass(week - Duration::from_millis(1));
    assert_eq!(guest.post(&path, &json!({})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_may_no_longer_invite_cannot_come_back_by_an_own_link() {
    for removed in [true, false] {
        let world = World::new().await;
        let (org, [mut owner, mut admin, _, mut stranger]) = team(&world).await;
        let made = admin.post(&format!("/api/orgs/{org}/invites"), &json!({})).await;
        let link = format!("/api/invites/{}", made.json["token"].as_str().unwrap());
        let id = admin.id.clone();
        let done = match removed {
            true => remove(&mut owner, &org, &id).await,
            false => set_role(&mut owner, &org, &id, "member").await,
        };
        assert_eq!(done, refused(204, ""));
        assert_eq!(stranger.post(&link, &json!({})).await.refusal(), (410, "gone"));
    }
}

#[tokio::test]
async fn the_audit_says_who_did_what() {
    let world = World::new().await;
    let (org, [mut owner, admin, member, _]) = team(&world).await;
    remove(&mut owner, &org, &member.id).await;
    let audit = owner.get(&format!("/api/orgs/{org}/audit")).await;
    let entries: Vec<_> = audit.json.as_array().unwrap().iter().rev().collect();
    let actions: Vec<_> = entries.iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        [
            "invite.made",
            "invite.accepted",
            "invite.made",
            "invite.accepted",
            "member.role_changed",
            "member.removed"
        ]
    );
    assert_eq!(entries[1]["actor_id"], admin.id);
    assert_eq!(entries[4]["detail"], json!({"from": "member", "to": "admin"}));
    assert_eq!(entries[5]["subject"], member.id);
    let before = entries[2]["audit_id"].as_str().unwrap();
    let page = owner.get(&format!("/api/orgs/{org}/audit?before={before}")).await;
    assert_eq!(page.json.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_agent_is_made_changed_and_deleted() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let path = format!("/api/orgs/{org}/agents");
    let made = ada.post(&path, &json!({"name": "Critic"})).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(made.json["is_default"], false);
    let one = format!("{path}/{}", made.json["agent_id"].as_str().unwrap());
    let change = json!({"system_prompt": "Be kind.", "trigger": "auto", "is_default": true});
    let changed = ada.patch(&one, &change).await;
    assert_eq!(changed.json["name"], "Critic");
    assert_eq!(changed.json["system_prompt"], "Be kind.");
    assert_eq!(ada.get(&path).await.json[1], changed.json);
    assert_eq!(ada.delete(&one).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ada.get(&path).await.json.as_array().unwrap().len(), 1);
    assert_eq!(ada.delete(&one).await.refusal(), (404, "not_found"));
    assert_eq!(ada.patch(&one, &change).await.refusal(), (404, "not_found"));
    let again = ada.post(&path, &json!({"name": "Critic"})).await;
    assert_eq!(again.status, StatusCode::CREATED, "the name is free again");
}

#[tokio::test]
async fn agents_are_told_apart_by_names_that_can_be_mentioned() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let path = format!("/api/orgs/{org}/agents");
    for name in ["guide", "GUIDE"] {
        let reply = ada.post(&path, &json!({"name": name})).await;
        assert_eq!(
            (reply.refusal(), &reply.json["field"]),
            ((409, "already_exists"), &json!("name"))
        );
    }
    for name in ["", "two words", "9lives", "a@b"] {
        let reply = ada.post(&path, &json!({"name": name})).await;
        assert_eq!(reply.refusal(), (422, "validation_failed"), "{name}");
    }
    let other = ada.org("Other").await;
    let reply = ada.post(&format!("/api/orgs/{other}/agents"), &json!({"name": "Critic"})).await;
    let foreign = reply.json["agent_id"].as_str().unwrap();
    let reply = ada.patch(&format!("{path}/{foreign}"), &json!({"name": "Mine"})).await;
    assert_eq!(reply.refusal(), (404, "not_found"));
    let made = ada.post(&path, &json!({"name": "Critic"})).await;
    let one = format!("{path}/{}", made.json["agent_id"].as_str().unwrap());
    let reply = ada.patch(&one, &json!({"name": "gUIDE"})).await;
    assert_eq!(reply.refusal(), (409, "already_exists"));
    let reply = ada.patch(&one, &json!({"name": "critic"})).await;
    assert_eq!(reply.status, StatusCode::OK, "its own name in another case");
}

#[tokio::test]
async fn an_agents_configuration_is_held_to_its_limits() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let path = format!("/api/orgs/{org}/agents");
    let body = |name: &str, count| json!({"name": name, "system_prompt": "x".repeat(count)});
    let reply = ada.post(&path, &body("A", MAX_SYSTEM_PROMPT_BYTES)).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    let reply = ada.post(&path, &body("B", MAX_SYSTEM_PROMPT_BYTES + 1)).await;
    assert_eq!(reply.json["field"], "system_prompt");
    let reply = ada.post(&path, &json!({"name": "C", "provider_id": "none", "model": "m"})).await;
    assert_eq!(reply.json["field"], "provider_id");
    let reply = ada.post(&path, &json!({"name": "C", "colour": "red"})).await;
    assert_eq!(reply.refusal(), (400, "invalid_request"));
    for n in 2..MAX_AGENTS_PER_ORG {
        let reply = ada.post(&path, &json!({"name": format!("a{n}")})).await;
        assert_eq!(reply.status, StatusCode::CREATED);
    }
    let reply = ada.post(&path, &json!({"name": "too-many"})).await;
    assert_eq!(reply.refusal(), (422, "validation_failed"));
}

#[tokio::test]
async fn open_invites_are_listed_and_taken_back() {
    let world = World::new().await;
    let (org, [mut owner, mut admin, _, mut stranger]) = team(&world).await;
    let path = format!("/api/orgs/{org}/invites");
    let kept = owner.post(&path, &json!({})).await.json;
    let taken_back = admin.post(&path, &json!({})).await;
    assert_eq!(owner.post(&path, &json!({})).await.status, StatusCode::CREATED);
    let used = owner.post(&path, &json!({})).await.json;
    let token = used["token"].as_str().unwrap();
    assert_eq!(stranger.post(&format!("/api/invites/{token}"), &json!({})).await.status, 200);
    let listed = owner.get(&path).await;
    assert_eq!(listed.json.as_array().unwrap().len(), 3, "{}", listed.text);
    assert!(!listed.text.contains(kept["token"].as_str().unwrap()));
    let id = taken_back.json["invite_id"].as_str().unwrap();
    assert_eq!(owner.delete(&format!("{path}/{id}")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(owner.delete(&format!("{path}/{id}")).await.refusal(), (404, "not_found"));
    let used = used["invite_id"].as_str().unwrap();
    assert_eq!(owner.delete(&format!("{path}/{used}")).await.refusal(), (404, "not_found"));
    let listed = owner.get(&path).await.json;
    assert!(listed.as_array().unwrap().iter().all(|invite| invite["invite_id"] != id));
    let mut late = world.person("Late").await;
    let token = taken_back.json["token"].as_str().unwrap();
    let refused = late.post(&format!("/api/invites/{token}"), &json!({})).await;
    assert_eq!(refused.refusal(), (410, "gone"));
    world.pass(Duration::from_secs(7 * 24 * 60 * 60));
    assert_eq!(owner.get(&path).await.json, json!([]));
    let audit = owner.get(&format!("/api/orgs/{org}/audit")).await.text;
    assert!(audit.contains("invite.revoked"));
}

#[tokio::test]
async fn a_workspace_is_renamed_and_the_audit_says_by_whom() {
    let world = World::new().await;
    let (org, [mut owner, mut admin, ..]) = team(&world).await;
    let path = format!("/api/orgs/{org}");
    let renamed = admin.patch(&path, &json!({"name": " Harbour "})).await;
    assert_eq!(
        (&renamed.json["name"], &renamed.json["role"]),
        (&json!("Harbour"), &json!("admin"))
    );
    assert_eq!(owner.get("/api/me").await.json["orgs"][0]["name"], "Harbour");
    let refused = owner.patch(&path, &json!({"name": ""})).await;
    assert_eq!(refused.refusal(), (422, "validation_failed"));
    let entry = owner.get(&format!("/api/orgs/{org}/audit")).await.json[0].clone();
    assert_eq!((&entry["action"], &entry["actor_id"]), (&json!("org.renamed"), &json!(admin.id)));
    assert_eq!(entry["detail"], json!({"from": "Works", "to": "Harbour"}));
}
