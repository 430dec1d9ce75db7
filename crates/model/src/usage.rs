//! What groups use: reports of their controllers, reservations against a budget, figures by month.
//!
//! Months are those of the calendar in UTC. Figures in a report are what was used since the report
//! before it, so that reports add up.

use std::{fmt, str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{GroupId, OrgId, RunId, Timestamp, UserId, infra::GroupStatus};

/// The most that one figure of a report may say.
pub const MAX_REPORTED: u64 = 1_000_000_000_000;
/// The most tokens that one run can reserve.
pub const MAX_RESERVED_TOKENS: u64 = 10_000_000;
/// How long a reservation is held for its run. One whose run has not said by then what it used is
/// settled at the full amount; what the run says later corrects that.
pub const RESERVATION_TTL: Duration = Duration::from_secs(30 * 60);
/// How long an answer holds which says that an organization has no budget.
pub const UNLIMITED_FOR: Duration = Duration::from_secs(60);
/// The member of a `conflict` which says that a run's reservation has ended; without it another call
/// with the same key is under way.
pub const RESERVATION_ENDED: &str = "ended";
/// Refusals that one report may name.
pub const MAX_REFUSALS: usize = 64;
/// Groups that a page of an organization's usage lists when nothing is said.
pub const DEFAULT_GROUPS_LISTED: u32 = 50;
/// Groups that a page of an organization's usage lists at most.
pub const MAX_GROUPS_LISTED: u32 = 200;
/// How far a page of an organization's usage may begin from its first group.
pub const MAX_GROUPS_OFFSET: u32 = 100_000;
/// Flags of abuse that are listed at most, and when nothing is said.
pub const MAX_FLAGS_LISTED: u32 = 200;
/// Months that a group's usage lists.
pub const MONTHS_LISTED: u32 = 12;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A month of the calendar in UTC: `2026-11` as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Month {
    year: u32,
    month: u32,
}

/// What is no month.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a month is written as 2026-11, from 1970-01 to 9999-12")]
pub struct NoMonth;

impl Month {
    /// The month that an instant is in.
    #[must_use]
    pub const fn of(at: Timestamp) -> Self {
        // The calendar's days by eras of 400 years that begin in March, so that a leap day is the
        // last day of its year; after Howard Hinnant, "chrono-compatible low-level date algorithms".
        let days = at.millis() / DAY_MS + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = year_of_era + era * 400 + next_year;
        let year = if year > 9999 { 9999 } else { year };
        Self { year: year as u32, month: month as u32 }
    }

    /// The month as it stands in rows: `202611`.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.year * 100 + self.month
    }

    /// The month with that number.
    ///
    /// # Errors
    /// [`NoMonth`].
    pub const fn from_number(number: u32) -> Result<Self, NoMonth> {
        let (year, month) = (number / 100, number % 100);
        if year < 1970 || year > 9999 || month < 1 || month > 12 {
            return Err(NoMonth);
        }
        Ok(Self { year, month })
    }

    /// The month after it.
    #[must_use]
    pub const fn next(self) -> Self {
        if self.month == 12 {
            Self { year: self.year + 1, month: 1 }
        } else {
            Self { year: self.year, month: self.month + 1 }
        }
    }

    /// The month before it; `None` before the first of all.
    #[must_use]
    pub const fn before(self) -> Option<Self> {
        match (self.year, self.month) {
            (1970, 1) => None,
            (year, 1) => Some(Self { year: year - 1, month: 12 }),
            (year, month) => Some(Self { year, month: month - 1 }),
        }
    }

    /// Its first instant.
    #[must_use]
    pub const fn begins_at(self) -> Timestamp {
        let (year, month) = (self.year as u64, self.month as u64);
        let year = if month <= 2 { year - 1 } else { year };
        let month = if month > 2 { month - 3 } else { month + 9 };
        let (era, year_of_era) = (year / 400, year % 400);
        let day_of_year = (153 * month + 2) / 5;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        Timestamp::from_millis((era * 146_097 + day_of_era - 719_468) * DAY_MS)
    }
}

/// The number of an instant's day in UTC, counted from 1970-01-01.
#[must_use]
pub const fn day_of(at: Timestamp) -> u64 {
    at.millis() / DAY_MS
}

/// The end of an instant's day in UTC.
#[must_use]
pub const fn end_of_day(at: Timestamp) -> Timestamp {
    Timestamp::from_millis((day_of(at) + 1) * DAY_MS)
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Month {
    type Err = NoMonth;

    fn from_str(text: &str) -> Result<Self, NoMonth> {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        match text.split_once('-') {
            Some((year, month))
                if year.len() == 4 && month.len() == 2 && digits(year) && digits(month) =>
            {
                let number = format!("{year}{month}").parse().map_err(|_| NoMonth)?;
                Self::from_number(number)
            }
            Some(_) | None => Err(NoMonth),
        }
    }
}

impl TryFrom<String> for Month {
    type Error = NoMonth;

    fn try_from(text: String) -> Result<Self, NoMonth> {
        text.parse()
    }
}

impl From<Month> for String {
    fn from(month: Month) -> Self {
        month.to_string()
    }
}

impl JsonSchema for Month {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Month".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[0-9]{4}-(0[1-9]|1[0-2])$",
            "description": "A month of the calendar in UTC.",
            "examples": ["2026-11"],
        })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// `POST /infra/groups/{id}/usage`: what a group has used since the report before this one.
///
/// Each figure is at most [`MAX_REPORTED`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UsageReport {
    /// The run that has ended, if the report is of one: its reservation is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// Runs that ended.
    #[serde(default)]
    pub runs: u64,
    /// What models used. A run that does not say is settled at its full reservation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// What models cost, in millionths of a US dollar, as far as it is known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cost_micro_usd: u64,
    /// Runs and summaries whose cost is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cost_unknown: u64,
    /// Bytes that left for clients, and those that passed between agents' tools and services.
    #[serde(default)]
    pub egress_bytes: u64,
    /// Seconds that the group was awake.
    #[serde(default)]
    pub active_secs: u64,
    /// What was refused since somebody went beyond a rate; at most [`MAX_REFUSALS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refusals>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Tokens of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// Tokens that were read.
    pub input_tokens: u64,
    /// Tokens that were written.
    pub output_tokens: u64,
}

impl Tokens {
    /// Both together.
    #[must_use]
    pub const fn sum(self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// Refusals of one kind for one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refusals {
    /// Of what.
    pub kind: RefusedKind,
    /// Whose.
    pub user_id: UserId,
    /// How many.
    pub count: u64,
}

/// What is refused to whoever goes beyond a rate.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum RefusedKind {
    /// Messages.
    Posts,
    /// Attaches.
    Attaches,
    /// Activations of groups.
    Activations,
}

impl RefusedKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Posts, Self::Attaches, Self::Activations];

    /// The kind as it stands in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Posts => "posts",
            Self::Attaches => "attaches",
            Self::Activations => "activations",
        }
    }

    /// The kind with that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// The query of `GET /infra/abuse`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AbuseQuery {
    /// How many to list, 1 to [`MAX_FLAGS_LISTED`]; not said, so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// How many to leave out before, at most [`MAX_GROUPS_OFFSET`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u32>,
}

/// The answer to `GET /infra/abuse`: who went beyond a rate, the latest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AbuseFlags {
    /// They.
    pub flags: Vec<AbuseFlag>,
}

/// Somebody who went beyond a rate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AbuseFlag {
    /// The organization.
    pub org_id: OrgId,
    /// The user; absent where the organization as a whole went beyond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// What was refused.
    pub kind: RefusedKind,
    /// The group where it was refused last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<GroupId>,
    /// How often.
    pub count: u64,
    /// For the first time.
    pub first_at: Timestamp,
    /// For the last time.
    pub last_at: Timestamp,
}

/// `POST /infra/groups/{id}/reserve`: what a run may use at most, before it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReserveRequest {
    /// Which run; asked for again it gets the same answer.
    pub run_id: RunId,
    /// Tokens that it may use at most, 1 to [`MAX_RESERVED_TOKENS`].
    pub tokens: u64,
}

/// That a run may start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reservation {
    /// Which run.
    pub run_id: RunId,
    /// Tokens that are held for it; 0 where the organization has no budget.
    pub tokens: u64,
    /// Until when they are held; afterwards they count as used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The organization has no budget, and until then none of its runs has to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlimited_until: Option<Timestamp>,
}

/// The answer to `POST /infra/groups/{id}/release-resources`: what the group no longer holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Released {
    /// The group.
    pub group_id: GroupId,
    /// Where it stands now.
    pub group_status: GroupStatus,
    /// The reservations that were held, each settled at its full amount.
    pub reservations: Vec<ReleasedReservation>,
    /// Their tokens.
    pub tokens: u64,
}

/// A reservation that was held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleasedReservation {
    /// Whose.
    pub run_id: RunId,
    /// How many tokens.
    pub tokens: u64,
}

/// What was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct UsageFigures {
    /// Runs of agents that ended.
    pub runs: u64,
    /// Tokens that models have read.
    pub input_tokens: u64,
    /// Tokens that models have written.
    pub output_tokens: u64,
    /// What models cost, in millionths of a US dollar, as far as it is known.
    #[serde(default)]
    pub cost_micro_usd: u64,
    /// Runs and summaries whose cost is not known: a model without a price, or a provider that did not say
    /// what it used.
    #[serde(default)]
    pub cost_unknown: u64,
    /// Bytes that left for clients, and those that passed between agents' tools and services.
    pub egress_bytes: u64,
    /// Seconds that groups were awake.
    pub active_secs: u64,
}

/// The query of `GET /infra/orgs/{id}/usage`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrgUsageQuery {
    /// Which month; not said, the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month: Option<Month>,
    /// How many groups to list, 1 to [`MAX_GROUPS_LISTED`]; not said, [`DEFAULT_GROUPS_LISTED`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// How many groups to leave out before, at most [`MAX_GROUPS_OFFSET`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u32>,
}

/// The answer to `GET /infra/orgs/{id}/usage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrgUsage {
    /// The organization.
    pub org_id: OrgId,
    /// Which month.
    pub month: Month,
    /// What its groups have used.
    #[serde(flatten)]
    pub used: UsageFigures,
    /// Tokens that count against the month's budget: those that were used, and the full
    /// reservations of runs that did not say what they used.
    pub budget_used_tokens: u64,
    /// Tokens that are held for runs under way.
    pub budget_reserved_tokens: u64,
    /// The month's budget of tokens, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_tokens: Option<u64>,
    /// The month's limit of bytes for clients, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_egress_bytes: Option<u64>,
    /// Groups in service now.
    pub active_groups: u64,
    /// The most groups that were in service at the same time in that month.
    pub peak_active_groups: u64,
    /// Its groups, those with the most tokens first.
    pub groups: Vec<UsageOfGroup>,
    /// Whether there are further groups.
    pub more: bool,
}

/// What one group of an organization has used in a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsageOfGroup {
    /// The group.
    pub group_id: GroupId,
    /// What it has used.
    #[serde(flatten)]
    pub used: UsageFigures,
}

/// The answer to `GET /infra/groups/{id}/usage`: at most [`MONTHS_LISTED`] months, the latest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupUsage {
    /// The group.
    pub group_id: GroupId,
    /// What it has used, by month.
    pub months: Vec<UsageOfMonth>,
}

/// What a group has used in a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsageOfMonth {
    /// Which month.
    pub month: Month,
    /// What was used.
    #[serde(flatten)]
    pub used: UsageFigures,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_begins_with_its_first_millisecond_and_ends_with_the_next() {
        for (secs, month) in [
            (0, "1970-01"),
            (951_782_400, "2000-02"),   // 2000-02-29
            (951_868_800, "2000-03"),   // 2000-03-01
            (1_709_164_800, "2024-02"), // 2024-02-29
            (1_796_083_199, "2026-11"), // 2026-11-30 23:59:59
            (1_796_083_200, "2026-12"), // 2026-12-01
            (4_107_542_399, "2100-02"), // 2100-02-28 23:59:59, no leap year
            (4_107_542_400, "2100-03"), // 2100-03-01
        ] {
            assert_eq!(Month::of(Timestamp::from_secs(secs)).to_string(), month, "{secs}");
        }
        let mut month: Month = "1970-01".parse().unwrap();
        while month.number() < 240_001 {
            let begins = month.begins_at();
            assert_eq!(Month::of(begins), month);
            assert_eq!(month.next(), Month::of(begins + Duration::from_millis(32 * DAY_MS)));
            if begins > Timestamp::ZERO {
                let before = begins - Duration::from_millis(1);
                assert_eq!(Month::of(before).next(), month);
                assert_eq!(month.before(), Some(Month::of(before)));
            }
            month = month.next();
        }
    }

    #[test]
    fn a_month_is_read_as_it_is_written_and_nothing_else_is_one() {
        for month in ["1970-01", "2026-11", "9999-12"] {
            assert_eq!(month.parse::<Month>().unwrap().to_string(), month);
        }
        for no_month in
            ["", "2026", "2026-13", "2026-00", "1969-12", "2026-1", "+026-11", "2026-11-1"]
        {
            assert_eq!(no_month.parse::<Month>(), Err(NoMonth), "{no_month}");
        }
        assert_eq!(Month::from_number(202_611), "2026-11".parse());
        assert_eq!(Month::from_number(202_600), Err(NoMonth));
    }

    #[test]
    fn a_day_ends_where_the_next_one_begins() {
        let noon = Timestamp::from_secs(86_400 + 43_200);
        assert_eq!(day_of(noon), 1);
        assert_eq!(end_of_day(noon), Timestamp::from_secs(2 * 86_400));
        assert_eq!(end_of_day(Timestamp::from_secs(86_400)), Timestamp::from_secs(2 * 86_400));
    }
}
