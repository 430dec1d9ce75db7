//! `GET /healthz`: the process answers. `GET /readyz`: the directory answers too, 503 otherwise.

use axum::{Json, extract::State};
use convene_hop::ApiError;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{problem, routes::Orchestra};

pub(crate) async fn alive() -> &'static str {
    "ok\n"
}

/// What a process that can work answers.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Ready {
    /// `ready`.
    status: &'static str,
}

pub(crate) async fn ready(State(orchestra): State<Orchestra>) -> Result<Json<Ready>, ApiError> {
    orchestra.directory.ping().await.map_err(problem::of_directory)?;
    Ok(Json(Ready { status: "ready" }))
}
