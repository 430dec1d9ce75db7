//! `[controllers]`: the Group Controllers in a process of their own.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use convene_storage::options::DISK_RESERVE_BYTES;
use serde::Deserialize;
use url::Url;

/// The longest time that a group may stay awake unused, in seconds: a day.
const MAX_IDLE_AFTER_SECS: u64 = 86_400;

/// The Group Controllers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControllersConfig {
    /// Bytes that must be free on the disk of the data directory, or posts are refused.
    pub disk_reserve_bytes: u64,
    /// Where they listen in a process of their own.
    pub listen: Option<SocketAddr>,
    /// Where the Orchestrator reaches them. One process has all groups, so there is one address.
    pub url: Option<Url>,
    /// Their signing key; `keys/controllers.key` in the data directory when not set.
    pub key_file: Option<PathBuf>,
    /// Their public keys, for other processes.
    pub jwks: Option<String>,
    /// Where they are published; below `url` when neither is set.
    pub jwks_url: Option<Url>,
    /// How long a group that nobody uses stays in memory, in seconds.
    pub idle_after_secs: u64,
}

impl Default for ControllersConfig {
    fn default() -> Self {
        Self {
            disk_reserve_bytes: DISK_RESERVE_BYTES,
            listen: None,
            url: None,
            key_file: None,
            jwks: None,
            jwks_url: None,
            idle_after_secs: 300,
        }
    }
}

impl ControllersConfig {
    /// How long a group that nobody uses stays in memory.
    #[must_use]
    pub fn idle_after(&self) -> Duration {
        Duration::from_secs(self.idle_after_secs.clamp(1, MAX_IDLE_AFTER_SECS))
    }
}
