//! Values of the port as PostgreSQL's parameters, and its columns as values.

use std::{error::Error, sync::Arc};

use bytes::BytesMut;
use convene_db::{DbError, Row, Value};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// A parameter: it takes the type that the statement has for it.
#[derive(Debug)]
pub(super) struct Parameter<'v>(pub(super) &'v Value);

impl ToSql for Parameter<'_> {
    fn to_sql(
        &self,
        wanted: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self.0 {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(int) if *wanted == Type::INT8 => int.to_sql(wanted, out),
            Value::Int(int) if *wanted == Type::INT4 => i32::try_from(*int)?.to_sql(wanted, out),
            Value::Text(text) if is_text(wanted) => text.to_sql(wanted, out),
            Value::Blob(bytes) if *wanted == Type::BYTEA => bytes.to_sql(wanted, out),
            Value::Int(_) | Value::Text(_) | Value::Blob(_) => {
                Err(format!("{} where the statement takes {wanted}", self.0.kind()).into())
            }
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn is_text(wanted: &Type) -> bool {
    [Type::TEXT, Type::VARCHAR, Type::BPCHAR, Type::NAME, Type::UNKNOWN].contains(wanted)
}

/// The names of a statement's columns, shared by the rows of its answer.
pub(super) fn names(statement: &tokio_postgres::Statement) -> Arc<[String]> {
    statement.columns().iter().map(|column| column.name().to_owned()).collect()
}

pub(super) fn row(row: &tokio_postgres::Row, names: &Arc<[String]>) -> Result<Row, DbError> {
    let values = row
        .columns()
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let found: Found = row
                .try_get(index)
                .map_err(|error| DbError::decode(column.name(), super::with_causes(&error)))?;
            Ok(found.0)
        })
        .collect::<Result<_, DbError>>()?;
    Ok(Row::new(Arc::clone(names), values))
}

/// A column's value.
struct Found(Value);

impl<'r> FromSql<'r> for Found {
    fn from_sql(column: &Type, raw: &'r [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let value = match column {
            column if *column == Type::INT8 => Value::Int(i64::from_sql(column, raw)?),
            column if *column == Type::INT4 => Value::Int(i32::from_sql(column, raw)?.into()),
            // What compares is a flag of 0 or 1 in SQLite.
            column if *column == Type::BOOL => Value::Int(bool::from_sql(column, raw)?.into()),
            column if *column == Type::BYTEA => Value::Blob(Vec::from_sql(column, raw)?),
            column if is_text(column) => Value::Text(String::from_sql(column, raw)?),
            other => return Err(format!("{other}, which is in no table of ours").into()),
        };
        Ok(Self(value))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(Value::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
