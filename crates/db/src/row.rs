//! One row of an answer. A column that is absent or holds something else is an error with its name.

use std::sync::Arc;

use crate::{DbError, Value};

/// One row of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    columns: Arc<[String]>,
    values: Vec<Value>,
}

/// A type that a column can be read as.
pub trait FromValue: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// One sentence about what is wrong.
    fn from_value(value: &Value) -> Result<Self, String>;
}

impl Row {
    /// A row, for backends: the names are shared by all rows of an answer.
    #[must_use]
    pub fn new(columns: Arc<[String]>, values: Vec<Value>) -> Self {
        debug_assert_eq!(columns.len(), values.len(), "one value for each column");
        Self { columns, values }
    }

    /// The column of this name.
    ///
    /// # Errors
    /// [`DbError::Decode`] when there is no such column or it holds something else.
    pub fn get<T: FromValue>(&self, column: &str) -> Result<T, DbError> {
        let value = self
            .columns
            .iter()
            .position(|name| name == column)
            .and_then(|index| self.values.get(index))
            .ok_or_else(|| DbError::decode(column, "the answer has no such column"))?;
        T::from_value(value).map_err(|problem| DbError::decode(column, problem))
    }

    /// The names of the columns, in order.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }
}

fn wrong(value: &Value, wanted: &str) -> String {
    format!("{wanted} was expected, but it holds {}", value.kind())
}

impl FromValue for i64 {
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::Int(int) => Ok(*int),
            Value::Null | Value::Text(_) | Value::Blob(_) => Err(wrong(value, "an integer")),
        }
    }
}

impl FromValue for u64 {
    fn from_value(value: &Value) -> Result<Self, String> {
        let int = i64::from_value(value)?;
        Self::try_from(int).map_err(|_| format!("{int} is negative"))
    }
}

impl FromValue for u32 {
    fn from_value(value: &Value) -> Result<Self, String> {
        let int = i64::from_value(value)?;
        Self::try_from(int).map_err(|_| format!("{int} is not a 32-bit number"))
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Result<Self, String> {
        match i64::from_value(value)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(format!("{other} is neither 0 nor 1")),
        }
    }
}

impl FromValue for String {
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::Text(text) => Ok(text.clone()),
            Value::Null | Value::Int(_) | Value::Blob(_) => Err(wrong(value, "text")),
        }
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::Blob(bytes) => Ok(bytes.clone()),
            Value::Null | Value::Int(_) | Value::Text(_) => Err(wrong(value, "bytes")),
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::Null => Ok(None),
            Value::Int(_) | Value::Text(_) | Value::Blob(_) => T::from_value(value).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row::new(
            ["id".into(), "count".into(), "flag".into(), "note".into()].into(),
            vec![Value::Text("a".into()), Value::Int(-3), Value::Int(2), Value::Null],
        )
    }

    #[test]
    fn a_column_is_read_by_name() {
        assert_eq!(row().get::<String>("id"), Ok("a".to_owned()));
        assert_eq!(row().get::<i64>("count"), Ok(-3));
        assert_eq!(row().get::<Option<String>>("note"), Ok(None));
        assert_eq!(row().get::<Option<i64>>("count"), Ok(Some(-3)));
    }

    #[test]
    fn an_impossible_value_is_an_error_that_names_the_column() {
        for error in [
            row().get::<u64>("count").unwrap_err(),
            row().get::<String>("count").unwrap_err(),
            row().get::<Vec<u8>>("count").unwrap_err(),
        ] {
            assert!(error.to_string().starts_with("column count: "), "{error}");
        }
        assert!(row().get::<bool>("flag").is_err(), "2 is no flag");
        assert!(row().get::<String>("note").is_err(), "null is no text");
        assert!(row().get::<i64>("absent").is_err());
    }

    #[test]
    fn params_take_what_becomes_a_value() {
        assert_eq!(
            crate::params!["a", 7, true, None::<String>, Some(9_u64), vec![1_u8]],
            vec![
                Value::Text("a".into()),
                Value::Int(7),
                Value::Int(1),
                Value::Null,
                Value::Int(9),
                Value::Blob(vec![1]),
            ]
        );
    }
}
