//! One statement with its parameters.

use std::borrow::Cow;

use crate::Value;

/// SQL of the common subset and the values of its parameters `$1`, `$2`, ….
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    sql: Cow<'static, str>,
    params: Vec<Value>,
    expects_rows: bool,
}

impl Statement {
    /// A statement; `params` is made with [`params!`](crate::params).
    pub fn new(sql: impl Into<Cow<'static, str>>, params: Vec<Value>) -> Self {
        Self { sql: sql.into(), params, expects_rows: false }
    }

    /// In a batch: when this statement neither returns nor affects a row, the whole batch is
    /// rolled back. Outside a batch it says nothing.
    #[must_use]
    pub fn expect_rows(mut self) -> Self {
        self.expects_rows = true;
        self
    }

    /// The same statement outside a batch, where an expectation says nothing; for backends.
    #[must_use]
    pub fn unexpecting(self) -> Self {
        Self { expects_rows: false, ..self }
    }

    /// The SQL as it was written.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The parameters; the first is `$1`.
    #[must_use]
    pub fn params(&self) -> &[Value] {
        &self.params
    }

    /// Whether [`Self::expect_rows`] was called.
    #[must_use]
    pub fn expects_rows(&self) -> bool {
        self.expects_rows
    }
}

/// The parameters of a [`Statement`]: `params![group_id.as_str(), 7, None::<String>]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        ::std::vec![$($crate::Value::from($value)),*]
    };
}
