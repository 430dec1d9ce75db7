//! People and how they prove who they are: accounts, sessions, bearer tokens, CSRF tokens.
//!
//! Passwords are kept as argon2id hashes, every kind of token as a digest. Nothing here knows what
//! a person may do: roles belong to `workspaces` and `groups`.

pub(crate) mod accounts;
mod api;
pub(crate) mod bearer;
pub(crate) mod caller;
pub(crate) mod csrf;
pub mod limiter;
mod pages;
pub mod passwords;
mod proofs;
pub mod recovery;
pub mod sessions;
mod signing_in;
pub(crate) mod tokens;
pub(crate) mod touches;

use axum::{
    Router,
    routing::{delete, get, post},
};

pub(crate) use self::{
    pages::form_errors,
    proofs::{proof_holds, proofs_of},
};
use crate::state::AppState;

/// The API and the pages of this part.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/auth/sign-up", post(api::sign_up))
        .route("/api/auth/sign-in", post(api::sign_in))
        .route("/api/auth/sign-out", post(api::sign_out))
        .route("/api/me", get(api::me))
        .route("/api/tokens", get(api::tokens).post(api::make_token))
        .route("/api/tokens/{token_id}", delete(api::delete_token))
        .route("/sign-up", get(pages::sign_up_form).post(pages::sign_up))
        .route("/sign-in", get(pages::sign_in_form).post(pages::sign_in))
        .route("/sign-out", post(pages::sign_out))
}
