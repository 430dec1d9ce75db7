//! `[agents]`: the Agents Worker and what it may reach.

use std::time::Duration;

use serde::Deserialize;

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
}

impl Default for AgentsConfig {
    fn default() -> Self {
        Self { allow_hosts: Vec::new(), demo_word_pause_ms: 30, silence_secs: 60 }
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
