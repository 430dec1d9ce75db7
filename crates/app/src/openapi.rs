//! The OpenAPI document of the App's JSON API, made from the table that its router is made from.

use convene_hop::api::{Document, Problems};
use convene_model::Code;
use serde_json::{Value, json};

use crate::web;

const DESCRIPTION: &str = "\
What people and their programs do in a workspace. Programs send a bearer token (`POST /api/tokens`, \
or `bearer: true` at sign-in). Browsers have a session cookie; whatever they change also needs the \
header `x-csrf-token` with the token that `GET /api/me` answers with. The group protocol of the \
WebSocket is described in docs/protocol.md.";

/// The document.
#[must_use]
pub fn document() -> Value {
    let document = Document {
        title: "Convene App API",
        description: DESCRIPTION,
        credentials: json!({
            "bearer": {"type": "http", "scheme": "bearer"},
            "session": {"type": "apiKey", "in": "cookie", "name": web::cookies::SESSION},
        }),
        problems: Problems {
            any: &[Code::Unavailable],
            caller: &[Code::Unauthorized, Code::RateLimited],
            user: &[],
            changing: &[Code::BadOrigin, Code::InvalidRequest],
            body: &[Code::TooLarge, Code::ValidationFailed],
            query: &[Code::InvalidRequest],
            path: &[Code::NotFound],
            idempotent: &[],
        },
    };
    document.of(&web::api().split().1)
}
