//! Which credentials of a person hold, for whatever stays open longer than a request.

use std::collections::HashSet;

use convene_db::{Statement, params};
use convene_model::UserId;

use super::caller::{Caller, Credential};
use crate::{agents, state::AppState, web::failure::Answer};

/// The ids of a person's credentials that hold.
pub(crate) async fn proofs_of(state: &AppState, user: &UserId) -> Answer<HashSet<String>> {
    const SESSIONS: &str = "SELECT token_hash FROM sessions WHERE user_id = $1 AND expires_at > $2";
    const TOKENS: &str = "SELECT token_id FROM api_tokens
        WHERE user_id = $1 AND (expires_at IS NULL OR expires_at > $2)";
    let params = params![user.as_str(), state.now().millis()];
    let mut held = HashSet::new();
    for row in state.db.query(Statement::new(SESSIONS, params.clone())).await? {
        held.insert(Credential::Session { digest: row.get("token_hash")? }.id());
    }
    for row in state.db.query(Statement::new(TOKENS, params)).await? {
        held.insert(Credential::Bearer { token_id: row.get("token_id")? }.id());
    }
    // Of an agent there are its tokens only; its id is no person's.
    held.extend(agents::tokens::proofs_of(state, user).await?);
    Ok(held)
}

/// Whether a caller's credential still holds.
pub(crate) async fn proof_holds(state: &AppState, caller: &Caller) -> Answer<bool> {
    Ok(proofs_of(state, caller.id()).await?.contains(&caller.credential.id()))
}
