//! Which organizations are blocked.
//!
//! A block voids every token of the organization's groups in the same transaction, by their epochs;
//! what is left to do is to tell the controllers, so that they close what is open.

use convene_db::{DbError, Row, Statement, params};
use convene_model::{OrgId, Timestamp, infra::OrgBlock};

use super::{Directory, OwnedRecord, RECORD_COLUMNS, RECORD_TABLES};

/// A group whose controller is to be told.
pub(crate) struct Untold {
    pub(crate) found: OwnedRecord,
    /// Changes that it had not been told of when the record was read.
    changes: u64,
}

impl Directory {
    /// Blocks an organization and voids every token of its groups.
    pub(crate) async fn block(
        &self,
        org_id: &OrgId,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let block = Statement::new(
            "INSERT INTO org_counts (org_id, active, blocked_at, block_reason)
             VALUES ($1, 0, $2, $3)
             ON CONFLICT (org_id) DO UPDATE SET block_reason = excluded.block_reason,
                 blocked_at = COALESCE(org_counts.blocked_at, excluded.blocked_at)",
            params![org_id.as_str(), now.millis(), reason],
        );
        let void = Statement::new(
            "UPDATE routing_records SET epoch = epoch + 1, tell = tell + 1
             WHERE org_id = $1 AND status IN ('active', 'idle')",
            params![org_id.as_str()],
        );
        self.db.batch(vec![block, void]).await.map(|_| ())
    }

    /// Lifts an organization's block.
    pub(crate) async fn unblock(&self, org_id: &OrgId) -> Result<(), DbError> {
        self.db
            .execute(Statement::new(
                "UPDATE org_counts SET blocked_at = NULL, block_reason = NULL WHERE org_id = $1",
                params![org_id.as_str()],
            ))
            .await
            .map(|_| ())
    }

    /// Whether an organization is blocked, since when and why.
    pub(crate) async fn org_block(&self, org_id: &OrgId) -> Result<OrgBlock, DbError> {
        let rows = self
            .db
            .query(Statement::new(
                "SELECT blocked_at, block_reason FROM org_counts WHERE org_id = $1",
                params![org_id.as_str()],
            ))
            .await?;
        let (mut blocked_at, mut reason) = (None, None);
        if let Some(row) = rows.first() {
            blocked_at = row.get::<Option<u64>>("blocked_at")?.map(Timestamp::from_millis);
            reason = row.get("block_reason")?;
        }
        Ok(OrgBlock { org_id: org_id.clone(), blocked: blocked_at.is_some(), reason, blocked_at })
    }

    /// Groups whose controllers are still to be told of their epoch or their limits.
    pub(crate) async fn untold(&self, limit: usize) -> Result<Vec<Untold>, DbError> {
        let sql = format!(
            "SELECT r.tell, {RECORD_COLUMNS} FROM {RECORD_TABLES}
             WHERE r.tell > 0 AND r.status IN ('active', 'idle') ORDER BY r.group_id LIMIT {limit}"
        );
        let rows = self.db.query(Statement::new(sql, params![])).await?;
        let untold = |row: &Row| {
            Ok(Untold { found: OwnedRecord::try_from(row)?, changes: row.get("tell")? })
        };
        rows.iter().map(untold).collect()
    }

    /// Notes that a controller knows what was read; not what has changed since.
    pub(crate) async fn told(&self, untold: &Untold) -> Result<(), DbError> {
        let record = &untold.found.record;
        self.db
            .execute(Statement::new(
                "UPDATE routing_records SET tell = 0
                 WHERE group_id = $1 AND epoch = $2 AND tell = $3",
                params![record.group_id.as_str(), record.epoch, untold.changes],
            ))
            .await
            .map(|_| ())
    }
}
