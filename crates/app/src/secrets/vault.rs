//! Where values are sealed and opened: under their organization's data key, which a master key
//! wraps.
//!
//! A row names the data key that sealed it, a data key the master key that wrapped it, so both can
//! be changed while others still open what is older. What is opened here is kept by nobody.

use convene_db::{Db, DbError, Row, Statement, params};
use convene_model::{Code, OrgId, Problem, Timestamp};
use zeroize::Zeroizing;

use super::{
    cipher::{self, Key},
    master::{MasterKeyReader, MasterKeys, Masters},
};
use crate::{state::fresh_id, web::failure::Answer};

/// Seals and opens the values of all organizations.
pub(crate) struct Vault {
    pub(super) db: Db,
    pub(super) masters: Masters,
}

/// What the row of a version needs so that it opens.
pub(super) const SEALED_COLUMNS: &str = "v.secret_id, v.version, v.sealed, v.data_key_id,
    k.org_id, k.master_id, k.wrapped";

impl Vault {
    /// A vault over the workspace's database; `reader` brings master keys that come later.
    pub(crate) fn new(db: Db, reader: MasterKeyReader, keys: &MasterKeys) -> Self {
        Self { db, masters: Masters::new(reader, keys) }
    }

    /// The statement that stores a value as one version of a secret.
    pub(crate) async fn put(
        &self,
        org: &OrgId,
        secret: &str,
        version: u64,
        value: &str,
        by: &str,
        now: Timestamp,
    ) -> Answer<Statement> {
        const SQL: &str = "INSERT INTO secret_versions
            (secret_id, version, data_key_id, sealed, created_at, created_by)
            VALUES ($1, $2, $3, $4, $5, $6)";
        let (id, key) = self.data_key(org, now).await?;
        let sealed = key.seal(&place(org.as_str(), secret, version), value.as_bytes())?;
        let params = params![secret, version, id, sealed, now.millis(), by];
        Ok(Statement::new(SQL, params))
    }

    /// The value of a secret, of one version of it or of the one in use; `None` when there is no
    /// such secret. The caller keeps it no longer than it is used.
    pub(crate) async fn open(
        &self,
        org: &OrgId,
        secret: &str,
        version: Option<u64>,
    ) -> Answer<Option<Zeroizing<String>>> {
        let sql = format!(
            "SELECT {SEALED_COLUMNS} FROM secrets s
             JOIN secret_versions v ON v.secret_id = s.secret_id
             JOIN data_keys k ON k.data_key_id = v.data_key_id
             WHERE s.org_id = $1 AND s.secret_id = $2
             AND v.version = COALESCE(CAST($3 AS BIGINT), s.version)"
        );
        let params = params![org.as_str(), secret, version];
        let found = self.db.query(Statement::new(sql, params)).await?;
        let Some(row) = found.first() else { return Ok(None) };
        Ok(Some(self.open_row(row)?))
    }

    /// The value in a row of [`SEALED_COLUMNS`].
    pub(super) fn open_row(&self, row: &Row) -> Answer<Zeroizing<String>> {
        let (org, secret) = (row.get::<String>("org_id")?, row.get::<String>("secret_id")?);
        let data_key = row.get::<String>("data_key_id")?;
        let (master, wrapped) = (row.get::<String>("master_id")?, row.get::<String>("wrapped")?);
        let key = self.unwrap(&org, &data_key, &master, &wrapped)?;
        let place = place(&org, &secret, row.get("version")?);
        let value = key.open(&place, &row.get::<String>("sealed")?).and_then(cipher::text);
        value.ok_or_else(|| {
            tracing::error!(secret_id = secret, "a secret does not open: its row was changed");
            Code::Internal.into()
        })
    }

    /// The data key of an organization and its id; made when there is none in use.
    pub(super) async fn data_key(&self, org: &OrgId, now: Timestamp) -> Answer<(String, Key)> {
        const IN_USE: &str = "SELECT data_key_id, master_id, wrapped FROM data_keys
            WHERE org_id = $1 AND retired_at IS NULL";
        // Of two processes that make the first key at once, one finds the other's.
        for _ in 0..3 {
            let found = self.db.query(Statement::new(IN_USE, params![org.as_str()])).await?;
            if let Some(row) = found.first() {
                let id: String = row.get("data_key_id")?;
                let (master, wrapped): (String, String) =
                    (row.get("master_id")?, row.get("wrapped")?);
                let key = self.unwrap(org.as_str(), &id, &master, &wrapped)?;
                return Ok((id, key));
            }
            let (_, insert) = self.fresh_data_key(org, now)?;
            match self.db.execute(insert).await {
                Ok(_) | Err(DbError::Unique { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Code::Conflict.into())
    }

    /// A new data key's id and the statement that stores it.
    pub(super) fn fresh_data_key(
        &self,
        org: &OrgId,
        now: Timestamp,
    ) -> Result<(String, Statement), Problem> {
        const SQL: &str = "INSERT INTO data_keys
            (data_key_id, org_id, master_id, wrapped, created_at) VALUES ($1, $2, $3, $4, $5)";
        let (id, master) = (fresh_id(now), self.masters.current(org));
        let wrapped = master.wrapping.wrap(&key_place(org.as_str(), &id), &Key::random()?)?;
        let params = params![&id, org.as_str(), master.id, wrapped, now.millis()];
        Ok((id, Statement::new(SQL, params)))
    }

    /// A data key, opened by the master key that wrapped it.
    pub(super) fn unwrap(
        &self,
        org: &str,
        id: &str,
        master: &str,
        wrapped: &str,
    ) -> Result<Key, Problem> {
        let found = self.masters.find(master);
        let key = found.and_then(|master| master.wrapping.unwrap(&key_place(org, id), wrapped));
        key.ok_or_else(|| {
            tracing::error!(
                data_key_id = id,
                master_key_id = master,
                "a data key does not open: its master key is missing, or its row was changed"
            );
            Problem::new(Code::Internal)
        })
    }
}

/// Where a value belongs: it opens nowhere else.
pub(super) fn place(org: &str, secret: &str, version: u64) -> String {
    format!("{org}/{secret}/{version}")
}

/// Where a data key belongs.
pub(super) fn key_place(org: &str, id: &str) -> String {
    format!("{org}/{id}")
}
