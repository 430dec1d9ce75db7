//! Columns as the App's own types; a row that cannot be is an error that names the column.

use std::str::FromStr;

use convene_db::{DbError, Row};
use convene_model::{
    Role, Timestamp,
    event::{RevisionPolicy, TriggerPolicy},
    ids::InvalidId,
};

use crate::ui::view::GroupLife;

/// A column with an id.
pub(crate) fn id<T: FromStr<Err = InvalidId>>(row: &Row, column: &str) -> Result<T, DbError> {
    row.get::<String>(column)?.parse().map_err(|error| DbError::decode(column, error))
}

/// A column with a time.
pub(crate) fn time(row: &Row, column: &str) -> Result<Timestamp, DbError> {
    row.get::<u64>(column).map(Timestamp::from_millis)
}

/// A column with a time or nothing.
pub(crate) fn maybe_time(row: &Row, column: &str) -> Result<Option<Timestamp>, DbError> {
    Ok(row.get::<Option<u64>>(column)?.map(Timestamp::from_millis))
}

/// A column with a role.
pub(crate) fn role(row: &Row, column: &str) -> Result<Role, DbError> {
    let name = row.get::<String>(column)?;
    Role::parse(&name).ok_or_else(|| DbError::decode(column, format!("{name:?} is no role")))
}

/// A column with a trigger policy.
pub(crate) fn trigger(row: &Row, column: &str) -> Result<TriggerPolicy, DbError> {
    let name = row.get::<String>(column)?;
    TriggerPolicy::ALL
        .into_iter()
        .find(|policy| trigger_name(*policy) == name)
        .ok_or_else(|| DbError::decode(column, format!("{name:?} is no trigger policy")))
}

/// A trigger policy as it stands in a row.
pub(crate) const fn trigger_name(policy: TriggerPolicy) -> &'static str {
    match policy {
        TriggerPolicy::Off => "off",
        TriggerPolicy::Mention => "mention",
        TriggerPolicy::Auto => "auto",
        TriggerPolicy::Discussion => "discussion",
    }
}

/// A column with a revision policy.
pub(crate) fn revisions(row: &Row, column: &str) -> Result<RevisionPolicy, DbError> {
    let name = row.get::<String>(column)?;
    [RevisionPolicy::Keep, RevisionPolicy::Discard]
        .into_iter()
        .find(|policy| revisions_name(*policy) == name)
        .ok_or_else(|| DbError::decode(column, format!("{name:?} is no revision policy")))
}

/// A revision policy as it stands in a row.
pub(crate) const fn revisions_name(policy: RevisionPolicy) -> &'static str {
    match policy {
        RevisionPolicy::Keep => "keep",
        RevisionPolicy::Discard => "discard",
    }
}

/// A column with where a group stands in its life.
pub(crate) fn life(row: &Row, column: &str) -> Result<GroupLife, DbError> {
    let name = row.get::<String>(column)?;
    GroupLife::ALL
        .into_iter()
        .find(|life| life.as_str() == name)
        .ok_or_else(|| DbError::decode(column, format!("{name:?} is no status of a group")))
}
