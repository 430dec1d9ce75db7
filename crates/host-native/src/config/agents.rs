//! `[agents]`: the Agents Worker and what it may reach.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;
use url::Url;

use super::ConfigError;

/// The Agents Worker.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentsConfig {
    /// Hosts (`host` or `host:port`) that model providers may have although they are private
    /// addresses, such as a local Ollama.
    pub allow_hosts: Vec<String>,
    /// How long the built-in demo model waits between words, in milliseconds.
    pub demo_word_pause_ms: u64,
    /// How long a provider may be silent before the run fails, in seconds.
    pub silence_secs: u64,
    /// Where it listens in a process of its own.
    pub listen: Option<SocketAddr>,
    /// Where the controllers reach it: one address or several equal ones.
    pub urls: Vec<Url>,
    /// Its signing key; `keys/agents.key` in the data directory when not set.
    pub key_file: Option<PathBuf>,
    /// Its public keys, for other processes.
    pub jwks: Option<String>,
    /// Where they are published; below `urls` when neither is set.
    pub jwks_url: Option<Url>,
}

impl Default for AgentsConfig {
    fn default() -> Self {
        Self {
            allow_hosts: Vec::new(),
            demo_word_pause_ms: 30,
            silence_secs: 60,
            listen: None,
            urls: Vec::new(),
            key_file: None,
            jwks: None,
            jwks_url: None,
        }
    }
}

impl AgentsConfig {
    /// How long a provider may be silent.
    #[must_use]
    pub fn silence(&self) -> Duration {
        Duration::from_secs(self.silence_secs)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for host in &self.allow_hosts {
            if host.is_empty() || host.contains('/') || host.contains(char::is_whitespace) {
                return Err(ConfigError::invalid(
                    "agents.allow_hosts",
                    format!("{host:?} is not a host or host:port"),
                ));
            }
        }
        if self.silence_secs == 0 {
            return Err(ConfigError::invalid("agents.silence_secs", "it is 0"));
        }
        Ok(())
    }
}
