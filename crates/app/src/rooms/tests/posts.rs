//! Posts over HTTP and pages of history.

use std::time::Duration;

use convene_model::{Code, UserId, history::HistoryQuery};

use super::world::{World, group_id};
use crate::rooms::{NO_HISTORY, WithHtml, tuning::Tuning};

#[tokio::test]
async fn a_post_without_a_socket_activates_the_group_and_is_answered_when_durable() {
    let world = World::new().await;
    let accepted = world.post("u1", "m1", "hello").await.unwrap();
    assert_eq!((accepted.seq, accepted.message_id.clone()), (Some(1), Some("m1".parse().unwrap())));
    let again = world.post("u1", "m1", "hello").await.unwrap();
    assert_eq!(again, accepted, "a repeat is the same post");
    assert_eq!(world.group.head(), 1);
    assert_eq!(world.group.counts().connects, 1, "the upstream is kept");
    world.group.until("the detach", |group| group.conns() == 0).await;
}

#[tokio::test]
async fn a_post_is_heard_on_the_sockets() {
    let world = World::new().await;
    let mut client = world.attached("u2").await;
    world.post("u1", "m1", "hello").await.unwrap();
    assert_eq!(client.event().await, 1);
    client.nothing_more().await;
}

#[tokio::test]
async fn a_refusal_is_the_groups_own() {
    let world = World::new().await;
    let refused = world.post("u1", "m1", "refuse me").await.unwrap_err();
    assert_eq!(refused.code, Code::ValidationFailed);
    world.group.refuse_attaches(&[Code::StaleEpoch]);
    world.post("u1", "m2", "with a new token").await.unwrap();
    world.group.refuse_attaches(&[Code::StaleEpoch, Code::StaleEpoch]);
    let refused = world.post("u1", "m3", "with two bad ones").await.unwrap_err();
    assert_eq!(refused.code, Code::StaleEpoch);
    let refused = world.post("nobody", "m4", "hello").await.unwrap_err();
    assert_eq!(refused.code, Code::Forbidden);
}

#[tokio::test]
async fn a_group_that_cannot_be_reached_is_said_at_once() {
    let world = World::new().await;
    world.group.refuse_activation(Code::ActiveGroupLimitExceeded);
    let refused = world.post("u1", "m1", "hello").await.unwrap_err();
    assert_eq!((refused.code, refused.status), (Code::ActiveGroupLimitExceeded, 429));
}

#[tokio::test]
async fn a_post_survives_the_loss_of_the_upstream() {
    let world = World::new().await;
    world.post("u1", "m0", "first").await.unwrap();
    world.group.hold_answers(true);
    let posting = world.post("u1", "m1", "hello");
    let cutting = async {
        world.group.until("the post", |group| group.head() == 2).await;
        world.group.hold_answers(false);
        world.group.cut();
    };
    let (accepted, ()) = tokio::join!(posting, cutting);
    assert_eq!(accepted.unwrap().seq, Some(2));
    assert_eq!(world.group.head(), 2, "and is there once");
}

#[tokio::test]
async fn a_post_without_an_answer_ends_in_time_and_leaves_nothing_behind() {
    let tuning = Tuning { answer_timeout: Duration::from_millis(200), ..World::quick() };
    let world = World::tuned(tuning).await;
    world.group.hold_answers(true);
    let problem = world.post("u1", "m1", "hello").await.unwrap_err();
    assert_eq!(problem.code, Code::Unavailable);
    world.group.until("the detach", |group| group.conns() == 0).await;
}

#[tokio::test]
async fn as_many_posts_wait_as_the_limit_says() {
    let world = World::tuned(Tuning { max_waiting: 2, ..World::quick() }).await;
    world.group.hold_answers(true);
    let (first, second) = (world.post("u1", "m1", "x"), world.post("u1", "m2", "x"));
    let third = async {
        world.group.until("two posts", |group| group.head() == 2).await;
        let refused = world.post("u1", "m3", "x").await.unwrap_err();
        assert_eq!(refused.code, Code::Overloaded);
        world.group.hold_answers(false);
        world.group.cut();
    };
    let (first, second, ()) = tokio::join!(first, second, third);
    assert!(first.is_ok() && second.is_ok());
    world.post("u1", "m4", "x").await.unwrap();
}

#[tokio::test]
async fn history_of_a_group_that_was_never_activated_is_empty_and_activates_nothing() {
    let world = World::new().await;
    let user = UserId::new("u1").unwrap();
    let query = HistoryQuery::default();
    let page = world.rooms.history(group_id(), user.clone(), query).await.unwrap();
    assert_eq!((page.messages.len(), page.head), (0, 0));
    assert_eq!(page.history.as_str(), NO_HISTORY);
    assert_eq!(world.group.counts().activations, 0);
    world.post("u1", "m1", "*hi*").await.unwrap();
    let page = world.rooms.history(group_id(), user, query).await.unwrap();
    assert_eq!((page.messages.len(), page.head, page.history.as_str()), (1, 1, "h1"));
    let page = page.with_html(|text| format!("<{text}>"));
    assert!(page.messages[0].get().ends_with(r#""text":"*hi*","html":"<*hi*>"}"#));
    let nobody = UserId::new("nobody").unwrap();
    let refused = world.rooms.history(group_id(), nobody, query).await.unwrap_err();
    assert_eq!(refused.code, Code::Forbidden);
}

#[tokio::test]
async fn history_is_read_with_a_new_token_after_a_revocation() {
    let world = World::new().await;
    world.post("u1", "m1", "x").await.unwrap();
    let user = UserId::new("u1").unwrap();
    world.rooms.revoke(&group_id(), &user);
    world.group.until("the revocation", |group| group.counts().revocations == 1).await;
    world.advance(Duration::from_secs(2));
    assert!(world.rooms.history(group_id(), user, HistoryQuery::default()).await.is_ok());
}

#[tokio::test]
async fn the_first_post_after_an_epoch_was_raised_goes_with_a_new_token() {
    let world = World::new().await;
    world.post("u1", "m1", "x").await.unwrap();
    world.group.raise_epoch(2);
    world.group.cut();
    world.post("u1", "m2", "x").await.unwrap();
    assert_eq!(world.group.head(), 2);
}
