//! `[controllers]`: the Group Controllers in a process of their own.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use convene_model::OrgId;
use convene_storage::options::DISK_RESERVE_BYTES;
use serde::Deserialize;
use url::Url;

use super::{ConfigError, SecretText};

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
    /// Organizations that keep their groups' history themselves.
    pub external_history: Vec<ExternalHistory>,
}

/// An organization's own history service. Its groups are active with `history_mode` `external`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalHistory {
    /// Whose.
    pub org_id: OrgId,
    /// Where it is; `/groups/…` is appended. The operator names it here, so it may be a private
    /// address.
    pub url: Url,
    /// What it knows us by, as `Authorization: Bearer …`; only the controllers need it.
    #[serde(default)]
    pub secret: Option<SecretText>,
    /// A file with the secret.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
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
            external_history: Vec::new(),
        }
    }
}

impl ControllersConfig {
    /// How long a group that nobody uses stays in memory.
    #[must_use]
    pub fn idle_after(&self) -> Duration {
        Duration::from_secs(self.idle_after_secs.clamp(1, MAX_IDLE_AFTER_SECS))
    }

    /// The organizations that keep their groups' history themselves.
    #[must_use]
    pub fn external_orgs(&self) -> BTreeSet<OrgId> {
        self.external_history.iter().map(|service| service.org_id.clone()).collect()
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let invalid =
            |problem: String| Err(ConfigError::invalid("controllers.external_history", problem));
        for (index, service) in self.external_history.iter().enumerate() {
            let org_id = &service.org_id;
            if self.external_history[..index].iter().any(|other| other.org_id == *org_id) {
                return invalid(format!("{org_id} is named twice"));
            }
            if !matches!(service.url.scheme(), "http" | "https") || !service.url.has_host() {
                return invalid(format!("the url of {org_id} is not an http or https address"));
            }
            if service.secret.is_some() && service.secret_file.is_some() {
                return invalid(format!("{org_id} has one of secret and secret_file"));
            }
        }
        Ok(())
    }
}

impl ExternalHistory {
    /// The secret, from the configuration or from its file.
    ///
    /// # Errors
    /// [`ConfigError`] when there is none, it is empty, or its file cannot be read.
    pub fn secret(&self) -> Result<SecretText, ConfigError> {
        let org_id = &self.org_id;
        let invalid = |problem: String| {
            ConfigError::invalid("controllers.external_history", format!("{org_id}: {problem}"))
        };
        let secret = match (&self.secret, &self.secret_file) {
            (Some(secret), _) => secret.clone(),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| invalid(format!("{}: {error}", file.display())))?;
                SecretText::from(text.trim().to_owned())
            }
            (None, None) => return Err(invalid("secret or secret_file is missing".into())),
        };
        if secret.expose().is_empty() || !secret.expose().bytes().all(|b| b.is_ascii_graphic()) {
            return Err(invalid("the secret is not of visible ASCII characters".into()));
        }
        Ok(secret)
    }
}
