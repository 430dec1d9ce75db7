//! The OpenAPI document of the infra API, made from the table that its router is made from.

use convene_hop::api::{Document, Problems};
use convene_model::Code;
use serde_json::{Value, json};

use crate::{auth::ROUTING_TOKEN_HEADER, routes::table};

const DESCRIPTION: &str = "\
How apps bring groups to life and let their users reach them. Each call brings a token of its own \
(`app+jwt`, EdDSA, at most 60 s, used once) that is bound to method, path and body; the app's issuer \
and public keys are configured. examples/outside_app.py makes such tokens. What concerns one user also \
brings that user's routing token. Archive, restore and delete wait for their end; with the header \
`Prefer: respond-async` (or `wait=SECONDS`) they answer 202 with their task at once. The calls of \
controllers bring a `controller+jwt` instead.";

/// The document.
#[must_use]
pub fn document() -> Value {
    let document = Document {
        title: "Convene infra API",
        description: DESCRIPTION,
        credentials: json!({
            "appToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            "routingToken": {"type": "apiKey", "in": "header", "name": ROUTING_TOKEN_HEADER},
        }),
        problems: Problems {
            any: &[Code::Unavailable],
            caller: &[Code::Unauthorized, Code::TokenExpired, Code::TokenReplayed, Code::TooLarge],
            user: &[Code::StaleEpoch, Code::AccessRevoked],
            changing: &[],
            body: &[Code::InvalidRequest, Code::ValidationFailed],
            query: &[Code::InvalidRequest, Code::ValidationFailed],
            path: &[],
            idempotent: &[Code::InvalidRequest, Code::Conflict, Code::IdempotencyKeyReused],
        },
    };
    document.of(&table::api().split().1)
}
