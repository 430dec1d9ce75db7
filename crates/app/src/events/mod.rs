//! `GET /api/events`: how each of a person's groups stands, told as it changes.
//!
//! A stream begins with the whole list and goes on with whatever changed, in this process or in
//! another one over the same workspace database (see `changes`). A reader that is slow gets
//! the latest state of each group once it reads again, so what waits for it is bounded by how many
//! groups it has. Never carries what was said.

mod hub;
mod stream;

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use convene_hop::api::{Api, Operation};
use convene_model::{Code, Problem};
use futures_util::{Stream, stream::unfold};
use http::{HeaderName, HeaderValue};
use serde::Serialize;

pub(crate) use self::hub::Hub;
use self::{
    hub::Subscription,
    stream::{Told, Update},
};
use crate::{
    identity::caller::Caller,
    state::AppState,
    ui::view::{GroupItem, Person},
    web::failure::Answer,
};

/// Streams of one person in one process; beyond it a further one is refused as overloaded.
pub const MAX_STREAMS_PER_USER: usize = 20;
/// Streams of one process; beyond it a further one is refused as overloaded.
pub const MAX_STREAMS: usize = 5000;
/// How often a stream says that it is alive.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// How long a reader may leave what waits for it unread before its stream is ended.
pub const STALLED_AFTER: Duration = Duration::from_secs(60);

/// The API of this part.
pub(crate) fn api() -> Api<AppState> {
    Api::new().on(
        Operation::get(
            "/api/events",
            "followGroups",
            "How the caller's groups stand, as it changes.",
        )
        .answers_text(200, "text/event-stream")
        .problems(&[Code::BadOrigin, Code::Overloaded]),
        open,
    )
}

async fn open(State(state): State<AppState>, caller: Caller) -> Answer<Response> {
    Ok(respond(state.hub.open(&state, &caller).await?))
}

fn respond(subscription: Subscription) -> Response {
    let keep_alive = KeepAlive::new().interval(HEARTBEAT_EVERY);
    let mut response = Sse::new(told(subscription)).keep_alive(keep_alive).into_response();
    // A proxy that gathers answers would hold every event back.
    let buffering = HeaderName::from_static("x-accel-buffering");
    response.headers_mut().insert(buffering, HeaderValue::from_static("no"));
    response
}

fn told(subscription: Subscription) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold((subscription, Vec::new().into_iter()), |(subscription, mut ready)| async move {
        loop {
            if let Some(event) = ready.next() {
                return Some((Ok(event), (subscription, ready)));
            }
            ready = events(subscription.next().await?).into_iter();
        }
    })
}

#[derive(Serialize)]
struct Groups {
    groups: Vec<GroupItem>,
}

fn events(told: Told) -> Vec<Event> {
    let whole = told.whole.map(|groups| ("groups", serde_json::to_string(&Groups { groups })));
    let updates = told.updates.into_iter().map(|update| match update {
        Update::Stands(item) => ("group", serde_json::to_string(&item)),
        Update::Gone(group) => {
            ("gone", serde_json::to_string(&serde_json::json!({"group_id": group})))
        }
    });
    let names = told.names.into_iter();
    let names =
        names.map(|(user_id, name)| ("person", serde_json::to_string(&Person { user_id, name })));
    let all = whole.into_iter().chain(updates).chain(names);
    all.filter_map(|(name, data)| Some(Event::default().event(name).data(data.ok()?))).collect()
}

fn full(limit: usize) -> Problem {
    Problem::new(Code::Overloaded)
        .detail("too many event streams are open")
        .with("limit", limit)
        .with("retry_after_ms", 10_000)
}
