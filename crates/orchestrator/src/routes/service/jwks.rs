//! `GET /.well-known/jwks.json`: the public keys that routing and service tokens verify with.

use axum::{Json, extract::State};
use convene_model::keys::Jwks;

use crate::routes::Orchestra;

pub(crate) async fn handle(State(orchestra): State<Orchestra>) -> Json<Jwks> {
    Json(orchestra.signer.keys().published())
}
