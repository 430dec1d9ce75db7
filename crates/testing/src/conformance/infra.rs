//! The infra API as an outside app with its own key sees it.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Portal, Target, portal::attach, unique};
use crate::forge::{Forged, Identity, OF_BOUND_TYPES, OF_EVERY_TYPE};

/// An outside app with an activated group: app, organization, group.
async fn activated(target: &Target) -> (Portal, String, String) {
    let portal = Portal::new(&target.infra, &target.portal);
    let (org, group) = (unique("o"), unique("g"));
    let activation = portal.activate(&group, &org).await;
    assert_eq!(activation["status"], "active", "{activation}");
    (portal, org, group)
}

pub(super) async fn an_outside_app_speaks_for_its_users_over_one_upstream(target: &Target) {
    let (portal, org, group) = activated(target).await;
    let record = portal.done("GET", &format!("/infra/groups/{group}"), Value::Null).await;
    assert_eq!(record["org_id"], org.as_str());

    let (ana, ben) =
        (portal.routing_token(&group, "ana").await, portal.routing_token(&group, "ben").await);
    let mut upstream = portal.upstream(&group, &ana).await.expect("an upstream");
    let attached = attach(&mut upstream, "ana", &ana).await;
    assert_eq!(attached["type"], "attached", "{attached}");
    assert_eq!(attach(&mut upstream, "ben", &ben).await["type"], "attached");
    for (user, id) in [("ana", "m1"), ("ben", "m2")] {
        let post =
            json!({"type": "post", "ref": id, "conn": user, "message_id": id, "text": "Hello"});
        upstream.send(&post).await;
        let (mut ok, mut event) = (Value::Null, Value::Null);
        while ok.is_null() || event.is_null() {
            let frame = upstream.next().await.expect("the upstream stays open");
            if frame["ref"] == id {
                assert_eq!((&frame["type"], &frame["conn"]), (&json!("ok"), &json!(user)));
                ok = frame;
            } else if frame["kind"] == "message.posted" {
                assert_eq!(frame["author"], json!({"kind": "user", "id": user}));
                event = frame;
            }
        }
        assert_eq!(ok["seq"], event["seq"]);
    }
    let (status, page) = portal.history(&group, &ana).await;
    assert_eq!(status, 200, "{page}");
    assert_eq!(page["messages"].as_array().expect("messages").len(), 2);
}

pub(super) async fn a_repeated_mutation_is_done_once(target: &Target) {
    let (portal, _, group) = activated(target).await;
    let (path, key) = (format!("/infra/groups/{group}/revoke"), unique("k"));
    let revoke = |user: &'static str, key: String| {
        let (portal, path) = (portal.clone(), path.clone());
        async move {
            let body = json!({"user_id": user}).to_string();
            let token = portal.token("POST", &path, &body).encode();
            let headers = [("idempotency-key", key.as_str())];
            portal.send("POST", &path, &body, Some(&token), &headers).await
        }
    };
    let first = revoke("ben", key.clone()).await;
    assert!(first.0 < 300, "{}", first.1);
    // Tokens count in whole seconds: one of the next second is later than the revocation.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let ben = portal.routing_token(&group, "ben").await;
    for _ in 0..4 {
        assert_eq!(revoke("ben", key.clone()).await, first);
    }
    assert_eq!(portal.history(&group, &ben).await.0, 200, "nothing was revoked again");
    let (status, problem) = revoke("ana", key).await;
    assert_eq!((status, &problem["code"]), (422, &json!("idempotency_key_reused")));
    assert!(revoke("ben", unique("k")).await.0 < 300);
    assert_eq!(portal.history(&group, &ben).await.0, 403, "another key is another revocation");
}

pub(super) async fn history_needs_the_routing_token_of_a_user(target: &Target) {
    let (portal, _, group) = activated(target).await;
    let (_, _, other) = activated(target).await;
    let ana = portal.routing_token(&group, "ana").await;
    assert_eq!(portal.history(&group, &ana).await.0, 200);
    assert_eq!(portal.history(&group, "nonsense").await.0, 401);
    let elsewhere = portal.routing_token(&other, "ana").await;
    assert_eq!(portal.history(&group, &elsewhere).await.0, 403);
    assert!(portal.upstream(&group, &elsewhere).await.is_err());
    // One that this app made itself.
    let forged =
        Forged::routing(&target.portal, convene_model::Timestamp::from_secs(4_000_000_000));
    assert_eq!(portal.history(&group, &forged.encode()).await.0, 401);
    // A call that is no upgrade is told so, once it is known who asks.
    let path = format!("/groups/{group}/ws");
    let token = portal.token("GET", &path, "").encode();
    let headers = [("x-routing-token", ana.as_str())];
    let (status, problem) = portal.send("GET", &path, "", Some(&token), &headers).await;
    assert_eq!((status, &problem["code"]), (426, &json!("upgrade_required")));
}

pub(super) async fn a_revoked_user_is_detached_and_refused(target: &Target) {
    let (portal, _, group) = activated(target).await;
    let (ana, ben) =
        (portal.routing_token(&group, "ana").await, portal.routing_token(&group, "ben").await);
    let mut upstream = portal.upstream(&group, &ana).await.expect("an upstream");
    attach(&mut upstream, "ana", &ana).await;
    attach(&mut upstream, "ben", &ben).await;
    let path = format!("/infra/groups/{group}/revoke");
    portal.done("POST", &path, json!({"user_id": "ben"})).await;
    let detached = upstream.until(|frame| frame["type"] == "detached").await;
    assert_eq!(detached["user_id"], "ben", "{detached}");
    assert!(detached["conn"].is_null(), "it is for everybody who has a connection of that user");

    let (status, problem) = portal.history(&group, &ben).await;
    assert_eq!((status, &problem["code"]), (403, &json!("access_revoked")));
    let again = attach(&mut upstream, "ben", &ben).await;
    assert_eq!(again["code"], "access_revoked", "{again}");
    assert_eq!(portal.history(&group, &ana).await.0, 200, "others are not concerned");
}

pub(super) async fn a_token_with_any_fault_is_refused_and_changes_nothing(target: &Target) {
    let (portal, _, group) = activated(target).await;
    let by: &Identity = &target.portal;
    let path = format!("/infra/groups/{group}/config");
    let body = json!({"version": 9, "agents": []}).to_string();
    for fault in OF_EVERY_TYPE.iter().chain(OF_BOUND_TYPES) {
        let token = fault.apply(&portal.token("PUT", &path, &body), by, &target.rival);
        let (status, problem) = portal.send("PUT", &path, &body, token.as_deref(), &[]).await;
        assert_eq!(status, 401, "{fault:?}: {problem}");
        assert_eq!(problem["code"], fault.code(), "{fault:?}: {problem}");
    }
    // A token that was used may be refused or, by another process, found to repeat what was done;
    // it opens nothing else.
    let token = portal.token("GET", &format!("/infra/groups/{group}"), "").encode();
    let path = format!("/infra/groups/{group}");
    assert_eq!(portal.send("GET", &path, "", Some(&token), &[]).await.0, 200);
    let (status, _) = portal.send("GET", &path, "", Some(&token), &[]).await;
    assert!(status == 401 || status == 200, "{status}");
    for other in ["/infra/orgs/o/limits", "/infra/groups/another"] {
        assert_eq!(portal.send("GET", other, "", Some(&token), &[]).await.0, 401, "{other}");
    }
    // The configuration that none of them could set is still free.
    let ana = portal.routing_token(&group, "ana").await;
    let mut upstream = portal.upstream(&group, &ana).await.expect("an upstream");
    let attached = attach(&mut upstream, "ana", &ana).await;
    assert_eq!(attached["state"]["agents"], json!([]), "{attached}");
}

pub(super) async fn an_organization_belongs_to_the_app_that_first_used_it(target: &Target) {
    let (_, org, group) = activated(target).await;
    let rival = Portal::new(&target.infra, &target.rival);
    for (method, path, body) in [
        ("GET", format!("/infra/groups/{group}"), Value::Null),
        ("POST", format!("/infra/groups/{group}/revoke"), json!({"user_id": "ana"})),
        ("POST", "/infra/groups".to_owned(), json!({"group_id": unique("g"), "org_id": org})),
        ("GET", format!("/infra/orgs/{org}/limits"), Value::Null),
    ] {
        let (status, problem) = rival.call(method, &path, body).await;
        assert_eq!((status, &problem["code"]), (404, &json!("group_not_found")), "{path}");
    }
    // Limits are an operator's.
    let (status, _) = rival
        .call("PUT", &format!("/infra/orgs/{org}/limits"), json!({"max_active_groups": 1}))
        .await;
    assert!(status == 403 || status == 404, "{status}");
}

pub(super) async fn a_frame_for_nobody_and_one_that_is_too_large_leave_the_upstream_as_it_was(
    target: &Target,
) {
    let (portal, _, group) = activated(target).await;
    let ana = portal.routing_token(&group, "ana").await;
    let mut upstream = portal.upstream(&group, &ana).await.expect("an upstream");
    attach(&mut upstream, "ana", &ana).await;
    let post = |conn: &str, text: String| json!({"type": "post", "ref": "r", "conn": conn, "message_id": unique("m"), "text": text});
    for (frame, code) in [
        (post("nobody", "Hello".to_owned()), "not_attached"),
        (json!({"type": "dance", "ref": "r", "conn": "ana"}), "unknown_type"),
        (post("ana", "x".repeat(33 * 1024)), "too_large"),
        // The whole frame is above the limit: the group refuses it, the upstream stays.
        (post("ana", "x".repeat(64 * 1024)), "too_large"),
    ] {
        upstream.send(&frame).await;
        let answer = upstream.until(|frame| frame["type"] == "error").await;
        assert_eq!(answer["code"], code, "{answer}");
    }
    upstream.send(&post("ana", "Still here".to_owned())).await;
    let event = upstream.until(|frame| frame["kind"] == "message.posted").await;
    assert_eq!(event["text"], "Still here");
}
