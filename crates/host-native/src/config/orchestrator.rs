//! `[orchestrator]`: limits, and who may call the infra API beside our own App.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use convene_model::{claims::service, keys::Jwks};
use convene_orchestrator::{MAX_AUTO_ARCHIVE_SECS, Times};
use serde::Deserialize;
use url::Url;

use super::ConfigError;

/// The Orchestrator.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OrchestratorConfig {
    /// Where the infra API is served over HTTP; in-process only when not set.
    pub listen: Option<SocketAddr>,
    /// How many groups of an organization may be active at a time, unless an operator set another
    /// limit for it.
    pub max_active_groups: u64,
    /// A group that sleeps for so many seconds is archived, unless its organization has another time;
    /// 0 is never.
    pub auto_archive_after_secs: u64,
    /// How often scheduled work looks for something to do, in milliseconds.
    pub reconcile_every_ms: u64,
    /// How long a process has a task without renewing it, in milliseconds.
    pub task_lease_ms: u64,
    /// How long after a delete it is looked again that nobody has written a snapshot, in seconds.
    pub longest_archive_secs: u64,
    /// How long a call waits for an archive, a restore or a delete before it answers 202, in
    /// milliseconds.
    pub call_waits_ms: u64,
    /// How long tasks that ended are kept, in days.
    pub keep_ended_days: u64,
    /// Outside apps that may call the infra API.
    pub apps: Vec<OutsideApp>,
    /// Where the App and the controllers reach it: one address or several equal ones.
    pub urls: Vec<Url>,
    /// Its signing key; `keys/orchestrator.key` in the data directory when not set.
    pub key_file: Option<PathBuf>,
    /// Its public keys, for other processes.
    pub jwks: Option<String>,
    /// Where they are published; below `urls` when neither is set.
    pub jwks_url: Option<Url>,
}

/// An outside app that may call the infra API.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutsideApp {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// What it may do beyond its own organizations.
    #[serde(default)]
    pub scope: Option<AppScope>,
    /// Its public keys, as a JWKS document.
    #[serde(default)]
    pub jwks: Option<String>,
    /// Where its public keys are published; read at the start and every few minutes.
    #[serde(default)]
    pub jwks_url: Option<Url>,
}

/// What an outside app may do beyond its own organizations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppScope {
    /// Set limits and blocks.
    Operator,
}

impl Default for OrchestratorConfig {
    fn default() -> Self {
        Self {
            listen: None,
            max_active_groups: 1000,
            auto_archive_after_secs: 7 * 24 * 60 * 60,
            reconcile_every_ms: 5000,
            task_lease_ms: 60_000,
            longest_archive_secs: 6 * 60 * 60,
            call_waits_ms: 30_000,
            keep_ended_days: 30,
            apps: Vec::new(),
            urls: Vec::new(),
            key_file: None,
            jwks: None,
            jwks_url: None,
        }
    }
}

impl OutsideApp {
    /// Its public keys, where they stand in the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] when they are not a JWKS document.
    pub fn inline_keys(&self) -> Result<Option<Jwks>, ConfigError> {
        let Some(text) = &self.jwks else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|error| {
            ConfigError::invalid("orchestrator.apps", format!("{}: jwks: {error}", self.issuer))
        })
    }
}

/// The shortest and the longest that a time of the Orchestrator may be, by its key, in its unit.
const TIMES: [(&str, u64, u64); 5] = [
    ("reconcile_every_ms", 50, 3_600_000),
    ("task_lease_ms", 1_000, 3_600_000),
    ("longest_archive_secs", 60, 7 * 24 * 60 * 60),
    // A call holds its idempotency key for a minute.
    ("call_waits_ms", 0, 45_000),
    ("keep_ended_days", 1, 3_650),
];

impl OrchestratorConfig {
    /// Periods and limits of scheduled work.
    #[must_use]
    pub fn times(&self, max_snapshot_bytes: u64) -> Times {
        let auto_archive = Duration::from_secs(self.auto_archive_after_secs);
        Times {
            auto_archive_after: (!auto_archive.is_zero()).then_some(auto_archive),
            reconcile_every: Duration::from_millis(self.reconcile_every_ms),
            task_lease: Duration::from_millis(self.task_lease_ms),
            longest_archive: Duration::from_secs(self.longest_archive_secs),
            call_waits: Duration::from_millis(self.call_waits_ms),
            max_snapshot_bytes,
            keep_ended: Duration::from_secs(self.keep_ended_days.saturating_mul(24 * 60 * 60)),
        }
    }

    fn check_times(&self) -> Result<(), ConfigError> {
        let values = [
            self.reconcile_every_ms,
            self.task_lease_ms,
            self.longest_archive_secs,
            self.call_waits_ms,
            self.keep_ended_days,
        ];
        for ((key, least, most), value) in TIMES.into_iter().zip(values) {
            if !(least..=most).contains(&value) {
                return Err(ConfigError::invalid(
                    format!("orchestrator.{key}"),
                    format!("it is {value}, but must be {least} to {most}"),
                ));
            }
        }
        if self.auto_archive_after_secs > MAX_AUTO_ARCHIVE_SECS {
            return Err(ConfigError::invalid(
                "orchestrator.auto_archive_after_secs",
                format!("it is at most {MAX_AUTO_ARCHIVE_SECS}"),
            ));
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.max_active_groups == 0 {
            return Err(ConfigError::invalid("orchestrator.max_active_groups", "it is 0"));
        }
        self.check_times()?;
        let ours = [
            service::APP,
            service::ORCHESTRATOR,
            service::CONTROLLERS,
            service::AGENTS,
            service::OPERATOR,
        ];
        for (index, app) in self.apps.iter().enumerate() {
            let invalid = |problem: &str| {
                Err(ConfigError::invalid(
                    "orchestrator.apps",
                    format!("{:?}: {problem}", app.issuer),
                ))
            };
            if app.issuer.is_empty() || ours.contains(&app.issuer.as_str()) {
                return invalid("the issuer is empty, one of our own services or \"operator\"");
            }
            if self.apps[..index].iter().any(|other| other.issuer == app.issuer) {
                return invalid("the issuer is listed twice");
            }
            if app.jwks.is_some() == app.jwks_url.is_some() {
                return invalid("exactly one of jwks and jwks_url is needed");
            }
            app.inline_keys()?;
        }
        Ok(())
    }
}
