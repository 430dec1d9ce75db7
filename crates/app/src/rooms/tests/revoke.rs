//! A user whose access is withdrawn hears nothing that comes later.

use std::time::Duration;

use convene_model::{
    Role,
    frame::{DetachReason, GroupFrame},
};
use serde_json::json;

use super::{
    client::{Client, Seen},
    world::{World, group_id},
};
use crate::rooms::tuning::Tuning;

#[tokio::test]
async fn a_revoked_user_is_dropped_before_anything_later_is_fanned_out() {
    for _ in 0..10 {
        let world = World::new().await;
        let mut gone = [world.attached("u1").await, world.attached("u1").await];
        let mut stays = world.attached("u2").await;
        // All of it waits on the link together, so that it is one batch.
        world.workspace.set_role("u1", None);
        world.group.say("one");
        let (reason, user_id) = (DetachReason::Revoked, Some("u1".parse().unwrap()));
        world.group.broadcast(&GroupFrame::Detached { reason, user_id });
        world.group.say("two");
        assert_eq!(stays.events(2).await, [1, 2]);
        for client in &mut gone {
            assert_eq!(client.event().await, 1);
            let detached = json!({"type": "detached", "reason": "revoked"});
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

/// A pause in which the clock can be set.
fn patient() -> Tuning {
    Tuning { after_revocation: Duration::from_millis(200), ..World::quick() }
}

#[tokio::test]
async fn who_has_another_role_goes_on_with_it_and_misses_nothing() {
    let world = World::tuned(patient()).await;
    let mut client = world.attached("u1").await;
    world.workspace.set_role("u1", Role::Admin);
    world.rooms.revoke(&group_id(), &"u1".parse().unwrap());
    // A token of the second of the revocation is refused, and the attach is tried again.
    world.group.until("a refusal", |group| group.counts().attaches == 2).await;
    world.group.say("meanwhile");
    client.nothing_more().await;
    world.advance(Duration::from_secs(1));
    assert_eq!(client.event().await, 1);
    assert!(world.group.roles().contains("admin"));
    client.post("m1", "as an admin").await;
    assert_eq!(client.events(1).await, [2]);
    assert_eq!(client.frame().await["ref"], "ref-m1");
}

#[tokio::test]
async fn what_is_sent_amid_a_change_of_role_waits_or_may_be_sent_again() {
    let world = World::tuned(patient()).await;
    let mut client = world.attached("u1").await;
    world.workspace.set_role("u1", Role::Admin);
    world.rooms.revoke(&group_id(), &"u1".parse().unwrap());
    world.group.until("a refusal", |group| group.counts().attaches == 2).await;
    client.post("m1", "amid").await;
    Client::settle().await;
    world.advance(Duration::from_secs(1));
    assert_eq!(client.event().await, 1);
    assert_eq!(client.frame().await["ref"], "ref-m1");
}

#[tokio::test]
async fn a_raised_epoch_detaches_everybody_and_who_has_access_comes_back_with_a_new_token() {
    let world = World::new().await;
    let (mut stays, mut gone) = (world.attached("u1").await, world.attached("u2").await);
    world.workspace.set_role("u2", None);
    world.group.say("before");
    world.group.raise_epoch(2);
    world.group.say("after");
    assert_eq!(stays.events(2).await, [1, 2]);
    assert_eq!(gone.event().await, 1);
    assert_eq!(gone.frame().await["reason"], "revoked");
    assert_eq!(gone.seen().await, Seen::Closed(4003));
    assert_eq!(world.post("u1", "m1", "with a new token").await.unwrap().seq, Some(3));
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

#[tokio::test]
async fn who_may_not_see_the_group_any_more_is_dropped_also_when_the_groups_word_is_lost() {
    let world = World::new().await;
    let (mut gone, mut stays) = (world.attached("u1").await, world.attached("u2").await);
    let mut also_gone = world.attached("u3").await;
    world.rooms.recheck_group(&group_id()).await.unwrap();
    gone.nothing_more().await;
    world.workspace.set_role("u1", None);
    world.rooms.recheck_user(&"u1".parse().unwrap()).await.unwrap();
    assert_eq!(gone.frame().await["reason"], "revoked");
    assert_eq!(gone.seen().await, Seen::Closed(4003));
    world.workspace.set_role("u3", None);
    world.rooms.recheck_group(&group_id()).await.unwrap();
    assert_eq!(also_gone.frame().await["reason"], "revoked");
    assert_eq!(also_gone.seen().await, Seen::Closed(4003));
    stays.nothing_more().await;
    assert_eq!(world.group.counts().revocations, 0);
}

#[tokio::test]
async fn sockets_end_with_the_proof_that_opened_them_and_no_others_do() {
    let world = World::new().await;
    let (mut first, mut other) = (world.attached("u1").await, world.attached("u2").await);
    let user = "u1".parse().unwrap();
    assert!(world.rooms.has_sockets(&user));
    world.rooms.keep_sockets(&user, &["u1".to_owned()].into());
    first.nothing_more().await;
    world.rooms.keep_sockets(&user, &["another".to_owned()].into());
    assert_eq!(first.seen().await, Seen::Closed(4003));
    other.nothing_more().await;
    world.group.until("the leave", |group| group.conns() == 1).await;
}
