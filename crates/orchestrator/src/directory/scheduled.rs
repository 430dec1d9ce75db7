//! What scheduled work asks of the directory.

use std::time::Duration;

use convene_db::{DbError, Statement, leader, params};
use convene_model::{GroupId, Timestamp};

use super::{Directory, OwnedRecord, RECORD_COLUMNS, RECORD_TABLES};

/// The states that count against a limit, as they stand in SQL; the test below compares them with
/// the model.
const COUNTED: &str = "'active', 'idle', 'archiving', 'restoring', 'deleting'";

impl Directory {
    /// Whether `worker` is the one that does a piece of scheduled work at the moment.
    pub(crate) async fn leads(
        &self,
        name: &str,
        worker: &str,
        now: Timestamp,
        lease: Duration,
    ) -> Result<bool, DbError> {
        Ok(leader(self.db.as_ref(), name, worker, now, lease).await?.is_some())
    }

    /// Groups that have slept for longer than their organization wants, the longest first; of those that could
    /// not be archived the ones that are due again and sleep. Without a default only organizations with a time
    /// of their own have any.
    pub(crate) async fn unused_groups(
        &self,
        default: Option<Duration>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<GroupId>, DbError> {
        let default = default.map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(0));
        let sql = format!(
            "SELECT r.group_id FROM routing_records r JOIN org_counts c ON c.org_id = r.org_id
             WHERE r.status = 'idle' AND r.history_mode = 'internal' AND COALESCE(c.auto_archive_ms, $2) > 0
               AND COALESCE(r.archive_due_at, r.idle_at + COALESCE(c.auto_archive_ms, $2)) <= $1
             ORDER BY r.idle_at LIMIT {limit}"
        );
        let rows = self.db.query(Statement::new(sql, params![now.millis(), default])).await?;
        rows.iter()
            .map(|row| {
                let group_id: String = row.get("group_id")?;
                GroupId::new(&group_id)
                    .map_err(|error| DbError::decode("routing_records.group_id", error))
            })
            .collect()
    }

    /// Groups that are said to be active and were last heard of before `until`.
    pub(crate) async fn long_active(
        &self,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<OwnedRecord>, DbError> {
        let sql = format!(
            "SELECT {RECORD_COLUMNS} FROM {RECORD_TABLES}
             WHERE r.status = 'active' AND r.last_active <= $1 ORDER BY r.last_active LIMIT {limit}"
        );
        let rows = self.db.query(Statement::new(sql, params![until.millis()])).await?;
        rows.iter().map(OwnedRecord::try_from).collect()
    }

    /// Notes that an active group was asked whether it still is.
    pub(crate) async fn asked(&self, found: &OwnedRecord, now: Timestamp) -> Result<(), DbError> {
        self.db
            .execute(Statement::new(
                "UPDATE routing_records SET last_active = $2
                 WHERE group_id = $1 AND status = 'active' AND last_active < $2",
                params![found.record.group_id.as_str(), now.millis()],
            ))
            .await
            .map(|_| ())
    }

    /// Removes events of falling asleep and waking before `until`.
    pub(crate) async fn forget_naps(&self, until: Timestamp) -> Result<u64, DbError> {
        self.db
            .execute(Statement::new(
                "DELETE FROM lifecycle_events
                 WHERE at < $1 AND from_status IN ('active', 'idle')
                   AND to_status IN ('active', 'idle')",
                params![until.millis()],
            ))
            .await
    }

    /// Organizations whose count is not that of their groups.
    pub(crate) async fn drifted(&self, limit: usize) -> Result<Vec<String>, DbError> {
        let sql = format!(
            "SELECT c.org_id FROM org_counts c
             WHERE c.active <> (SELECT COUNT(*) FROM routing_records r
                                WHERE r.org_id = c.org_id AND r.status IN ({COUNTED}))
             ORDER BY c.org_id LIMIT {limit}"
        );
        let rows = self.db.query(Statement::new(sql, params![])).await?;
        rows.iter().map(|row| row.get("org_id")).collect()
    }

    /// Sets an organization's count to that of its groups; false when it was right.
    ///
    /// The row is written first, which locks it: whoever changes a status meanwhile waits for it
    /// with the record written already or not at all.
    pub(crate) async fn recount(&self, org_id: &str) -> Result<bool, DbError> {
        let lock = Statement::new(
            "UPDATE org_counts SET active = active WHERE org_id = $1",
            params![org_id],
        );
        let recount = Statement::new(
            format!(
                "UPDATE org_counts SET active = (SELECT COUNT(*) FROM routing_records r
                     WHERE r.org_id = $1 AND r.status IN ({COUNTED}))
                 WHERE org_id = $1
                   AND active <> (SELECT COUNT(*) FROM routing_records r
                     WHERE r.org_id = $1 AND r.status IN ({COUNTED}))"
            ),
            params![org_id],
        )
        .expect_rows();
        match self.db.batch(vec![lock, recount]).await {
            Ok(_) => Ok(true),
            Err(DbError::Unmet { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use convene_model::infra::GroupStatus;

    use super::*;

    #[test]
    fn the_states_that_count_in_sql_are_those_that_count() {
        for status in GroupStatus::ALL {
            let named = COUNTED.contains(&format!("'{}'", status.as_str()));
            assert_eq!(named, status.counts(), "{status:?}");
        }
    }
}
