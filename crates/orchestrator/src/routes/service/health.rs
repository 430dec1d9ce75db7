//! `GET /healthz`: the process answers. `GET /readyz`: the directory answers too, 503 otherwise.

use axum::extract::State;
use convene_hop::ApiError;

use crate::{problem, routes::Orchestra};

pub(crate) async fn alive() -> &'static str {
    "ok\n"
}

pub(crate) async fn ready(State(orchestra): State<Orchestra>) -> Result<&'static str, ApiError> {
    orchestra.directory.ping().await.map_err(problem::of_directory)?;
    Ok("ready\n")
}
