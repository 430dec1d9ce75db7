//! What the directory has to know when a restored backup is adopted, from beside the service.
//!
//! The groups' side is the controllers' host's; nothing here talks to a controller.

use convene_db::{Database, DbError, Statement, params};
use convene_model::GroupId;

/// The epoch of a group's record, if there is one.
///
/// # Errors
/// When the database fails.
pub async fn epoch(db: &dyn Database, group_id: &GroupId) -> Result<Option<u64>, DbError> {
    let rows = db
        .query(Statement::new(
            "SELECT epoch FROM routing_records WHERE group_id = $1",
            params![group_id.as_str()],
        ))
        .await?;
    rows.first().map(|row| row.get("epoch")).transpose()
}

/// Sets the epoch of a group's record, if there is one; it only ever grows.
///
/// # Errors
/// When the database fails.
pub async fn set_epoch(db: &dyn Database, group_id: &GroupId, epoch: u64) -> Result<(), DbError> {
    db.execute(Statement::new(
        "UPDATE routing_records SET epoch = $2 WHERE group_id = $1 AND epoch < $2",
        params![group_id.as_str(), epoch],
    ))
    .await?;
    Ok(())
}
