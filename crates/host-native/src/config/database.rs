//! `[database]`: where the App and the Orchestrator keep what they know.

use std::{fmt, path::PathBuf};

use convene_storage::PostgresUrl;
use serde::Deserialize;

use super::ConfigError;

/// Connections of a service to PostgreSQL, unless another number is set.
const DEFAULT_CONNECTIONS: u32 = 10;

/// Connections of a service at most.
const MAX_CONNECTIONS: u32 = 1_000;

/// The databases of the App and the Orchestrator.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// A PostgreSQL server; files in the data directory when neither this nor `url_file` is set.
    pub url: Option<ConnectionString>,
    /// A file that holds the connection string.
    pub url_file: Option<PathBuf>,
    /// How many connections each service opens to it at most.
    pub max_connections: u32,
}

/// A connection string, which may hold a password: it is not shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ConnectionString(String);

impl From<String> for ConnectionString {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionString(…)")
    }
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self { url: None, url_file: None, max_connections: DEFAULT_CONNECTIONS }
    }
}

impl DatabaseConfig {
    /// The PostgreSQL server, if there is one. Reads the file that is named.
    ///
    /// # Errors
    /// [`ConfigError`] when the file cannot be read or the connection string is none.
    pub fn postgres(&self) -> Result<Option<PostgresUrl>, ConfigError> {
        let (key, text) = match (&self.url, &self.url_file) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                let problem = "only one of database.url and database.url_file may be set";
                return Err(ConfigError::invalid("database.url", problem));
            }
            (Some(url), None) => ("database.url", url.0.clone()),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file).map_err(|error| {
                    let problem = format!("{}: {error}", file.display());
                    ConfigError::invalid("database.url_file", problem)
                })?;
                ("database.url_file", text)
            }
        };
        text.trim().parse().map(Some).map_err(|problem: String| ConfigError::invalid(key, problem))
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !(2..=MAX_CONNECTIONS).contains(&self.max_connections) {
            let problem = format!("it is not from 2 to {MAX_CONNECTIONS}");
            return Err(ConfigError::invalid("database.max_connections", problem));
        }
        self.postgres().map(|_| ())
    }
}
