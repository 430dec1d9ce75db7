//! A client that cannot keep up is closed and resumes; it never slows another.

use serde_json::json;

use super::{client::Seen, world::World};
use crate::rooms::tuning::Tuning;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_closed_and_resumes_without_loss() {
    let world = World::tuned(Tuning { max_backlog_bytes: 256 * 1024, ..World::quick() }).await;
    let mut slow = world.attached("u1").await;
    let mut quick = world.attached("u2").await;
    let text = "x".repeat(30_000);
    // More than two sockets' buffers hold.
    let (count, mut most) = (600, 0);
    for seq in 1..=count {
        world.group.say(&text);
        assert_eq!(quick.event().await, seq, "nobody waits for the slow one");
        let figures = world.rooms.figures();
        most = most.max(figures.fullest_backlog_bytes);
        assert_eq!(figures.fullest_backlog_bytes, figures.backlog_bytes, "it is one client's");
    }
    assert!((30_000..=256 * 1024).contains(&most), "{most} bytes waited at most");
    world.group.until("the drop", |group| group.conns() == 1).await;
    let mut last = 0;
    let end = loop {
        match slow.seen().await {
            Seen::Frame(frame) => {
                assert_eq!(frame["seq"], last + 1, "whole frames, in order");
                last += 1;
            }
            end => break end,
        }
    };
    assert_eq!(end, Seen::Closed(4008));
    assert!(last > 0 && last < count, "it got {last}");
    let mut again = world.client("u1").await;
    again.attach_with(json!({"after": last, "history": "h1"})).await;
    while last < count {
        match again.seen().await {
            Seen::Frame(frame) => {
                assert_eq!(frame["seq"], last + 1);
                last += 1;
            }
            // The rest is more than the backlog may hold, too.
            end => {
                assert_eq!(end, Seen::Closed(4008));
                again = world.client("u1").await;
                again.attach_with(json!({"after": last, "history": "h1"})).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_pauses_within_the_bound_gets_everything_later() {
    let world = World::tuned(Tuning {
        max_backlog_bytes: 64 * 1024 * 1024,
        max_backlog_frames: 100_000,
        ..World::quick()
    })
    .await;
    let (mut paused, mut quick) = (world.attached("u1").await, world.attached("u2").await);
    let text = "x".repeat(30_000);
    let count = 500;
    for seq in 1..=count {
        world.group.say(&text);
        assert_eq!(quick.event().await, seq);
    }
    paused.send(json!({"type": "dance", "ref": "in-between"})).await;
    let mut last = 0;
    let mut answered = false;
    while last < count || !answered {
        let frame = paused.frame().await;
        if frame["type"] == "event" {
            assert_eq!(frame["seq"], last + 1);
            last += 1;
        } else {
            assert_eq!(frame["ref"], "in-between", "{frame}");
            answered = true;
        }
    }
    // Once it has caught up, frames are written directly again.
    world.group.say("short");
    assert_eq!(paused.event().await, count + 1);
}
