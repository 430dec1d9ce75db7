//! Leader leases: of several processes on one database, one at a time does a piece of work.
//!
//! Owns one table, which is part of the schema of whoever uses it, and two compare-and-sets on it.
//! A lease keeps work from being done twice in vain; it never makes work correct. A holder that
//! stalls for longer than its lease does not know that it has lost it, so each step of the work is
//! a compare-and-set of its own, or brings [`Lease::guard`] into its batch.

use std::time::Duration;

use convene_model::Timestamp;

use crate::{Database, DbError, Statement, params};

/// The table of the leases, as a migration of the schema that they belong to. It never changes.
pub const LEASES_TABLE: &str = "CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    term BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
)";

/// A lease that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What it is for.
    pub name: String,
    /// Who has it: a name that no other process has, also not after a restart.
    pub holder: String,
    /// Grows whenever the lease passes to somebody, also back to its former holder.
    pub term: u64,
    /// Until when it holds unless it is renewed.
    pub expires_at: Timestamp,
}

/// Takes the lease `name` for `holder`, or renews it, until `now + ttl`; `None` while somebody else
/// has it.
///
/// Renew it well before it runs out: three times within `ttl` lets two attempts fail. The clocks of
/// the holders are compared with each other, so `ttl` is to be longer than they may differ.
///
/// # Errors
/// [`DbError`] of the database. After [`DbError::Unavailable`] the holder may have it or not; it
/// goes on as one that has not.
pub async fn leader(
    db: &dyn Database,
    name: &str,
    holder: &str,
    now: Timestamp,
    ttl: Duration,
) -> Result<Option<Lease>, DbError> {
    const SQL: &str = "INSERT INTO leases (name, holder, term, expires_at) VALUES ($1, $2, 1, $4)
        ON CONFLICT (name) DO UPDATE SET
            term = CASE WHEN leases.holder = excluded.holder AND leases.expires_at > $3
                THEN leases.term ELSE leases.term + 1 END,
            holder = excluded.holder, expires_at = excluded.expires_at
        WHERE leases.holder = excluded.holder OR leases.expires_at <= $3
        RETURNING term";
    let expires_at = now + ttl;
    let values = params![name, holder, now.millis(), expires_at.millis()];
    let rows = db.query(Statement::new(SQL, values)).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (name, holder) = (name.to_owned(), holder.to_owned());
    Ok(Some(Lease { name, holder, term: row.get("term")?, expires_at }))
}

impl Lease {
    /// A statement for the batch of a step: it meets a row while this lease is held and nobody has
    /// taken it over, and rolls the batch back otherwise ([`DbError::Unmet`]).
    #[must_use]
    pub fn guard(&self, now: Timestamp) -> Statement {
        const SQL: &str = "SELECT term FROM leases
            WHERE name = $1 AND holder = $2 AND term = $3 AND expires_at > $4";
        let values = params![self.name.as_str(), self.holder.as_str(), self.term, now.millis()];
        Statement::new(SQL, values).expect_rows()
    }

    /// Gives the lease up, so that another need not wait until it runs out. Nothing happens when it
    /// has passed to somebody already.
    ///
    /// # Errors
    /// [`DbError`] of the database; the lease then runs out by itself.
    pub async fn resign(&self, db: &dyn Database) -> Result<(), DbError> {
        const SQL: &str = "UPDATE leases SET expires_at = 0
            WHERE name = $1 AND holder = $2 AND term = $3";
        let values = params![self.name.as_str(), self.holder.as_str(), self.term];
        db.execute(Statement::new(SQL, values)).await.map(|_| ())
    }
}
