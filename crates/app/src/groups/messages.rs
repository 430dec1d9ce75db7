//! `/api/groups/{group_id}/messages` and `/ws`: the ways into a group's conversation.

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use convene_hop::ApiJson;
use convene_model::{
    GroupId, MessageId, ParticipantId, Problem,
    history::{HistoryQuery, RawHistoryPage},
    limits::{MAX_MENTIONS, MAX_PAGE, MAX_TEXT_BYTES},
};
use http::StatusCode;
use serde::Deserialize;

use super::store;
use crate::{
    identity::caller::Caller,
    rooms::{self, PostRequest},
    state::{AppState, fresh_id},
    ui::markdown,
    validate::invalid,
    web::{
        extract::{Ids, Search},
        failure::Answer,
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    #[serde(default)]
    before: Option<u64>,
    #[serde(default)]
    after: Option<u64>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    render: Option<Render>,
}

/// What comes with each message beside its text.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Render {
    /// A sanitised fragment, as `html`.
    Html,
}

pub(super) async fn history(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
    Search(query): Search<PageQuery>,
) -> Answer<Json<RawHistoryPage>> {
    let group = store::enter(&state, &group, &caller).await?;
    let PageQuery { before, after, limit, render } = query;
    let query = HistoryQuery { before, after, limit, ..HistoryQuery::default() };
    if query.page_size().is_err() {
        return Err(invalid("limit", format!("A page has 1 to {MAX_PAGE} messages.")).into());
    }
    let page = state.rooms.history(group.id().clone(), caller.id().clone(), query).await?;
    Ok(Json(match render {
        Some(Render::Html) => rooms::add_html(page, markdown::render),
        None => page,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewMessage {
    /// Makes the post idempotent; chosen here when it is absent.
    #[serde(default)]
    message_id: Option<MessageId>,
    text: String,
    #[serde(default)]
    mentions: Option<Vec<ParticipantId>>,
    #[serde(default)]
    reply_to: Option<MessageId>,
}

pub(super) async fn post(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
    ApiJson(body): ApiJson<NewMessage>,
) -> Answer<Response> {
    let group = store::enter(&state, &group, &caller).await?;
    let NewMessage { message_id, text, mentions, reply_to } = body;
    check(&text, mentions.as_deref())?;
    let message_id = match message_id {
        Some(id) => id,
        None => MessageId::new(fresh_id(state.now()))
            .map_err(|_| Problem::new(convene_model::Code::Internal))?,
    };
    let request = PostRequest { message_id, text, mentions, reply_to };
    let posted = state.rooms.post(group.id().clone(), caller.id().clone(), request).await?;
    Ok((StatusCode::CREATED, Json(posted)).into_response())
}

fn check(text: &str, mentions: Option<&[ParticipantId]>) -> Result<(), Problem> {
    if text.trim().is_empty() || text.len() > MAX_TEXT_BYTES {
        return Err(invalid("text", format!("A message has 1 to {MAX_TEXT_BYTES} bytes.")));
    }
    if mentions.is_some_and(|mentions| mentions.len() > MAX_MENTIONS) {
        let sentence = format!("A message mentions at most {MAX_MENTIONS}.");
        return Err(invalid("mentions", sentence));
    }
    Ok(())
}

/// A client's WebSocket; the guard has checked its Origin.
pub(super) async fn socket(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
    request: Request,
) -> Answer<Response> {
    let group = store::enter(&state, &group, &caller).await?;
    Ok(state.rooms.upgrade(group.id().clone(), caller.id().clone(), request).await)
}
