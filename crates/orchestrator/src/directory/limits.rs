//! What organizations may use: their limits as rows.

use convene_db::{DbError, Row, Statement, params};
use convene_model::{OrgId, infra::OrgLimits};

use super::Directory;

/// The columns of limits, as they stand in `org_counts`.
const COLUMNS: &str = "max_active, auto_archive_ms, monthly_tokens, monthly_egress_bytes,
    group_daily_egress_bytes, user_posts_per_minute, org_posts_per_minute,
    user_attaches_per_minute, activations_per_minute";

impl Directory {
    /// An organization's limits; the defaults where none were set.
    pub(crate) async fn limits(&self, org_id: &OrgId) -> Result<OrgLimits, DbError> {
        let sql = format!("SELECT {COLUMNS} FROM org_counts WHERE org_id = $1");
        let rows = self.db.query(Statement::new(sql, params![org_id.as_str()])).await?;
        match rows.first() {
            Some(row) => self.read_limits(row),
            None => {
                Ok(OrgLimits { max_active_groups: self.default_max_active, ..OrgLimits::default() })
            }
        }
    }

    fn read_limits(&self, row: &Row) -> Result<OrgLimits, DbError> {
        let max_active = row.get::<Option<u64>>("max_active")?;
        let auto_archive_ms = row.get::<Option<u64>>("auto_archive_ms")?;
        Ok(OrgLimits {
            max_active_groups: max_active.unwrap_or(self.default_max_active),
            auto_archive_after_secs: auto_archive_ms.map(|millis| millis / 1000),
            monthly_tokens: row.get("monthly_tokens")?,
            monthly_egress_bytes: row.get("monthly_egress_bytes")?,
            group_daily_egress_bytes: row.get("group_daily_egress_bytes")?,
            user_posts_per_minute: row.get("user_posts_per_minute")?,
            org_posts_per_minute: row.get("org_posts_per_minute")?,
            user_attaches_per_minute: row.get("user_attaches_per_minute")?,
            activations_per_minute: row.get("activations_per_minute")?,
        })
    }

    /// Sets an organization's limits. Groups beyond a lowered limit stay; no further one is placed.
    /// What is held for runs under way stays theirs.
    pub(crate) async fn set_limits(
        &self,
        org_id: &OrgId,
        limits: &OrgLimits,
    ) -> Result<(), DbError> {
        let auto_archive_ms = limits.auto_archive_after_secs.map(|secs| secs.saturating_mul(1000));
        let sql = format!(
            "INSERT INTO org_counts (org_id, active, {COLUMNS})
             VALUES ($1, 0, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (org_id) DO UPDATE SET max_active = excluded.max_active,
                 auto_archive_ms = excluded.auto_archive_ms,
                 monthly_tokens = excluded.monthly_tokens,
                 monthly_egress_bytes = excluded.monthly_egress_bytes,
                 group_daily_egress_bytes = excluded.group_daily_egress_bytes,
                 user_posts_per_minute = excluded.user_posts_per_minute,
                 org_posts_per_minute = excluded.org_posts_per_minute,
                 user_attaches_per_minute = excluded.user_attaches_per_minute,
                 activations_per_minute = excluded.activations_per_minute"
        );
        let values = params![
            org_id.as_str(),
            limits.max_active_groups,
            auto_archive_ms,
            limits.monthly_tokens,
            limits.monthly_egress_bytes,
            limits.group_daily_egress_bytes,
            limits.user_posts_per_minute,
            limits.org_posts_per_minute,
            limits.user_attaches_per_minute,
            limits.activations_per_minute,
        ];
        self.db.execute(Statement::new(sql, values)).await.map(|_| ())
    }
}
