//! What refers to a secret, so that nothing loses one that it needs.

use convene_db::{Statement, params};
use convene_model::OrgId;

use crate::{
    objects::{Guard, stale},
    state::AppState,
    web::failure::Answer,
};

/// A secret within a document. Its id is of letters and digits and like no other text, so it is
/// found as text.
fn quoted(secret: &str) -> String {
    format!("%\"secret\":\"{secret}\"%")
}

/// The names of what has a configuration that refers to a secret.
pub(super) async fn of_secret(state: &AppState, org: &OrgId, secret: &str) -> Answer<Vec<String>> {
    const SQL: &str = "SELECT name FROM config_objects
        WHERE org_id = $1 AND config LIKE $2 ORDER BY name";
    let params = params![org.as_str(), quoted(secret)];
    let found = state.db.query(Statement::new(SQL, params)).await?;
    Ok(found.iter().map(|row| row.get("name")).collect::<Result<_, _>>()?)
}

/// The guard that nothing refers to a secret.
pub(super) fn none(org: &OrgId, secret: &str) -> Guard {
    const SQL: &str = "SELECT org_id FROM orgs WHERE org_id = $1 AND NOT EXISTS
        (SELECT 1 FROM config_objects WHERE org_id = $1 AND config LIKE $2)";
    Guard::new(Statement::new(SQL, params![org.as_str(), quoted(secret)]), stale())
}
