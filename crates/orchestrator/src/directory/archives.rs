//! Archives: what is known of each attempt to write a snapshot.

use convene_db::{DbError, Row, Statement, params};
use convene_model::{
    ArchiveId, GroupId, OrgId, Timestamp,
    archive::{Digest, Frozen, Manifest},
};

use super::{Directory, tasks::Claim};

/// The snapshot of an archived group, as it was marked.
#[derive(Debug, Clone)]
pub(crate) struct ArchiveRow {
    pub(crate) archive_id: ArchiveId,
    pub(crate) snapshot_id: Digest,
    /// The epoch that the group was frozen under.
    pub(crate) epoch: u64,
    pub(crate) last_seq: u64,
    pub(crate) chain: Digest,
    pub(crate) checksum: Digest,
    /// When the controller confirmed that it has nothing more of the group.
    pub(crate) wiped_at: Option<Timestamp>,
}

impl Directory {
    /// Notes that a snapshot is about to be written; false when the task is somebody else's by now.
    pub(crate) async fn begin_archive_row(
        &self,
        claim: &Claim,
        (group_id, org_id): (&GroupId, &OrgId),
        frozen: &Frozen,
        snapshot_id: &Digest,
        now: Timestamp,
    ) -> Result<bool, DbError> {
        let insert = Statement::new(
            "INSERT INTO archives
             (archive_id, group_id, org_id, state, snapshot_id, epoch, last_seq, chain, begun_at)
             VALUES ($1, $2, $3, 'writing', $4, $5, $6, $7, $8)
             ON CONFLICT (archive_id) DO NOTHING",
            params![
                frozen.archive_id.as_str(),
                group_id.as_str(),
                org_id.as_str(),
                snapshot_id.to_string(),
                frozen.epoch,
                frozen.last_seq,
                frozen.chain.to_string(),
                now.millis(),
            ],
        );
        match self.db.batch(vec![claim.guard(now), insert]).await {
            Ok(_) => Ok(true),
            Err(DbError::Unmet { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The snapshot of an attempt that was marked.
    pub(crate) async fn archive(
        &self,
        archive_id: &ArchiveId,
    ) -> Result<Option<ArchiveRow>, DbError> {
        let rows = self
            .db
            .query(Statement::new(
                "SELECT archive_id, snapshot_id, epoch, last_seq, chain, checksum, wiped_at
                 FROM archives WHERE archive_id = $1 AND state = 'kept'",
                params![archive_id.as_str()],
            ))
            .await?;
        rows.first().map(ArchiveRow::try_from).transpose()
    }

    /// Whether there is a row of an attempt, marked or not.
    pub(crate) async fn knows_archive(&self, archive_id: &ArchiveId) -> Result<bool, DbError> {
        let rows = self
            .db
            .query(Statement::new(
                "SELECT state FROM archives WHERE archive_id = $1",
                params![archive_id.as_str()],
            ))
            .await?;
        Ok(!rows.is_empty())
    }

    /// What an attempt that was never marked may have left in the store.
    pub(crate) async fn left_behind(
        &self,
        archive_id: &ArchiveId,
    ) -> Result<Option<Digest>, DbError> {
        let rows = self
            .db
            .query(Statement::new(
                "SELECT snapshot_id FROM archives WHERE archive_id = $1 AND state = 'writing'",
                params![archive_id.as_str()],
            ))
            .await?;
        rows.first().map(|row| digest(row, "snapshot_id")).transpose()
    }
}

/// Notes what was written and verified, with the mark.
pub(crate) fn keep(manifest: &Manifest, now: Timestamp) -> Statement {
    Statement::new(
        "UPDATE archives SET state = 'kept', checksum = $2, bytes = $3, plain_bytes = $4,
                messages = $5, events = $6, marked_at = $7
         WHERE archive_id = $1",
        params![
            manifest.archive_id.as_str(),
            manifest.checksum.to_string(),
            manifest.bytes,
            manifest.plain_bytes,
            manifest.messages,
            manifest.events,
            now.millis(),
        ],
    )
}

/// Notes that the controller has nothing more of the group.
pub(crate) fn wiped(archive_id: &ArchiveId, now: Timestamp) -> Statement {
    Statement::new(
        "UPDATE archives SET wiped_at = $2 WHERE archive_id = $1 AND wiped_at IS NULL",
        params![archive_id.as_str(), now.millis()],
    )
}

/// Forgets an attempt whose leftovers are gone from the store.
pub(crate) fn forget(archive_id: &ArchiveId) -> Statement {
    Statement::new(
        "DELETE FROM archives WHERE archive_id = $1 AND state = 'writing'",
        params![archive_id.as_str()],
    )
}

/// Forgets all snapshots of a group and who lost access to it.
pub(crate) fn forget_group(group_id: &GroupId) -> [Statement; 2] {
    [
        Statement::new("DELETE FROM archives WHERE group_id = $1", params![group_id.as_str()]),
        Statement::new(
            "DELETE FROM access_revocations WHERE group_id = $1",
            params![group_id.as_str()],
        ),
    ]
}

fn digest(row: &Row, column: &str) -> Result<Digest, DbError> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| DbError::decode(format!("archives.{column}"), error))
}

impl TryFrom<&Row> for ArchiveRow {
    type Error = DbError;

    fn try_from(row: &Row) -> Result<Self, DbError> {
        let archive_id: String = row.get("archive_id")?;
        Ok(Self {
            archive_id: ArchiveId::new(archive_id)
                .map_err(|error| DbError::decode("archives.archive_id", error))?,
            snapshot_id: digest(row, "snapshot_id")?,
            epoch: row.get("epoch")?,
            last_seq: row.get("last_seq")?,
            chain: digest(row, "chain")?,
            checksum: digest(row, "checksum")?,
            wiped_at: row.get::<Option<u64>>("wiped_at")?.map(Timestamp::from_millis),
        })
    }
}
