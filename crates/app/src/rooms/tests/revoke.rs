//! A user whose access is withdrawn hears nothing that comes later.

use convene_model::{
    Role,
    frame::{DetachReason, GroupFrame},
};
use serde_json::json;

use super::{
    client::Seen,
    world::{World, group_id},
};

#[tokio::test]
async fn a_revoked_user_is_dropped_before_anything_later_is_fanned_out() {
    for _ in 0..10 {
        let world = World::new().await;
        let mut gone = [world.attached("u1").await, world.attached("u1").await];
        let mut stays = world.attached("u2").await;
        // All of it waits on the link together, so that it is one batch.
        world.group.say("one");
        let (reason, user_id) = (DetachReason::Revoked, Some("u1".parse().unwrap()));
        world.group.broadcast(&GroupFrame::Detached { reason, user_id });
        world.group.say("two");
        assert_eq!(stays.events(2).await, [1, 2]);
        for client in &mut gone {
            assert_eq!(client.event().await, 1);
            let detached = json!({"type": "detached", "reason": "revoked", "user_id": "u1"});
            assert_eq!(client.frame().await, detached);
            assert_eq!(client.seen().await, Seen::Closed(4003));
        }
        stays.nothing_more().await;
    }
}

#[tokio::test]
async fn who_loses_access_is_dropped_and_the_group_is_told() {
    let world = World::new().await;
    let (mut gone, mut stays) = (world.attached("u1").await, world.attached("u2").await);
    world.workspace.set_role("u1", None);
    world.rooms.revoke(&group_id(), &"u1".parse().unwrap());
    assert_eq!(gone.frame().await["reason"], "revoked");
    assert_eq!(gone.seen().await, Seen::Closed(4003));
    world.group.until("the revocation", |group| group.counts().revocations == 1).await;
    let refused = world.post("u1", "m1", "let me in").await.unwrap_err();
    assert_eq!(refused.code.as_str(), "forbidden");
    world.group.say("on");
    assert_eq!(stays.event().await, 1);
}

#[tokio::test]
async fn who_has_another_role_comes_back_with_it() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    world.workspace.set_role("u1", Role::Admin);
    world.rooms.revoke(&group_id(), &"u1".parse().unwrap());
    assert_eq!(client.frame().await["reason"], "revoked");
    assert_eq!(client.seen().await, Seen::Closed(4003));
    world.advance(std::time::Duration::from_secs(1));
    world.attached("u1").await;
    assert!(world.group.roles().contains("admin"));
}

#[tokio::test]
async fn a_revocation_in_a_group_that_was_never_activated_is_no_fault() {
    let world = World::new().await;
    world.workspace.set_role("u1", None);
    world.rooms.revoke(&group_id(), &"u1".parse().unwrap());
    let mut client = world.client("u1").await;
    client.send(json!({"type": "attach", "ref": "a"})).await;
    assert_eq!(client.frame().await["code"], "forbidden");
}
