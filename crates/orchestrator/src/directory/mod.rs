//! The directory: routing records, who owns an organization, its count and limit, revocations.
//!
//! Owns this data's schema and SQL. Never checks a token and never calls a controller.
//!
//! Only the transaction that changes a group's status changes its organization's count
//! ([`steps`]): all states count but those of a group that is archived or gone.

mod adopt;
pub(crate) mod archives;
mod blocks;
pub(crate) mod budget;
mod limits;
pub(crate) mod listing;
mod scheduled;
mod schema;
pub(crate) mod steps;
pub(crate) mod tasks;
pub(crate) mod usage;

use std::time::Duration;

use convene_db::{Db, DbError, Row, Statement, params};
use convene_model::{
    ArchiveId, GroupId, OrgId, TaskId, Timestamp, UserId,
    infra::{GroupLimits, GroupStatus, HistoryMode, RoutingRecord},
    usage::Month,
};

pub(crate) use adopt::Adoption;
pub use schema::MIGRATIONS;
use steps::{Change, StepError};

use crate::lifecycle::Step;

/// The epoch of a group that was just activated for the first time.
const FIRST_EPOCH: u64 = 1;

/// How often an activation looks again when another one was faster. One look is enough while
/// records are never removed; the bound only keeps a broken directory from holding a request.
const MAX_LOOKS: usize = 4;

/// That an active group is in use is noted at most this often: an activation and what its controller tells of
/// it right after are one commit, and groups are archived after days.
const USED_EVERY: Duration = Duration::from_secs(1);

/// What a record is read from.
const RECORD_COLUMNS: &str = "r.group_id, r.org_id, r.group_controller_id, r.status,
    r.history_mode, r.epoch, r.last_active, r.idle_at, r.region, r.archive_id, r.task_id,
    r.archive_failures, r.archive_due_at, o.issuer,
    c.blocked_at, c.monthly_tokens, c.user_posts_per_minute, c.org_posts_per_minute,
    c.user_attaches_per_minute, r.egress_until";

/// Where that is.
const RECORD_TABLES: &str = "routing_records r JOIN org_owners o ON o.org_id = r.org_id
    LEFT JOIN org_counts c ON c.org_id = r.org_id";

/// The directory on a database.
pub(crate) struct Directory {
    db: Db,
    default_max_active: u64,
}

/// A routing record, the issuer that owns its organization, and what its life needs to know.
#[derive(Debug, Clone)]
pub(crate) struct OwnedRecord {
    pub(crate) record: RoutingRecord,
    pub(crate) issuer: String,
    /// The attempt to archive that the record names, see the schema.
    pub(crate) archive_id: Option<ArchiveId>,
    /// The task that holds the group while it is on its way.
    pub(crate) task_id: Option<TaskId>,
    /// How often scheduled work could not archive it since somebody used it last.
    pub(crate) archive_failures: u64,
    /// When that is tried again, if it failed.
    pub(crate) archive_due_at: Option<Timestamp>,
    /// Whether its organization is blocked.
    pub(crate) blocked: bool,
    /// Its organization's budget of tokens in a month, where there is one.
    pub(crate) monthly_tokens: Option<u64>,
    /// What its controller has to keep.
    pub(crate) limits: GroupLimits,
}

/// A group that is to be active.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) group_id: &'a GroupId,
    pub(crate) org_id: &'a OrgId,
    pub(crate) issuer: &'a str,
    pub(crate) history_mode: HistoryMode,
    pub(crate) region: Option<&'a str>,
    pub(crate) now: Timestamp,
}

/// What became of an activation.
#[derive(Debug)]
pub(crate) enum Placement {
    /// The group is active, now or already.
    Placed(OwnedRecord),
    /// The group or its organization belongs to another issuer.
    Foreign,
    /// The group belongs to another organization of the same issuer.
    OtherOrg,
    /// The organization is blocked.
    Blocked,
    /// The group has a record, but stands where nothing makes it active but a restore, if that.
    Elsewhere(RoutingRecord),
    /// The organization has no place left.
    Full {
        /// Its limit.
        limit: u64,
        /// Its active and idle groups.
        active: u64,
    },
}

impl Directory {
    pub(crate) fn new(db: Db, default_max_active: u64) -> Self {
        Self { db, default_max_active }
    }

    /// Makes a group active, within its organization's limit.
    pub(crate) async fn place(&self, place: Place<'_>) -> Result<Placement, DbError> {
        for _ in 0..MAX_LOOKS {
            if let Some(found) = self.record(place.group_id).await? {
                return self.replace(found, place).await;
            }
            let (statements, owner_index, record_index, count_index) = self.first_placement(place);
            match self.db.batch(statements).await {
                Ok(answers) => {
                    let mut placed = first_placed(place);
                    if let Some(row) = answers.last().and_then(|rows| rows.first()) {
                        placed.limits = limits::of_group(row)?;
                    }
                    steps::tell("inactive", &placed, activation(place));
                    return Ok(Placement::Placed(placed));
                }
                Err(DbError::Unmet { index }) if index == owner_index => {
                    return Ok(Placement::Foreign);
                }
                // Another call was faster: answer by what stands now.
                Err(DbError::Unmet { index }) if index == record_index => {}
                Err(DbError::Unmet { index }) if index == count_index => {
                    if self.org_block(place.org_id).await?.blocked {
                        return Ok(Placement::Blocked);
                    }
                    let (limit, active) = self.count(place.org_id).await?;
                    return Ok(Placement::Full { limit, active });
                }
                Err(error) => return Err(error),
            }
        }
        Err(DbError::Other(format!("group {} is neither there nor absent", place.group_id)))
    }

    /// The transaction that gives a group its record, and the indexes of its three guards.
    fn first_placement(&self, place: Place<'_>) -> (Vec<Statement>, usize, usize, usize) {
        let org_id = place.org_id.as_str();
        let (record, month) = (first_record(place), Month::of(place.now));
        let statements = vec![
            Statement::new(
                "INSERT INTO org_owners (org_id, issuer, owned_since) VALUES ($1, $2, $3)
                 ON CONFLICT (org_id) DO NOTHING",
                params![org_id, place.issuer, place.now.millis()],
            ),
            Statement::new(
                "SELECT org_id FROM org_owners WHERE org_id = $1 AND issuer = $2",
                params![org_id, place.issuer],
            )
            .expect_rows(),
            Statement::new(
                // What its organization has sent this month may be all that it may.
                "INSERT INTO routing_records
                 (group_id, org_id, group_controller_id, status, history_mode, epoch,
                  activated_at, last_active, idle_at, region, egress_until)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
                     (SELECT CAST($11 AS BIGINT) FROM org_months m
                      JOIN org_counts c ON c.org_id = m.org_id
                      WHERE m.org_id = $2 AND m.month = $12
                        AND m.egress_bytes >= c.monthly_egress_bytes))
                 ON CONFLICT (group_id) DO NOTHING",
                params![
                    record.group_id.as_str(),
                    org_id,
                    &record.group_controller_id,
                    record.group_status.as_str(),
                    history_mode_name(record.history_mode),
                    record.epoch,
                    place.now.millis(),
                    record.last_active.millis(),
                    None::<i64>,
                    record.region,
                    month.next().begins_at().millis(),
                    u64::from(month.number()),
                ],
            )
            .expect_rows(),
            Statement::new(
                "INSERT INTO org_counts (org_id, active) VALUES ($1, 0)
                 ON CONFLICT (org_id) DO NOTHING",
                params![org_id],
            ),
            Statement::new(
                "UPDATE org_counts SET active = active + 1
                 WHERE org_id = $1 AND active < COALESCE(max_active, $2) AND blocked_at IS NULL",
                params![org_id, self.default_max_active],
            )
            .expect_rows(),
            usage::note_peak(place.org_id, place.now),
            steps::event("inactive", &first_placed(place), activation(place)),
            limits::of_new_group(place.group_id, place.org_id),
        ];
        (statements, 1, 2, 4)
    }

    /// Activates a group that has a record: wakes it in the directory if it sleeps.
    async fn replace(&self, found: OwnedRecord, place: Place<'_>) -> Result<Placement, DbError> {
        if found.issuer != place.issuer {
            return Ok(Placement::Foreign);
        }
        if found.record.org_id != *place.org_id {
            // Naming an organization of another issuer must not tell that it exists.
            return match self.owner(place.org_id).await? {
                Some(owner) if owner != place.issuer => Ok(Placement::Foreign),
                Some(_) | None => Ok(Placement::OtherOrg),
            };
        }
        if found.blocked {
            return Ok(Placement::Blocked);
        }
        match self.wake(found, place.issuer, "activated", place.now).await {
            Ok(mut record) => {
                if record.archive_due_at.is_some() {
                    self.used(&mut record).await?;
                }
                Ok(Placement::Placed(record))
            }
            Err((record, StepError::Db(error))) => {
                drop(record);
                Err(error)
            }
            Err((found, _)) => Ok(Placement::Elsewhere(found.record)),
        }
    }

    /// The routing record of a group, if it has one.
    pub(crate) async fn record(&self, group_id: &GroupId) -> Result<Option<OwnedRecord>, DbError> {
        let sql = format!("SELECT {RECORD_COLUMNS} FROM {RECORD_TABLES} WHERE r.group_id = $1");
        let rows = self.db.query(Statement::new(sql, params![group_id.as_str()])).await?;
        rows.first().map(OwnedRecord::try_from).transpose()
    }

    /// The issuer that owns an organization, if a group was ever activated in it.
    pub(crate) async fn owner(&self, org_id: &OrgId) -> Result<Option<String>, DbError> {
        let rows = self
            .db
            .query(Statement::new(
                "SELECT issuer FROM org_owners WHERE org_id = $1",
                params![org_id.as_str()],
            ))
            .await?;
        rows.first().map(|row| row.get("issuer")).transpose()
    }

    /// Notes that a group is in use, and wakes it in the directory if it sleeps.
    ///
    /// # Errors
    /// The record as it was read last, and why it is not active.
    pub(crate) async fn wake(
        &self,
        mut found: OwnedRecord,
        actor: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<OwnedRecord, (OwnedRecord, StepError)> {
        for _ in 0..MAX_LOOKS {
            let tried = match found.record.group_status {
                GroupStatus::Active => self.touch(&found, now).await,
                GroupStatus::Idle
                | GroupStatus::Archiving
                | GroupStatus::Archived
                | GroupStatus::Restoring
                | GroupStatus::Deleting
                | GroupStatus::Deleted => {
                    self.step(&found, in_use(&found, Step::Wake, actor, reason, now), vec![]).await
                }
            };
            match tried {
                Ok(record) => return Ok(record),
                Err(StepError::Changed) => match self.record(&found.record.group_id).await {
                    Ok(Some(again)) => found = again,
                    Ok(None) => return Err((found, StepError::Changed)),
                    Err(error) => return Err((found, error.into())),
                },
                Err(error) => return Err((found, error)),
            }
        }
        Err((found, StepError::Changed))
    }

    /// Notes that an active group was used: no step, since it stays where it is. What was noted a moment ago
    /// is not noted again.
    async fn touch(&self, found: &OwnedRecord, now: Timestamp) -> Result<OwnedRecord, StepError> {
        if now < found.record.last_active + USED_EVERY {
            return Ok(found.clone());
        }
        let touched = self
            .db
            .execute(Statement::new(
                "UPDATE routing_records
                 SET last_active = CASE WHEN last_active < $3 THEN $3 ELSE last_active END
                 WHERE group_id = $1 AND epoch = $2 AND status = 'active'",
                params![found.record.group_id.as_str(), found.record.epoch, now.millis()],
            ))
            .await?;
        if touched == 0 {
            return Err(StepError::Changed);
        }
        let mut touched = found.clone();
        touched.record.last_active = found.record.last_active.max(now);
        Ok(touched)
    }

    /// Notes that somebody uses a group that scheduled work could not archive: it is left alone until it has
    /// slept for its whole time again. A controller's report alone does not say so, since a thaw wakes it.
    async fn used(&self, found: &mut OwnedRecord) -> Result<(), DbError> {
        let sql = "UPDATE routing_records SET archive_failures = 0, archive_due_at = NULL
             WHERE group_id = $1 AND status = 'active'";
        self.db.execute(Statement::new(sql, params![found.record.group_id.as_str()])).await?;
        (found.archive_failures, found.archive_due_at) = (0, None);
        Ok(())
    }

    /// Notes that a group sleeps; it was in use until now. Asleep already nothing changes.
    pub(crate) async fn fall_asleep(
        &self,
        found: &OwnedRecord,
        actor: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), StepError> {
        if found.record.group_status == GroupStatus::Idle {
            return Ok(());
        }
        let change = in_use(found, Step::FallAsleep, actor, reason, now);
        self.step(found, change, vec![]).await.map(|_| ())
    }

    /// Notes that the controller knows that its group is not archived.
    pub(crate) async fn thawed(
        &self,
        group_id: &GroupId,
        archive_id: &ArchiveId,
    ) -> Result<(), DbError> {
        self.db
            .execute(Statement::new(
                "UPDATE routing_records SET archive_id = NULL
                 WHERE group_id = $1 AND archive_id = $2 AND status IN ('active', 'idle')",
                params![group_id.as_str(), archive_id.as_str()],
            ))
            .await
            .map(|_| ())
    }

    /// Raises the epoch of a group that nothing is being done to; false when it is not `from`, and
    /// then nothing changes.
    pub(crate) async fn raise_epoch(&self, group_id: &GroupId, from: u64) -> Result<bool, DbError> {
        let raised = self
            .db
            .execute(Statement::new(
                "UPDATE routing_records SET epoch = epoch + 1
                 WHERE group_id = $1 AND epoch = $2 AND status IN ('active', 'idle', 'archived')",
                params![group_id.as_str(), from],
            ))
            .await?;
        Ok(raised > 0)
    }

    /// Records that a user's routing tokens issued until `now` are void. An earlier instant than
    /// the one on record changes nothing.
    pub(crate) async fn revoke(
        &self,
        group_id: &GroupId,
        user_id: &UserId,
        now: Timestamp,
    ) -> Result<(), DbError> {
        self.db
            .execute(Statement::new(
                "INSERT INTO access_revocations (group_id, user_id, revoked_at)
                 VALUES ($1, $2, $3)
                 ON CONFLICT (group_id, user_id) DO UPDATE SET revoked_at = excluded.revoked_at
                 WHERE access_revocations.revoked_at < excluded.revoked_at",
                params![group_id.as_str(), user_id.as_str(), now.millis()],
            ))
            .await?;
        Ok(())
    }

    /// Until when a user's routing tokens are void, if they are.
    pub(crate) async fn revoked_at(
        &self,
        group_id: &GroupId,
        user_id: &UserId,
    ) -> Result<Option<Timestamp>, DbError> {
        let rows = self
            .db
            .query(Statement::new(
                "SELECT revoked_at FROM access_revocations WHERE group_id = $1 AND user_id = $2",
                params![group_id.as_str(), user_id.as_str()],
            ))
            .await?;
        rows.first().map(|row| row.get("revoked_at").map(Timestamp::from_millis)).transpose()
    }

    /// An organization's limit and how many groups count against it.
    pub(crate) async fn count(&self, org_id: &OrgId) -> Result<(u64, u64), DbError> {
        let rows = self
            .db
            .query(Statement::new(
                "SELECT active, max_active FROM org_counts WHERE org_id = $1",
                params![org_id.as_str()],
            ))
            .await?;
        let Some(row) = rows.first() else { return Ok((self.default_max_active, 0)) };
        let limit = row.get::<Option<u64>>("max_active")?.unwrap_or(self.default_max_active);
        Ok((limit, row.get("active")?))
    }

    /// Writes statements in one transaction; what is guarded among them and not met says that the
    /// caller's task is somebody else's, and then nothing is written and nothing is wrong.
    pub(crate) async fn write(&self, statements: Vec<Statement>) -> Result<(), DbError> {
        match self.db.batch(statements).await {
            Ok(_) | Err(DbError::Unmet { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// That the database answers.
    pub(crate) async fn ping(&self) -> Result<(), DbError> {
        self.db.query(Statement::new("SELECT 1 AS one", params![])).await.map(|_| ())
    }
}

fn first_record(place: Place<'_>) -> RoutingRecord {
    RoutingRecord {
        group_id: place.group_id.clone(),
        org_id: place.org_id.clone(),
        group_controller_id: place.group_id.controller_id(),
        group_status: GroupStatus::Active,
        history_mode: place.history_mode,
        epoch: FIRST_EPOCH,
        last_active: place.now,
        idle_at: None,
        region: place.region.map(str::to_owned),
    }
}

fn first_placed(place: Place<'_>) -> OwnedRecord {
    OwnedRecord {
        record: first_record(place),
        issuer: place.issuer.to_owned(),
        archive_id: None,
        task_id: None,
        archive_failures: 0,
        archive_due_at: None,
        blocked: false,
        monthly_tokens: None,
        limits: GroupLimits::default(),
    }
}

fn activation(place: Place<'_>) -> Change<'_> {
    Change {
        step: Step::Activate,
        actor: place.issuer,
        reason: "activated",
        archive_id: None,
        task_id: None,
        now: place.now,
    }
}

/// A step that only says whether a group is used: what else the record names stays.
fn in_use<'a>(
    found: &'a OwnedRecord,
    step: Step,
    actor: &'a str,
    reason: &'a str,
    now: Timestamp,
) -> Change<'a> {
    let (archive_id, task_id) = (found.archive_id.as_ref(), found.task_id.as_ref());
    Change { step, actor, reason, archive_id, task_id, now }
}

impl TryFrom<&Row> for OwnedRecord {
    type Error = DbError;

    fn try_from(row: &Row) -> Result<Self, DbError> {
        let text = |column: &str| row.get::<String>(column);
        let impossible = |column: &str, value: &str| {
            let group = text("group_id").unwrap_or_default();
            DbError::decode(
                format!("routing_records.{column}"),
                format!("group {group:?} has {value:?}"),
            )
        };
        let (group_id, org_id) = (text("group_id")?, text("org_id")?);
        let (status, history_mode) = (text("status")?, text("history_mode")?);
        let record = RoutingRecord {
            group_id: GroupId::new(&group_id).map_err(|_| impossible("group_id", &group_id))?,
            org_id: OrgId::new(&org_id).map_err(|_| impossible("org_id", &org_id))?,
            group_controller_id: text("group_controller_id")?,
            group_status: GroupStatus::parse(&status)
                .ok_or_else(|| impossible("status", &status))?,
            history_mode: parse_history_mode(&history_mode)
                .ok_or_else(|| impossible("history_mode", &history_mode))?,
            epoch: row.get("epoch")?,
            last_active: Timestamp::from_millis(row.get("last_active")?),
            idle_at: row.get::<Option<u64>>("idle_at")?.map(Timestamp::from_millis),
            region: row.get("region")?,
        };
        let archive_id: Option<String> = row.get("archive_id")?;
        let task_id: Option<String> = row.get("task_id")?;
        Ok(Self {
            record,
            issuer: text("issuer")?,
            archive_failures: row.get("archive_failures")?,
            archive_due_at: row.get::<Option<u64>>("archive_due_at")?.map(Timestamp::from_millis),
            blocked: row.get::<Option<u64>>("blocked_at")?.is_some(),
            monthly_tokens: row.get("monthly_tokens")?,
            limits: limits::of_group(row)?,
            archive_id: archive_id
                .map(|id| ArchiveId::new(&id).map_err(|_| impossible("archive_id", &id)))
                .transpose()?,
            task_id: task_id
                .map(|id| TaskId::new(&id).map_err(|_| impossible("task_id", &id)))
                .transpose()?,
        })
    }
}

const fn history_mode_name(mode: HistoryMode) -> &'static str {
    match mode {
        HistoryMode::Internal => "internal",
        HistoryMode::External => "external",
    }
}

fn parse_history_mode(name: &str) -> Option<HistoryMode> {
    [HistoryMode::Internal, HistoryMode::External]
        .into_iter()
        .find(|mode| history_mode_name(*mode) == name)
}

#[cfg(test)]
mod tests {
    use convene_db::Value;

    use super::*;

    fn row(status: &str, history_mode: &str) -> Row {
        let columns = [
            "group_id",
            "org_id",
            "group_controller_id",
            "status",
            "history_mode",
            "epoch",
            "last_active",
            "idle_at",
            "region",
            "archive_id",
            "task_id",
            "archive_failures",
            "archive_due_at",
            "issuer",
            "blocked_at",
            "monthly_tokens",
            "user_posts_per_minute",
            "org_posts_per_minute",
            "user_attaches_per_minute",
            "egress_until",
        ];
        let values = vec![
            Value::from("g1"),
            Value::from("o1"),
            Value::from("c1"),
            Value::from(status),
            Value::from(history_mode),
            Value::Int(1),
            Value::Int(5),
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Int(0),
            Value::Null,
            Value::from("app"),
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
        ];
        Row::new(columns.map(str::to_owned).into(), values)
    }

    #[test]
    fn a_row_is_read_back_as_the_record_that_it_was() {
        let read = OwnedRecord::try_from(&row("idle", "internal")).expect("the row is sound");
        assert_eq!(read.record.group_status, GroupStatus::Idle);
        assert_eq!(read.record.last_active, Timestamp::from_millis(5));
        assert_eq!(read.issuer, "app");
    }

    #[test]
    fn an_impossible_row_names_table_column_and_row() {
        for (row, column) in
            [(row("asleep", "internal"), "status"), (row("idle", "none"), "history_mode")]
        {
            let error = OwnedRecord::try_from(&row).expect_err("the row is impossible").to_string();
            assert!(error.contains(&format!("routing_records.{column}")), "{error}");
            assert!(error.contains("\"g1\""), "{error}");
        }
    }
}
