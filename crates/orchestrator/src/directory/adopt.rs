//! The record of a group whose snapshot came from elsewhere.

use convene_db::{DbError, Statement, params};
use convene_model::{
    Timestamp,
    archive::Manifest,
    infra::{GroupLimits, GroupStatus, RoutingRecord},
};

use super::{
    Directory, OwnedRecord, history_mode_name,
    steps::{self, Change},
};
use crate::lifecycle::Step;

/// What became of an adoption.
#[derive(Debug)]
pub(crate) enum Adoption {
    /// The group is archived, in this snapshot.
    Adopted(RoutingRecord),
    /// Its organization is another app's.
    OtherOwner,
    /// The group has a record.
    Known,
}

impl Directory {
    /// Gives a group without a record the one of an archived group, and its organization an owner.
    pub(crate) async fn adopt(
        &self,
        manifest: &Manifest,
        owner: &str,
        actor: &str,
        now: Timestamp,
    ) -> Result<Adoption, DbError> {
        let adopted = adopted(manifest, owner, now);
        let (record, org_id) = (&adopted.record, manifest.org_id.as_str());
        let change = Change {
            step: Step::Adopt,
            actor,
            reason: "adopted",
            archive_id: Some(&manifest.archive_id),
            task_id: None,
            now,
        };
        let statements = vec![
            Statement::new(
                "INSERT INTO org_owners (org_id, issuer, owned_since) VALUES ($1, $2, $3)
                 ON CONFLICT (org_id) DO NOTHING",
                params![org_id, owner, now.millis()],
            ),
            Statement::new(
                "SELECT org_id FROM org_owners WHERE org_id = $1 AND issuer = $2",
                params![org_id, owner],
            )
            .expect_rows(),
            Statement::new(
                "INSERT INTO routing_records
                 (group_id, org_id, group_controller_id, status, history_mode, epoch,
                  activated_at, last_active, idle_at, region, archive_id)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $7, NULL, NULL, $8)
                 ON CONFLICT (group_id) DO NOTHING",
                params![
                    record.group_id.as_str(),
                    org_id,
                    &record.group_controller_id,
                    record.group_status.as_str(),
                    history_mode_name(record.history_mode),
                    record.epoch,
                    now.millis(),
                    manifest.archive_id.as_str(),
                ],
            )
            .expect_rows(),
            Statement::new(
                "INSERT INTO org_counts (org_id, active) VALUES ($1, 0)
                 ON CONFLICT (org_id) DO NOTHING",
                params![org_id],
            ),
            // There is nothing of it here that would have to be wiped.
            Statement::new(
                "INSERT INTO archives
                 (archive_id, group_id, org_id, state, snapshot_id, epoch, last_seq, chain,
                  checksum, bytes, plain_bytes, messages, events, begun_at, marked_at, wiped_at)
                 VALUES ($1, $2, $3, 'kept', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13, $13)
                 ON CONFLICT (archive_id) DO NOTHING",
                params![
                    manifest.archive_id.as_str(),
                    record.group_id.as_str(),
                    org_id,
                    manifest.snapshot_id.to_string(),
                    manifest.epoch,
                    manifest.last_seq,
                    manifest.chain.to_string(),
                    manifest.checksum.to_string(),
                    manifest.bytes,
                    manifest.plain_bytes,
                    manifest.messages,
                    manifest.events,
                    now.millis(),
                ],
            )
            .expect_rows(),
            steps::event("inactive", &adopted, change),
        ];
        match self.db.batch(statements).await {
            Ok(_) => {
                steps::tell("inactive", &adopted, change);
                Ok(Adoption::Adopted(adopted.record))
            }
            Err(DbError::Unmet { index: 1 }) => Ok(Adoption::OtherOwner),
            Err(DbError::Unmet { .. }) => Ok(Adoption::Known),
            Err(error) => Err(error),
        }
    }
}

fn adopted(manifest: &Manifest, owner: &str, now: Timestamp) -> OwnedRecord {
    OwnedRecord {
        record: RoutingRecord {
            group_id: manifest.group_id.clone(),
            org_id: manifest.org_id.clone(),
            group_controller_id: manifest.group_id.controller_id(),
            group_status: GroupStatus::Archived,
            history_mode: manifest.history_mode,
            epoch: manifest.epoch,
            last_active: now,
            idle_at: None,
            region: None,
        },
        issuer: owner.to_owned(),
        archive_id: Some(manifest.archive_id.clone()),
        task_id: None,
        archive_failures: 0,
        archive_due_at: None,
        blocked: false,
        monthly_tokens: None,
        limits: GroupLimits::default(),
    }
}
