//! What groups have used.
//!
//! A report is one row under the key that it came with, written before it is acknowledged; the sums
//! by group and month follow in batches ([`Directory::fold_reports`]). Whoever reads adds what is in
//! no sum yet, so that nothing is ever missing or counted twice.

use convene_db::{DbError, Row, Statement, Value, params};
use convene_model::{
    GroupId, OrgId, Timestamp,
    usage::{
        AbuseFlag, GroupUsage, MONTHS_LISTED, Month, OrgUsage, RefusedKind, UsageFigures,
        UsageOfGroup, UsageOfMonth, UsageReport, day_of,
    },
};
use uuid::Uuid;

use super::{Directory, OwnedRecord, budget};

/// Reports that are added up in one transaction.
pub(crate) const REPORTS_PER_BATCH: usize = 1_000;

/// How often a reservation is read again when it changed under a report.
const MAX_LOOKS: usize = 4;

/// The sums of the rows that the table `u` has.
const SUMS: &str = "CAST(COALESCE(SUM(u.runs), 0) AS BIGINT) AS runs,
    CAST(COALESCE(SUM(u.input_tokens), 0) AS BIGINT) AS input_tokens,
    CAST(COALESCE(SUM(u.output_tokens), 0) AS BIGINT) AS output_tokens,
    CAST(COALESCE(SUM(u.cost_micro_usd), 0) AS BIGINT) AS cost_micro_usd,
    CAST(COALESCE(SUM(u.cost_unknown), 0) AS BIGINT) AS cost_unknown,
    CAST(COALESCE(SUM(u.egress_bytes), 0) AS BIGINT) AS egress_bytes,
    CAST(COALESCE(SUM(u.active_secs), 0) AS BIGINT) AS active_secs";

/// The figures as they stand in each table.
const FIGURES: &str =
    "runs, input_tokens, output_tokens, cost_micro_usd, cost_unknown, egress_bytes, active_secs";

/// A report that has arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived<'a> {
    /// The key that it came with.
    pub(crate) key: &'a str,
    /// What it was made of.
    pub(crate) request_hash: &'a str,
    pub(crate) report: &'a UsageReport,
    pub(crate) now: Timestamp,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// It is recorded, now or already.
    Recorded,
    /// Its key belongs to another report.
    OtherReport,
}

impl Directory {
    /// Records a report, once, and settles its run's reservation with it.
    pub(crate) async fn record_usage(
        &self,
        found: &OwnedRecord,
        arrived: Arrived<'_>,
    ) -> Result<Recorded, DbError> {
        let (group_id, org_id) = (&found.record.group_id, &found.record.org_id);
        let report_id = format!("{group_id}/{}", arrived.key);
        for _ in 0..MAX_LOOKS {
            let run = match &arrived.report.run_id {
                Some(run_id) => {
                    self.reservation(group_id, run_id).await?.map(|seen| (run_id, seen))
                }
                None => None,
            };
            let tokens = arrived.report.tokens;
            let spent = tokens.map(|tokens| tokens.sum());
            let month = run.as_ref().map_or_else(|| Month::of(arrived.now), |(_, seen)| seen.month);
            let mut statements = vec![insert(&report_id, found, month, arrived)];
            match &run {
                Some((run_id, seen)) => {
                    statements.extend(budget::settle(group_id, org_id, run_id, seen, spent));
                }
                None if spent.is_some_and(|spent| spent > 0) => {
                    statements.push(budget::month_exists(org_id, month));
                    statements.push(Statement::new(
                        "UPDATE org_months SET used_tokens = used_tokens + $3
                         WHERE org_id = $1 AND month = $2",
                        params![org_id.as_str(), month.number(), spent],
                    ));
                }
                None => {}
            }
            statements.extend(arrived.report.refused.iter().map(|refusals| {
                let (user, kind) = (refusals.user_id.as_str(), refusals.kind.as_str());
                flag(org_id, user, kind, Some(group_id), refusals.count, arrived.now)
            }));
            match self.db.batch(statements).await {
                Ok(_) => return Ok(Recorded::Recorded),
                Err(DbError::Unmet { index: 0 }) => {
                    return self.recorded_before(&report_id, arrived.request_hash).await;
                }
                // The reservation changed meanwhile.
                Err(DbError::Unmet { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(DbError::Other(format!("the reservation of report {report_id} changes all the time")))
    }

    async fn recorded_before(
        &self,
        report_id: &str,
        request_hash: &str,
    ) -> Result<Recorded, DbError> {
        let rows = self
            .db
            .query(Statement::new(
                "SELECT request_hash FROM usage_reports WHERE report_id = $1",
                params![report_id],
            ))
            .await?;
        let before: Option<String> = rows.first().map(|row| row.get("request_hash")).transpose()?;
        // Gone meanwhile, it was recorded long ago.
        if before.is_none_or(|before| before == request_hash) {
            Ok(Recorded::Recorded)
        } else {
            Ok(Recorded::OtherReport)
        }
    }

    /// Adds a batch of reports up; how many they were.
    ///
    /// The batch is marked first, in the same transaction: two that do this at the same time take
    /// different reports.
    pub(crate) async fn fold_reports(&self) -> Result<u64, DbError> {
        let waiting = "SELECT 1 AS one FROM usage_reports WHERE batch IS NULL LIMIT 1";
        if self.db.query(Statement::new(waiting, params![])).await?.is_empty() {
            return Ok(0);
        }
        let batch = Uuid::new_v4().simple().to_string();
        let add = |table: &str, key: &str, columns: &str| {
            Statement::new(
                format!(
                    "INSERT INTO {table} ({columns}, {FIGURES})
                     SELECT {columns}, {SUMS} FROM usage_reports u WHERE u.batch = $1
                     GROUP BY {columns}
                     ON CONFLICT ({key}) DO UPDATE SET runs = {table}.runs + excluded.runs,
                         input_tokens = {table}.input_tokens + excluded.input_tokens,
                         output_tokens = {table}.output_tokens + excluded.output_tokens,
                         cost_micro_usd = {table}.cost_micro_usd + excluded.cost_micro_usd,
                         cost_unknown = {table}.cost_unknown + excluded.cost_unknown,
                         egress_bytes = {table}.egress_bytes + excluded.egress_bytes,
                         active_secs = {table}.active_secs + excluded.active_secs"
                ),
                params![&batch],
            )
        };
        let statements = vec![
            Statement::new(
                format!(
                    "UPDATE usage_reports SET batch = $1 WHERE report_id IN (
                         SELECT report_id FROM usage_reports WHERE batch IS NULL
                         ORDER BY at LIMIT {REPORTS_PER_BATCH})"
                ),
                params![&batch],
            ),
            add("group_months", "group_id, month", "group_id, month, org_id"),
            add("org_months", "org_id, month", "org_id, month"),
            Statement::new(
                "INSERT INTO group_days (group_id, day, org_id, egress_bytes)
                 SELECT u.group_id, u.day, u.org_id, CAST(SUM(u.egress_bytes) AS BIGINT)
                 FROM usage_reports u WHERE u.batch = $1 GROUP BY u.group_id, u.day, u.org_id
                 ON CONFLICT (group_id, day) DO UPDATE
                 SET egress_bytes = group_days.egress_bytes + excluded.egress_bytes",
                params![&batch],
            ),
            Statement::new(
                "SELECT COUNT(*) AS n FROM usage_reports WHERE batch = $1",
                params![&batch],
            ),
        ];
        let answers = self.db.batch(statements).await?;
        answers.last().and_then(|rows| rows.first()).map_or(Ok(0), |row| row.get("n"))
    }

    /// Gives each organization that has groups in service its row of the month, so that its peak is
    /// known also when nothing changes.
    pub(crate) async fn begin_month(&self, now: Timestamp) -> Result<(), DbError> {
        self.db
            .execute(Statement::new(
                "INSERT INTO org_months (org_id, month, peak_active)
                 SELECT c.org_id, CAST($1 AS BIGINT), c.active FROM org_counts c
                 WHERE c.active > 0 AND NOT EXISTS (
                     SELECT 1 FROM org_months m WHERE m.org_id = c.org_id AND m.month = $1)
                 ON CONFLICT (org_id, month) DO NOTHING",
                params![Month::of(now).number()],
            ))
            .await
            .map(|_| ())
    }

    /// Forgets reports that are in the sums and arrived before `until`, and days before yesterday.
    pub(crate) async fn forget_reports(
        &self,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<u64, DbError> {
        let reports = Statement::new(
            "DELETE FROM usage_reports WHERE batch IS NOT NULL AND at < $1",
            params![until.millis()],
        );
        let days = Statement::new(
            "DELETE FROM group_days WHERE day < $1",
            params![day_of(now).saturating_sub(1)],
        );
        Ok(self.db.execute(reports).await? + self.db.execute(days).await?)
    }

    /// What an organization has used in a month, with a page of its groups.
    pub(crate) async fn org_usage(
        &self,
        org_id: &OrgId,
        month: Month,
        limit: u32,
        offset: u32,
    ) -> Result<OrgUsage, DbError> {
        let values = || params![org_id.as_str(), month.number()];
        let unfolded = format!(
            "SELECT group_id, {FIGURES} FROM usage_reports
             WHERE org_id = $1 AND month = $2 AND batch IS NULL"
        );
        // One transaction, so that no report is in both or in neither.
        let statements = vec![
            Statement::new(
                format!(
                    "SELECT {SUMS} FROM (
                         SELECT '' AS group_id, {FIGURES} FROM org_months
                         WHERE org_id = $1 AND month = $2 UNION ALL {unfolded}) u"
                ),
                values(),
            ),
            Statement::new(
                "SELECT used_tokens, reserved_tokens, peak_active FROM org_months
                 WHERE org_id = $1 AND month = $2",
                values(),
            ),
            Statement::new(
                "SELECT active, monthly_tokens, monthly_egress_bytes FROM org_counts
                 WHERE org_id = $1",
                params![org_id.as_str()],
            ),
            Statement::new(
                format!(
                    "SELECT u.group_id, {SUMS} FROM (
                         SELECT group_id, {FIGURES} FROM group_months
                         WHERE org_id = $1 AND month = $2 UNION ALL {unfolded}) u
                     GROUP BY u.group_id
                     ORDER BY SUM(u.input_tokens) + SUM(u.output_tokens) DESC,
                         SUM(u.egress_bytes) DESC, u.group_id
                     LIMIT {} OFFSET {offset}",
                    limit + 1
                ),
                values(),
            ),
        ];
        let [sums, budget, counts, groups]: [Vec<Row>; 4] =
            self.db.batch(statements).await?.try_into().map_err(|_| {
                DbError::Other("a batch of four statements has another number of answers".into())
            })?;
        let mut usage = OrgUsage {
            org_id: org_id.clone(),
            month,
            used: sums.first().map_or(Ok(UsageFigures::default()), figures)?,
            budget_used_tokens: 0,
            budget_reserved_tokens: 0,
            monthly_tokens: None,
            monthly_egress_bytes: None,
            active_groups: 0,
            peak_active_groups: 0,
            more: groups.len() > limit as usize,
            groups: groups.iter().take(limit as usize).map(of_group).collect::<Result<_, _>>()?,
        };
        if let Some(row) = budget.first() {
            usage.budget_used_tokens = row.get("used_tokens")?;
            usage.budget_reserved_tokens = row.get("reserved_tokens")?;
            usage.peak_active_groups = row.get("peak_active")?;
        }
        if let Some(row) = counts.first() {
            usage.active_groups = row.get("active")?;
            usage.monthly_tokens = row.get("monthly_tokens")?;
            usage.monthly_egress_bytes = row.get("monthly_egress_bytes")?;
        }
        Ok(usage)
    }

    /// What a group has used, by month.
    pub(crate) async fn group_usage(&self, group_id: &GroupId) -> Result<GroupUsage, DbError> {
        let sql = format!(
            "SELECT u.month, {SUMS} FROM (
                 SELECT month, {FIGURES} FROM group_months WHERE group_id = $1
                 UNION ALL
                 SELECT month, {FIGURES} FROM usage_reports WHERE group_id = $1 AND batch IS NULL) u
             GROUP BY u.month ORDER BY u.month DESC LIMIT {MONTHS_LISTED}"
        );
        let rows = self.db.query(Statement::new(sql, params![group_id.as_str()])).await?;
        let months = rows.iter().map(|row| {
            let month = Month::from_number(row.get("month")?)
                .map_err(|error| DbError::decode("group_months.month", error))?;
            Ok(UsageOfMonth { month, used: figures(row)? })
        });
        Ok(GroupUsage {
            group_id: group_id.clone(),
            months: months.collect::<Result<_, DbError>>()?,
        })
    }
}

impl Directory {
    /// Notes that a caller went beyond a rate of an organization.
    pub(crate) async fn flag_org(
        &self,
        org_id: &OrgId,
        kind: RefusedKind,
        group_id: Option<&GroupId>,
        now: Timestamp,
    ) -> Result<(), DbError> {
        self.db.execute(flag(org_id, "", kind.as_str(), group_id, 1, now)).await.map(|_| ())
    }

    /// Who went beyond a rate, the latest first; of one organization where it is named.
    pub(crate) async fn flags(
        &self,
        org_id: Option<&OrgId>,
        limit: u32,
        offset: u32,
    ) -> Result<Vec<AbuseFlag>, DbError> {
        let (only, values) = match org_id {
            Some(org_id) => ("WHERE org_id = $1", params![org_id.as_str()]),
            None => ("", params![]),
        };
        let sql = format!(
            "SELECT org_id, user_id, kind, group_id, count, first_at, last_at FROM abuse_flags {only}
             ORDER BY last_at DESC, org_id, user_id, kind LIMIT {limit} OFFSET {offset}"
        );
        let rows = self.db.query(Statement::new(sql, values)).await?;
        rows.iter().map(read_flag).collect()
    }

    /// Forgets who went beyond a rate before `until` and not since.
    pub(crate) async fn forget_flags(&self, until: Timestamp) -> Result<u64, DbError> {
        self.db
            .execute(Statement::new(
                "DELETE FROM abuse_flags WHERE last_at < $1",
                params![until.millis()],
            ))
            .await
    }
}

fn read_flag(row: &Row) -> Result<AbuseFlag, DbError> {
    fn id<T: std::str::FromStr>(column: &str, text: &str) -> Result<T, DbError> {
        text.parse().map_err(|_| DbError::decode(format!("abuse_flags.{column}"), "no id"))
    }
    let (org_id, user_id): (String, String) = (row.get("org_id")?, row.get("user_id")?);
    let (kind, group_id): (String, Option<String>) = (row.get("kind")?, row.get("group_id")?);
    Ok(AbuseFlag {
        org_id: id("org_id", &org_id)?,
        user_id: if user_id.is_empty() { None } else { Some(id("user_id", &user_id)?) },
        kind: RefusedKind::parse(&kind)
            .ok_or_else(|| DbError::decode("abuse_flags.kind", "no such kind"))?,
        group_id: group_id.map(|text| id("group_id", &text)).transpose()?,
        count: row.get("count")?,
        first_at: Timestamp::from_millis(row.get("first_at")?),
        last_at: Timestamp::from_millis(row.get("last_at")?),
    })
}

/// Raises the month's peak to the count as it stands at this point of a transaction.
pub(super) fn note_peak(org_id: &OrgId, now: Timestamp) -> Statement {
    Statement::new(
        "INSERT INTO org_months (org_id, month, peak_active)
         SELECT c.org_id, CAST($2 AS BIGINT), c.active FROM org_counts c WHERE c.org_id = $1
         ON CONFLICT (org_id, month) DO UPDATE SET peak_active = CASE
             WHEN org_months.peak_active < excluded.peak_active THEN excluded.peak_active
             ELSE org_months.peak_active END",
        params![org_id.as_str(), Month::of(now).number()],
    )
}

/// Notes that somebody went beyond a rate.
pub(super) fn flag(
    org_id: &OrgId,
    user_id: &str,
    kind: &str,
    group_id: Option<&GroupId>,
    count: u64,
    now: Timestamp,
) -> Statement {
    let group_id = group_id.map(|id| id.as_str().to_owned());
    Statement::new(
        "INSERT INTO abuse_flags (org_id, user_id, kind, group_id, count, first_at, last_at)
         VALUES ($1, $2, $3, $4, $5, $6, $6)
         ON CONFLICT (org_id, user_id, kind) DO UPDATE SET group_id = excluded.group_id,
             count = abuse_flags.count + excluded.count, last_at = excluded.last_at",
        params![org_id.as_str(), user_id, kind, group_id, count, now.millis()],
    )
}

fn insert(report_id: &str, found: &OwnedRecord, month: Month, arrived: Arrived<'_>) -> Statement {
    let Arrived { key: _, request_hash, report, now } = arrived;
    let tokens = report.tokens.unwrap_or_default();
    let values: Vec<Value> = params![
        report_id,
        found.record.group_id.as_str(),
        found.record.org_id.as_str(),
        request_hash,
        now.millis(),
        month.number(),
        day_of(now),
        report.runs,
        tokens.input_tokens,
        tokens.output_tokens,
        report.cost_micro_usd,
        report.cost_unknown,
        report.egress_bytes,
        report.active_secs,
    ];
    Statement::new(
        format!(
            "INSERT INTO usage_reports
             (report_id, group_id, org_id, request_hash, at, month, day, {FIGURES})
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
             ON CONFLICT (report_id) DO NOTHING"
        ),
        values,
    )
    .expect_rows()
}

fn of_group(row: &Row) -> Result<UsageOfGroup, DbError> {
    let group_id: String = row.get("group_id")?;
    let group_id =
        GroupId::new(&group_id).map_err(|error| DbError::decode("group_months.group_id", error))?;
    Ok(UsageOfGroup { group_id, used: figures(row)? })
}

fn figures(row: &Row) -> Result<UsageFigures, DbError> {
    Ok(UsageFigures {
        runs: row.get("runs")?,
        input_tokens: row.get("input_tokens")?,
        output_tokens: row.get("output_tokens")?,
        cost_micro_usd: row.get("cost_micro_usd")?,
        cost_unknown: row.get("cost_unknown")?,
        egress_bytes: row.get("egress_bytes")?,
        active_secs: row.get("active_secs")?,
    })
}
