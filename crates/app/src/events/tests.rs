//! How many streams there are, how one says that it is alive, and when it counts as stalled.

use axum::{body::BodyDataStream, response::Response};
use convene_model::UserId;
use futures_util::StreamExt;

use super::*;
use crate::{
    events::{HEARTBEAT_EVERY, respond},
    identity::{accounts::User, caller::Credential},
};

fn caller(id: &str) -> Caller {
    let user = User { user_id: UserId::new(id).unwrap(), email: "a@b".into(), name: "A".into() };
    let credential = Credential::Session { digest: id.into() };
    Caller { user, credential, expires_at: None }
}

async fn chunk(body: &mut BodyDataStream) -> String {
    String::from_utf8(body.next().await.unwrap().unwrap().to_vec()).unwrap()
}

#[test]
fn a_process_has_as_many_streams_as_the_limit_says_and_a_person_as_many_as_theirs() {
    let hub = Arc::new(Hub::limited(2, 3));
    let first = hub.enter(&caller("a")).unwrap();
    let _second = hub.enter(&caller("a")).unwrap();
    let refused = hub.enter(&caller("a")).err().unwrap();
    assert_eq!((refused.code, &refused.extra["limit"]), (Code::Overloaded, &2.into()));
    let _third = hub.enter(&caller("b")).unwrap();
    let refused = hub.enter(&caller("c")).err().unwrap();
    assert_eq!((refused.code, &refused.extra["limit"]), (Code::Overloaded, &3.into()));
    assert!(refused.extra["retry_after_ms"].is_number());
    drop(first);
    assert_eq!(hub.open_streams(), 2);
    let _fourth = hub.enter(&caller("c")).unwrap();
    assert_eq!(hub.open_streams(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_says_that_it_is_alive() {
    let hub = Arc::new(Hub::default());
    let subscription = hub.enter(&caller("a")).unwrap();
    subscription.stream.begin(Vec::new());
    let response: Response = respond(subscription);
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let mut body = response.into_body().into_data_stream();
    assert_eq!(chunk(&mut body).await, "event: groups\ndata: {\"groups\":[]}\n\n");
    let began = Instant::now();
    let beat = chunk(&mut body).await;
    assert!(beat.starts_with(':') && beat.ends_with("\n\n"), "{beat:?}");
    assert_eq!(began.elapsed().as_secs(), HEARTBEAT_EVERY.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_read_for_long_has_stalled_and_one_with_nothing_to_read_has_not() {
    let hub = Arc::new(Hub::default());
    let unread = hub.enter(&caller("a")).unwrap();
    let read = hub.enter(&caller("b")).unwrap();
    unread.stream.begin(Vec::new());
    read.stream.begin(Vec::new());
    assert!(read.next().await.unwrap().whole.is_some());
    tokio::time::advance(STALLED_AFTER - Duration::from_millis(1)).await;
    assert!(!unread.stream.has_stalled(STALLED_AFTER));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(unread.stream.has_stalled(STALLED_AFTER));
    assert!(!read.stream.has_stalled(STALLED_AFTER));
}
