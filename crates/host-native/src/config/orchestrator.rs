//! `[orchestrator]`: limits, and who may call the infra API beside our own App.

use std::{net::SocketAddr, path::PathBuf};

use convene_model::{claims::service, keys::Jwks};
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

impl OrchestratorConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.max_active_groups == 0 {
            return Err(ConfigError::invalid("orchestrator.max_active_groups", "it is 0"));
        }
        let ours = [service::APP, service::ORCHESTRATOR, service::CONTROLLERS, service::AGENTS];
        for (index, app) in self.apps.iter().enumerate() {
            let invalid = |problem: &str| {
                Err(ConfigError::invalid(
                    "orchestrator.apps",
                    format!("{:?}: {problem}", app.issuer),
                ))
            };
            if app.issuer.is_empty() || ours.contains(&app.issuer.as_str()) {
                return invalid("the issuer is empty or one of our own services");
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
