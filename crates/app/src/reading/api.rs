//! `PUT /api/groups/{group_id}/read` and `…/preferences`.

use axum::extract::State;
use convene_db::{Statement, params};
use convene_hop::ApiJson;
use convene_model::GroupId;
use http::StatusCode;
use serde::Deserialize;

use super::recording::mark_statements;
use crate::{
    changes::{self, Change},
    groups::store,
    identity::caller::Caller,
    state::AppState,
    web::{extract::Ids, failure::Answer},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Read {
    up_to: u64,
}

pub(super) async fn read(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
    ApiJson(Read { up_to }): ApiJson<Read>,
) -> Answer<StatusCode> {
    let group = store::enter(&state, &group, &caller).await?;
    let mark = state.rooms.look_up(group.id(), caller.id(), up_to).await?;
    if let Some(mark) = mark {
        let mut batch = mark_statements(group.id(), &mark, state.now()).to_vec();
        changes::note(&mut batch, &Change::Reader(group.id().clone(), mark.user));
        state.db.batch(batch).await?;
        state.bell.ring();
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
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
