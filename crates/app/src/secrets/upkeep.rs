//! What brings stored secrets to the keys in use: after a change of the master key, after a change
//! of an organization's data key, and once for what was stored before there were data keys.
//!
//! Every step is idempotent and guarded by what it replaces, so several processes may do it at
//! once, and one that ends in between is made up for by the next.

use convene_db::{DbError, Row, Statement, params};
use convene_model::{OrgId, Problem, Timestamp};
use zeroize::Zeroizing;

use super::{
    cipher,
    vault::{self, SEALED_COLUMNS, Vault},
};
use crate::web::{failure::Answer, rows};

/// Rows in one read.
const BATCH: u64 = 500;

/// What was brought up to date.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// Values of the first form that went under a data key.
    pub adopted: u64,
    /// Data keys that the master key in use has wrapped anew.
    pub rewrapped: u64,
    /// Values that were sealed anew under their organization's data key in use.
    pub resealed: u64,
    /// Rows that no known master key opens; they stay as they are.
    pub unreadable: u64,
}

/// Why secrets were not brought up to date; what was done stays done.
#[derive(Debug, thiserror::Error)]
#[error("the secrets were not brought up to date: {0}")]
pub struct UpkeepError(pub(super) String);

impl From<crate::web::failure::Failure> for UpkeepError {
    fn from(failure: crate::web::failure::Failure) -> Self {
        let Problem { title, detail, .. } = failure.0;
        Self(detail.unwrap_or(title))
    }
}

impl Vault {
    /// Brings everything to the keys in use.
    pub(crate) async fn settle(&self, now: Timestamp) -> Answer<Settled> {
        let mut settled = Settled::default();
        self.rewrap(&mut settled).await?;
        self.adopt(&mut settled, now).await?;
        self.reseal(None, &mut settled, now).await?;
        Ok(settled)
    }

    /// Gives an organization another data key and seals all of its values with it.
    pub(crate) async fn rotate(&self, org: &OrgId, now: Timestamp) -> Answer<Settled> {
        const RETIRE: &str = "UPDATE data_keys SET retired_at = $2
            WHERE org_id = $1 AND retired_at IS NULL";
        let (_, insert) = self.fresh_data_key(org, now)?;
        let retire = Statement::new(RETIRE, params![org.as_str(), now.millis()]);
        self.db.batch(vec![retire, insert]).await?;
        let mut settled = Settled::default();
        self.reseal(Some(org), &mut settled, now).await?;
        Ok(settled)
    }

    /// Wraps data keys with the master key in use, each organization's with its own where it has brought one.
    async fn rewrap(&self, settled: &mut Settled) -> Answer<()> {
        const OLD: &str = "SELECT data_key_id, org_id, master_id, wrapped FROM data_keys
            WHERE data_key_id > $1 ORDER BY data_key_id LIMIT $2";
        const REWRAP: &str = "UPDATE data_keys SET master_id = $2, wrapped = $3
            WHERE data_key_id = $1 AND master_id = $4";
        self.masters.reload();
        let mut after = String::new();
        loop {
            let params = params![after.as_str(), BATCH];
            let found = self.db.query(Statement::new(OLD, params)).await?;
            let Some(last) = found.last() else { return Ok(()) };
            after = last.get("data_key_id")?;
            for row in &found {
                let (id, org): (String, OrgId) =
                    (row.get("data_key_id")?, rows::id(row, "org_id")?);
                let former: String = row.get("master_id")?;
                let master = self.masters.in_use(&org);
                if former == master.id {
                    continue;
                }
                let wrapped: String = row.get("wrapped")?;
                let Ok(key) = self.unwrap(org.as_str(), &id, &former, &wrapped) else {
                    settled.unreadable += 1;
                    continue;
                };
                let wrapped = master.wrapping.wrap(&vault::key_place(org.as_str(), &id), &key)?;
                let params = params![id, master.id.as_str(), wrapped, former];
                settled.rewrapped += self.db.execute(Statement::new(REWRAP, params)).await?;
            }
        }
    }

    /// Seals values of the first form under their organization's data key.
    async fn adopt(&self, settled: &mut Settled, now: Timestamp) -> Answer<()> {
        const OLD: &str = "SELECT secret_id, org_id, sealed FROM secrets
            WHERE sealed <> '' AND secret_id > $1 ORDER BY secret_id LIMIT $2";
        const DONE: &str = "UPDATE secrets SET sealed = ''
            WHERE secret_id = $1 AND sealed = $2";
        let mut after = String::new();
        loop {
            let params = params![after.as_str(), BATCH];
            let found = self.db.query(Statement::new(OLD, params)).await?;
            let Some(last) = found.last() else { return Ok(()) };
            after = last.get("secret_id")?;
            for row in &found {
                let (id, sealed): (String, String) = (row.get("secret_id")?, row.get("sealed")?);
                let org: OrgId = rows::id(row, "org_id")?;
                let Some(value) = self.open_first_form(&id, &sealed) else {
                    tracing::error!(secret_id = id, "a secret does not open with any master key");
                    settled.unreadable += 1;
                    continue;
                };
                let done = Statement::new(DONE, params![&id, &sealed]).expect_rows();
                let put = self.put(&org, &id, 1, &value, "", now).await?;
                match self.db.batch(vec![done, put]).await {
                    Ok(_) => settled.adopted += 1,
                    // Another process was quicker.
                    Err(DbError::Unmet { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    fn open_first_form(&self, id: &str, sealed: &str) -> Option<Zeroizing<String>> {
        let masters = self.masters.all();
        let mut opened =
            masters.iter().filter_map(|master| master.first_form.open_first_form(id, sealed));
        opened.next().and_then(cipher::text)
    }

    /// Seals values under retired data keys anew, and forgets the keys that nothing needs.
    async fn reseal(
        &self,
        org: Option<&OrgId>,
        settled: &mut Settled,
        now: Timestamp,
    ) -> Answer<()> {
        const FORGET: &str = "DELETE FROM data_keys WHERE retired_at IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM secret_versions v
                WHERE v.data_key_id = data_keys.data_key_id)";
        let sql = format!(
            "SELECT {SEALED_COLUMNS} FROM secret_versions v
             JOIN data_keys k ON k.data_key_id = v.data_key_id
             WHERE k.retired_at IS NOT NULL AND ($1 = '' OR k.org_id = $1)
             AND (v.secret_id > $2 OR (v.secret_id = $2 AND v.version > $3))
             ORDER BY v.secret_id, v.version LIMIT $4"
        );
        let mut after = (String::new(), 0_u64);
        loop {
            let only = org.map_or("", OrgId::as_str);
            let params = params![only, after.0.as_str(), after.1, BATCH];
            let found = self.db.query(Statement::new(sql.clone(), params)).await?;
            let Some(last) = found.last() else { break };
            after = (last.get("secret_id")?, last.get("version")?);
            for row in &found {
                settled.resealed += self.reseal_row(row, now).await?;
            }
        }
        self.db.execute(Statement::new(FORGET, vec![])).await?;
        Ok(())
    }

    async fn reseal_row(&self, row: &Row, now: Timestamp) -> Answer<u64> {
        const RESEAL: &str = "UPDATE secret_versions SET data_key_id = $3, sealed = $4
            WHERE secret_id = $1 AND version = $2 AND data_key_id = $5";
        let org: OrgId = rows::id(row, "org_id")?;
        let Ok(value) = self.open_row(row) else { return Ok(0) };
        let (secret, version): (String, u64) = (row.get("secret_id")?, row.get("version")?);
        let (id, key) = self.data_key(&org, now).await?;
        let sealed = key.seal(&vault::place(org.as_str(), &secret, version), value.as_bytes())?;
        let params = params![secret, version, id, sealed, row.get::<String>("data_key_id")?];
        Ok(self.db.execute(Statement::new(RESEAL, params)).await?)
    }
}
