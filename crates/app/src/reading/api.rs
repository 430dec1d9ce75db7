//! `PUT /api/groups/{group_id}/read` and `…/preferences`.

use axum::extract::State;
use convene_db::{Statement, params};
use convene_hop::ApiJson;
use convene_model::{
    Code, GroupId, Problem, UserId,
    history::{HistoryQuery, Message},
    limits::MAX_PAGE,
};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use super::recording::{mark_back_statements, mark_statements};
use crate::{
    changes::{self, Change},
    groups::store,
    identity::caller::Caller,
    state::AppState,
    web::{extract::Ids, failure::Answer},
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Read {
    up_to: u64,
    /// Whether the mark may move back, which makes what follows unread again.
    #[serde(default)]
    back: bool,
}

pub(super) async fn read(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
    ApiJson(Read { up_to, back }): ApiJson<Read>,
) -> Answer<StatusCode> {
    let group = store::enter(&state, &group, &caller).await?;
    let mark = state.rooms.look_up(group.id(), caller.id(), up_to).await?;
    if let Some(mark) = mark {
        let mut batch = match back {
            true => {
                let mentions = mentions_after(&state, group.id(), caller.id(), mark.up_to).await?;
                mark_back_statements(group.id(), &mark, &mentions, state.now())
            }
            false => mark_statements(group.id(), &mark, state.now()).to_vec(),
        };
        changes::note(&mut batch, &Change::Reader(group.id().clone(), mark.user));
        state.db.batch(batch).await?;
        state.bell.ring();
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The messages after a number that name the user by id, of the first page that follows: the rows of
/// those that were read are gone.
async fn mentions_after(
    state: &AppState,
    group: &GroupId,
    user: &UserId,
    after: u64,
) -> Answer<Vec<u64>> {
    let query =
        HistoryQuery { after: Some(after), limit: Some(MAX_PAGE), ..HistoryQuery::default() };
    let page = state.rooms.history(group.clone(), user.clone(), query).await?;
    let mut found = Vec::new();
    for raw in &page.messages {
        let message: Message = serde_json::from_str(raw.get()).map_err(|error| {
            tracing::error!(%error, %group, "a message cannot be read");
            Problem::new(Code::Internal)
        })?;
        let mut named = message.posted.mentions.iter();
        if !message.deleted && named.any(|id| id.as_str() == user.as_str()) {
            found.push(message.seq);
        }
    }
    Ok(found)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Preferences {
    muted: bool,
}

pub(super) async fn preferences(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
    ApiJson(Preferences { muted }): ApiJson<Preferences>,
) -> Answer<StatusCode> {
    const SQL: &str = "INSERT INTO group_preferences (user_id, group_id, muted)
        VALUES ($1, $2, $3)
        ON CONFLICT (user_id, group_id) DO UPDATE SET muted = excluded.muted";
    let group = store::enter(&state, &group, &caller).await?;
    let params = params![caller.id().as_str(), group.id().as_str(), muted];
    let mut batch = vec![Statement::new(SQL, params)];
    changes::note(&mut batch, &Change::Reader(group.id().clone(), caller.id().clone()));
    state.db.batch(batch).await?;
    state.bell.ring();
    Ok(StatusCode::NO_CONTENT)
}
