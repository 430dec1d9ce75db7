//! The answer as server-sent events: one `data:` line of JSON per event, comments while it is quiet.

use std::{convert::Infallible, future::poll_fn, task::Poll, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use convene_model::agents::InvokeEvent;
use futures_util::{FutureExt, Stream, StreamExt};
use http::{HeaderValue, header};

use crate::Sleep;

const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// Answers 200 with `events`; they are cancelled when the answer's body is dropped.
pub(crate) fn response(
    events: impl Stream<Item = InvokeEvent> + Send + 'static,
    heartbeat: Duration,
    sleep: Sleep,
) -> Response {
    let mut response = Body::from_stream(frames(events, heartbeat, sleep)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn frames(
    events: impl Stream<Item = InvokeEvent> + Send + 'static,
    heartbeat: Duration,
    sleep: Sleep,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    async_stream::stream! {
        let mut events = Box::pin(events);
        loop {
            let mut quiet = sleep(heartbeat);
            let next = poll_fn(|cx| {
                if let Poll::Ready(event) = events.poll_next_unpin(cx) {
                    return Poll::Ready(Some(event));
                }
                quiet.poll_unpin(cx).map(|()| None)
            });
            match next.await {
                Some(Some(event)) => yield Ok(frame(&event)),
                Some(None) => return,
                None => yield Ok(KEEP_ALIVE),
            }
        }
    }
}

fn frame(event: &InvokeEvent) -> Bytes {
    let mut line = b"data: ".to_vec();
    serde_json::to_writer(&mut line, event).expect("an event has only text keys");
    line.extend_from_slice(b"\n\n");
    Bytes::from(line)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use convene_model::agents::{Outcome, Usage};

    use super::*;

    fn text(frames: Vec<Result<Bytes, Infallible>>) -> String {
        frames
            .into_iter()
            .map(|frame| String::from_utf8(frame.unwrap().to_vec()).unwrap())
            .collect()
    }

    #[tokio::test]
    async fn each_event_is_one_data_line_however_many_lines_its_text_has() {
        let never: Sleep = Arc::new(|_| futures_util::future::pending().boxed());
        let events = futures_util::stream::iter([
            InvokeEvent::Delta { offset: 0, text: "a\nb\r\n\u{2028}".into() },
            InvokeEvent::Finished(Outcome::Completed { usage: Some(Usage::default()) }),
        ]);
        let frames: Vec<_> = frames(events, Duration::from_secs(1), never).collect().await;
        assert_eq!(
            text(frames),
            "data: {\"type\":\"delta\",\"offset\":0,\"text\":\"a\\nb\\r\\n\u{2028}\"}\n\n\
             data: {\"type\":\"finished\",\"status\":\"completed\",\
             \"usage\":{\"input_tokens\":0,\"output_tokens\":0}}\n\n"
        );
    }

    #[tokio::test]
    async fn a_quiet_stream_is_kept_alive_by_comments() {
        let at_once: Sleep = Arc::new(|_| futures_util::future::ready(()).boxed());
        let frames = frames(futures_util::stream::pending(), Duration::from_secs(1), at_once);
        let frames: Vec<_> = Box::pin(frames).take(2).collect().await;
        assert_eq!(text(frames), ": keep-alive\n\n: keep-alive\n\n");
    }
}
