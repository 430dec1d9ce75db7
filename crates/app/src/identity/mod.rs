//! People and how they prove who they are: accounts, sessions, bearer tokens, CSRF tokens.
//!
//! Passwords are kept as argon2id hashes, every kind of token as a digest. Nothing here knows what
//! a person may do: roles belong to `workspaces` and `groups`.

pub(crate) mod accounts;
mod api;
pub(crate) mod bearer;
pub(crate) mod caller;
pub(crate) mod csrf;
mod devices;
pub mod limiter;
mod own_account;
mod own_pages;
mod pages;
pub mod passwords;
mod proofs;
pub mod recovery;
pub mod sessions;
pub mod signed_in;
mod signing_in;
pub(crate) mod tokens;
pub(crate) mod touches;

use axum::{
    Router,
    routing::{get, post},
};
use convene_hop::api::{Access, Api, Operation};
use convene_model::Code;

pub(crate) use self::{
    pages::form_errors,
    proofs::{proof_holds, proofs_of},
};
use crate::{
    state::AppState,
    ui::view::{Me, SessionView, TokenView},
};

/// The API of this part.
pub(crate) fn api() -> Api<AppState> {
    // Whoever is refused came with a token that does not hold.
    const NEW: &[Code] =
        &[Code::Unauthorized, Code::AlreadyExists, Code::RateLimited, Code::Gone, Code::NotFound];
    const SIGN_IN: &[Code] = &[Code::Unauthorized, Code::RateLimited, Code::Overloaded];
    const PASSWORD: &[Code] = &[Code::RateLimited, Code::Overloaded, Code::Conflict];
    Api::new()
        .on(
            Operation::post("/api/auth/sign-up", "signUp", "Make an account and sign in.")
                .access(Access::Open)
                .body::<api::SignUp>()
                .answers::<api::SignedIn>(201)
                .problems(NEW),
            api::sign_up,
        )
        .on(
            Operation::post(
                "/api/auth/sign-in",
                "signIn",
                "Sign in, with a bearer token instead of a session if asked.",
            )
            .access(Access::Open)
            .body::<api::SignIn>()
            .answers::<api::SignedIn>(200)
            .problems(SIGN_IN),
            api::sign_in,
        )
        .on(
            Operation::post(
                "/api/auth/sign-out",
                "signOut",
                "End the session or token of the call.",
            )
            .answers_empty(204),
            api::sign_out,
        )
        .on(
            Operation::get("/api/me", "whoAmI", "Who calls, and their workspaces.")
                .answers::<api::WhoAmI>(200),
            api::me,
        )
        .on(
            Operation::patch("/api/me", "changeMe", "Another display name.")
                .body::<api::MeChange>()
                .answers::<Me>(200),
            api::change_me,
        )
        .on(
            Operation::put(
                "/api/me/password",
                "changePassword",
                "Another password; everything else that is signed in is signed out.",
            )
            .body::<api::PasswordChange>()
            .answers::<api::Ended>(200)
            .problems(PASSWORD),
            api::change_password,
        )
        .on(
            Operation::get("/api/me/sessions", "listSessions", "Where the caller is signed in.")
                .answers::<Vec<SessionView>>(200),
            api::sessions,
        )
        .on(
            Operation::delete(
                "/api/me/sessions",
                "endOtherSessions",
                "Sign out everywhere but here.",
            )
            .answers::<api::Ended>(200),
            api::end_other_sessions,
        )
        .on(
            Operation::delete(
                "/api/me/sessions/{session_id}",
                "endSession",
                "Sign out in one place.",
            )
            .answers_empty(204),
            api::end_session,
        )
        .on(
            Operation::get("/api/tokens", "listTokens", "The caller's bearer tokens.")
                .answers::<Vec<TokenView>>(200),
            api::tokens,
        )
        .on(
            Operation::post("/api/tokens", "makeToken", "A bearer token, shown this once.")
                .body::<api::NewToken>()
                .answers::<api::MadeToken>(201),
            api::make_token,
        )
        .on(
            Operation::delete("/api/tokens/{token_id}", "deleteToken", "Void a bearer token.")
                .answers_empty(204),
            api::delete_token,
        )
}

/// The pages of this part.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/sign-up", get(pages::sign_up_form).post(pages::sign_up))
        .route("/sign-in", get(pages::sign_in_form).post(pages::sign_in))
        .route("/sign-out", post(pages::sign_out))
        .route("/account", get(own_pages::account))
        .route("/o/{org_id}/account", get(own_pages::account_in_workspace))
}
