//! What refers to a secret, so that nothing loses one that it needs.

use convene_db::{Statement, params};
use convene_model::OrgId;

use crate::{state::AppState, web::failure::Answer};

/// The name of something whose configuration refers to a secret.
pub(super) async fn of_secret(
    state: &AppState,
    org: &OrgId,
    secret: &str,
) -> Answer<Option<String>> {
    // A secret's id is of letters and digits and like no other text, so it is found as text.
    const SQL: &str = "SELECT name FROM config_objects
        WHERE org_id = $1 AND config LIKE $2 ORDER BY name LIMIT 1";
    let params = params![org.as_str(), format!("%\"secret\":\"{secret}\"%")];
    let found = state.db.query(Statement::new(SQL, params)).await?;
    Ok(found.first().map(|row| row.get("name")).transpose()?)
}
