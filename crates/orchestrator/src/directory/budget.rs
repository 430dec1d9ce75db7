//! An organization's budget of tokens: reserved before a run, settled after it.
//!
//! For each organization and month `used_tokens + reserved_tokens` is what counts against the budget.
//! A reservation is one conditional update of that row, in the transaction that records whose it is;
//! settling moves its tokens from one sum to the other. A run that says more than it had reserved is
//! believed: the next reservation then finds less room.

use convene_db::{DbError, Row, Statement, params};
use convene_model::{
    GroupId, OrgId, RunId, Timestamp,
    usage::{Month, RESERVATION_TTL, ReleasedReservation},
};

use super::{Directory, OwnedRecord};

/// What becomes of an organization's budget while it has none.
const NO_LIMIT: u64 = i64::MAX as u64;

/// How often a reservation is looked at again when somebody else changed it meanwhile.
const MAX_LOOKS: usize = 4;

/// A reservation as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reserved {
    pub(crate) month: Month,
    pub(crate) tokens: u64,
    pub(crate) state: ReservationState,
    pub(crate) expires_at: Timestamp,
}

/// Where a reservation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReservationState {
    /// Its run is under way.
    Held,
    /// It was settled at its full amount, since nobody said what its run had used.
    Expired,
    /// Its run has said what it used.
    Settled,
}

/// What became of the wish to reserve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Granted {
    /// It is held, now or already.
    Held(Reserved),
    /// The run had a reservation that has ended.
    Ended,
    /// There is not so much left.
    Exhausted {
        /// The month's budget.
        limit: u64,
        used: u64,
        reserved: u64,
        /// When the next month begins.
        resets_at: Timestamp,
    },
}

impl ReservationState {
    const ALL: [Self; 3] = [Self::Held, Self::Expired, Self::Settled];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Expired => "expired",
            Self::Settled => "settled",
        }
    }
}

impl Directory {
    /// Reserves tokens for a run, once.
    pub(crate) async fn reserve(
        &self,
        found: &OwnedRecord,
        run_id: &RunId,
        tokens: u64,
        now: Timestamp,
    ) -> Result<Granted, DbError> {
        let (group_id, org_id) = (&found.record.group_id, &found.record.org_id);
        let (month, expires_at) = (Month::of(now), now + RESERVATION_TTL);
        for _ in 0..MAX_LOOKS {
            let statements = vec![
                Statement::new(
                    "INSERT INTO reservations
                     (group_id, run_id, org_id, month, tokens, state, reserved_at, expires_at)
                     VALUES ($1, $2, $3, $4, $5, 'held', $6, $7)
                     ON CONFLICT (group_id, run_id) DO NOTHING",
                    params![
                        group_id.as_str(),
                        run_id.as_str(),
                        org_id.as_str(),
                        month.number(),
                        tokens,
                        now.millis(),
                        expires_at.millis(),
                    ],
                )
                .expect_rows(),
                month_exists(org_id, month),
                Statement::new(
                    "UPDATE org_months SET reserved_tokens = reserved_tokens + $3
                     WHERE org_id = $1 AND month = $2
                       AND used_tokens + reserved_tokens + $3 <= (
                           SELECT COALESCE(monthly_tokens, $4) FROM org_counts
                           WHERE org_id = $1 AND blocked_at IS NULL)",
                    params![org_id.as_str(), month.number(), tokens, NO_LIMIT],
                )
                .expect_rows(),
            ];
            match self.db.batch(statements).await {
                Ok(_) => {
                    let state = ReservationState::Held;
                    return Ok(Granted::Held(Reserved { month, tokens, state, expires_at }));
                }
                Err(DbError::Unmet { index: 0 }) => {
                    match self.reservation(group_id, run_id).await? {
                        Some(held) if held.state == ReservationState::Held => {
                            return Ok(Granted::Held(held));
                        }
                        Some(_) => return Ok(Granted::Ended),
                        None => {}
                    }
                }
                Err(DbError::Unmet { .. }) => return self.exhausted(org_id, month).await,
                Err(error) => return Err(error),
            }
        }
        Err(DbError::Other(format!(
            "the reservation of {group_id}/{run_id} is neither there nor absent"
        )))
    }

    async fn exhausted(&self, org_id: &OrgId, month: Month) -> Result<Granted, DbError> {
        let rows = self
            .db
            .query(Statement::new(
                "SELECT COALESCE(c.monthly_tokens, $3) AS budget,
                     COALESCE(m.used_tokens, 0) AS used, COALESCE(m.reserved_tokens, 0) AS reserved
                 FROM org_counts c
                 LEFT JOIN org_months m ON m.org_id = c.org_id AND m.month = $2
                 WHERE c.org_id = $1",
                params![org_id.as_str(), month.number(), NO_LIMIT],
            ))
            .await?;
        let (mut limit, mut used, mut reserved) = (0, 0, 0);
        if let Some(row) = rows.first() {
            (limit, used, reserved) = (row.get("budget")?, row.get("used")?, row.get("reserved")?);
        }
        Ok(Granted::Exhausted { limit, used, reserved, resets_at: month.next().begins_at() })
    }

    /// The reservation of a run, if it ever had one.
    pub(super) async fn reservation(
        &self,
        group_id: &GroupId,
        run_id: &RunId,
    ) -> Result<Option<Reserved>, DbError> {
        let rows = self
            .db
            .query(Statement::new(
                "SELECT month, tokens, state, expires_at FROM reservations
                 WHERE group_id = $1 AND run_id = $2",
                params![group_id.as_str(), run_id.as_str()],
            ))
            .await?;
        rows.first().map(Reserved::try_from).transpose()
    }

    /// Settles what a group holds at the full amounts; what that was.
    pub(crate) async fn release(
        &self,
        group_id: &GroupId,
    ) -> Result<Vec<ReleasedReservation>, DbError> {
        let rows = self.settle_held("group_id = $1", params![group_id.as_str()]).await?;
        rows.iter()
            .map(|row| {
                let run_id: String = row.get("run_id")?;
                let run_id = RunId::new(&run_id)
                    .map_err(|error| DbError::decode("reservations.run_id", error))?;
                Ok(ReleasedReservation { run_id, tokens: row.get("tokens")? })
            })
            .collect()
    }

    /// Settles at their full amounts the reservations whose time has come; how many.
    pub(crate) async fn settle_expired(&self, now: Timestamp) -> Result<u64, DbError> {
        let due =
            "SELECT 1 AS one FROM reservations WHERE state = 'held' AND expires_at <= $1 LIMIT 1";
        let due = self.db.query(Statement::new(due, params![now.millis()])).await?;
        if due.is_empty() {
            return Ok(0);
        }
        let rows = self.settle_held("expires_at <= $1", params![now.millis()]).await?;
        Ok(rows.len() as u64)
    }

    /// Moves the tokens of held reservations to those that are used; `which` names `$1` alone.
    async fn settle_held(
        &self,
        which: &str,
        value: Vec<convene_db::Value>,
    ) -> Result<Vec<Row>, DbError> {
        let of_month = format!(
            "FROM reservations v WHERE v.state = 'held' AND v.{which}
               AND v.org_id = org_months.org_id AND v.month = org_months.month"
        );
        let move_over = Statement::new(
            format!(
                "UPDATE org_months
                 SET used_tokens = used_tokens + (SELECT COALESCE(SUM(v.tokens), 0) {of_month}),
                     reserved_tokens = reserved_tokens
                         - (SELECT COALESCE(SUM(v.tokens), 0) {of_month})
                 WHERE EXISTS (SELECT 1 {of_month})"
            ),
            value.clone(),
        );
        let mark = Statement::new(
            format!(
                "UPDATE reservations SET state = 'expired' WHERE state = 'held' AND {which}
                 RETURNING run_id, tokens"
            ),
            value,
        );
        let mut answers = self.db.batch(vec![move_over, mark]).await?;
        Ok(answers.pop().unwrap_or_default())
    }

    /// Forgets reservations that ended before `until`.
    pub(crate) async fn forget_reservations(&self, until: Timestamp) -> Result<u64, DbError> {
        self.db
            .execute(Statement::new(
                "DELETE FROM reservations WHERE state <> 'held' AND expires_at < $1",
                params![until.millis()],
            ))
            .await
    }
}

/// The statements that settle a reservation as it was read: `actual` tokens, or all that it held
/// where nobody knows. The first is a guard that it still stands so: sums move only with it.
pub(super) fn settle(
    group_id: &GroupId,
    org_id: &OrgId,
    run_id: &RunId,
    seen: &Reserved,
    actual: Option<u64>,
) -> Vec<Statement> {
    let actual = actual.unwrap_or(match seen.state {
        ReservationState::Held | ReservationState::Expired => seen.tokens,
        ReservationState::Settled => 0,
    });
    let (reserved, charged) = match seen.state {
        ReservationState::Held => (seen.tokens, 0),
        ReservationState::Expired => (0, seen.tokens),
        ReservationState::Settled => (0, 0),
    };
    vec![
        Statement::new(
            "UPDATE reservations SET state = 'settled'
             WHERE group_id = $1 AND run_id = $2 AND state = $3",
            params![group_id.as_str(), run_id.as_str(), seen.state.as_str()],
        )
        .expect_rows(),
        Statement::new(
            "UPDATE org_months SET reserved_tokens = reserved_tokens - $3,
                 used_tokens = used_tokens + $4 - $5
             WHERE org_id = $1 AND month = $2",
            params![org_id.as_str(), seen.month.number(), reserved, actual, charged],
        ),
    ]
}

/// The row of a month, if it is not there yet.
pub(super) fn month_exists(org_id: &OrgId, month: Month) -> Statement {
    Statement::new(
        "INSERT INTO org_months (org_id, month) VALUES ($1, $2)
         ON CONFLICT (org_id, month) DO NOTHING",
        params![org_id.as_str(), month.number()],
    )
}

impl TryFrom<&Row> for Reserved {
    type Error = DbError;

    fn try_from(row: &Row) -> Result<Self, DbError> {
        let state: String = row.get("state")?;
        let state = ReservationState::ALL.into_iter().find(|known| known.as_str() == state);
        Ok(Self {
            month: Month::from_number(row.get("month")?)
                .map_err(|error| DbError::decode("reservations.month", error))?,
            tokens: row.get("tokens")?,
            state: state.ok_or_else(|| DbError::decode("reservations.state", "no such state"))?,
            expires_at: Timestamp::from_millis(row.get("expires_at")?),
        })
    }
}
