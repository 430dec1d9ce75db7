//! What organizations may use: their limits as rows.

use convene_db::{DbError, Row, Statement, params};
use convene_model::{
    GroupId, OrgId, Timestamp,
    infra::{GroupLimits, OrgLimits},
    usage::{Month, day_of, end_of_day},
};

use super::Directory;

/// The columns of limits, as they stand in `org_counts`.
const COLUMNS: &str = "max_active, auto_archive_ms, monthly_tokens, monthly_egress_bytes,
    group_daily_egress_bytes, user_posts_per_minute, org_posts_per_minute,
    user_attaches_per_minute, activations_per_minute";

/// The states of groups that have limits: of those that go there is no more to be sent.
const LASTING: &str = "NOT IN ('deleting', 'deleted')";

/// What a change of limits makes of `tell`. Who wakes a group that sleeps tells it anyway, as does who
/// restores it; one that is on its way into the archive or back may have been told of the former ones.
const TELL: &str =
    "CASE WHEN status IN ('active', 'archiving', 'restoring') THEN tell + 1 ELSE tell END";

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
    /// What is held for runs under way stays theirs. Groups close for their egress, or open again, as
    /// the new limits have it, and the controllers of those in use are to be told.
    pub(crate) async fn set_limits(
        &self,
        org_id: &OrgId,
        limits: &OrgLimits,
        now: Timestamp,
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
        let told = Statement::new(
            format!(
                "UPDATE routing_records SET egress_until = NULL, tell = {TELL}
                 WHERE org_id = $1 AND status {LASTING}"
            ),
            params![org_id.as_str()],
        );
        // In one transaction: no group is open in between that stays closed.
        let [by_month, by_day] = closing(Some(org_id), now);
        let statements = vec![Statement::new(sql, values), told, by_month, by_day];
        self.db.batch(statements).await.map(|_| ())
    }

    /// How many groups an organization may activate in a minute, if that is limited and it is the
    /// caller's.
    pub(crate) async fn activation_rate(
        &self,
        org_id: &OrgId,
        issuer: &str,
    ) -> Result<Option<u32>, DbError> {
        let rows = self
            .db
            .query(Statement::new(
                "SELECT c.activations_per_minute FROM org_counts c
                 LEFT JOIN org_owners o ON o.org_id = c.org_id
                 WHERE c.org_id = $1 AND COALESCE(o.issuer, $2) = $2",
                params![org_id.as_str(), issuer],
            ))
            .await?;
        rows.first().map_or(Ok(None), |row| row.get("activations_per_minute"))
    }

    /// Closes groups that have sent as many bytes as they may, until the day or the month ends; how
    /// many. Their controllers are to be told.
    pub(crate) async fn close_for_egress(&self, now: Timestamp) -> Result<u64, DbError> {
        let mut closed = 0;
        for row in self.db.batch(closing(None, now).into()).await?.concat() {
            let (group_id, org_id): (String, String) = (row.get("group_id")?, row.get("org_id")?);
            tracing::warn!(group_id, org_id, "a group has sent as many bytes as it may");
            closed += 1;
        }
        Ok(closed)
    }
}

/// Closes the groups that have sent as many bytes as they may, those of one organization or all: by their
/// organization's month, by their day.
fn closing(org_id: Option<&OrgId>, now: Timestamp) -> [Statement; 2] {
    let (month, day) = (Month::of(now), day_of(now));
    let of_org = if org_id.is_some() { "AND c.org_id = $3" } else { "" };
    let close = |key, sums, window, most, nth: u64, until: Timestamp| {
        let mut values = params![until.millis(), nth];
        values.extend(org_id.map(|org_id| org_id.as_str().into()));
        Statement::new(
            format!(
                "UPDATE routing_records SET egress_until = $1, tell = {TELL}
                 WHERE status {LASTING}
                   AND (egress_until IS NULL OR egress_until < $1)
                   AND {key} IN (SELECT s.{key} FROM {sums} s
                       JOIN org_counts c ON c.org_id = s.org_id
                       WHERE s.{window} = $2 AND s.egress_bytes >= c.{most} {of_org})
                 RETURNING group_id, org_id"
            ),
            values,
        )
    };
    let number = u64::from(month.number());
    let ends = month.next().begins_at();
    let by_month = close("org_id", "org_months", "month", "monthly_egress_bytes", number, ends);
    let ends = end_of_day(now);
    let by_day = close("group_id", "group_days", "day", "group_daily_egress_bytes", day, ends);
    [by_month, by_day]
}

/// The limits of a group's organization, for a group that is made in the same transaction.
pub(super) fn of_new_group(group_id: &GroupId, org_id: &OrgId) -> Statement {
    Statement::new(
        "SELECT c.user_posts_per_minute, c.org_posts_per_minute, c.user_attaches_per_minute,
             r.egress_until
         FROM org_counts c JOIN routing_records r ON r.org_id = c.org_id
         WHERE c.org_id = $1 AND r.group_id = $2",
        params![org_id.as_str(), group_id.as_str()],
    )
}

/// What a group's controller has to keep.
pub(super) fn of_group(row: &Row) -> Result<GroupLimits, DbError> {
    Ok(GroupLimits {
        user_posts_per_minute: row.get("user_posts_per_minute")?,
        org_posts_per_minute: row.get("org_posts_per_minute")?,
        user_attaches_per_minute: row.get("user_attaches_per_minute")?,
        egress_until: row.get::<Option<u64>>("egress_until")?.map(Timestamp::from_millis),
    })
}
