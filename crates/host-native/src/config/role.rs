//! Which service a process is, and what it must know of the others: where they are and by which
//! public keys their tokens are verified.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use convene_model::{claims::service, keys::Jwks};
use serde::Deserialize;
use url::Url;

use super::{Config, ConfigError};

/// Where a service publishes its public keys below its own address.
const JWKS_PATH: &str = "/.well-known/jwks.json";

/// A service that can be a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The public door, workspaces, client sockets.
    App,
    /// Routing, limits and the infra API.
    Orchestrator,
    /// The groups themselves.
    Controllers,
    /// The agents.
    Agents,
}

/// What the configuration says of one service.
#[derive(Debug, Clone, Copy)]
pub struct Service<'a> {
    /// Which.
    pub role: Role,
    urls: &'a [Url],
    key_file: Option<&'a Path>,
    jwks: Option<&'a str>,
    jwks_url: Option<&'a Url>,
}

/// Where a service's public keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// They stand in the configuration.
    Inline(Jwks),
    /// They are published, at the same place or at several equal ones.
    Published(Vec<Url>),
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::App, Self::Orchestrator, Self::Controllers, Self::Agents];

    /// The `iss` of the service's tokens, which is also its section's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::App => service::APP,
            Self::Orchestrator => service::ORCHESTRATOR,
            Self::Controllers => service::CONTROLLERS,
            Self::Agents => service::AGENTS,
        }
    }

    /// Whom it calls.
    #[must_use]
    pub const fn calls(self) -> &'static [Self] {
        match self {
            Self::App => &[Self::Orchestrator],
            Self::Orchestrator => &[Self::Controllers],
            Self::Controllers => &[Self::Agents, Self::Orchestrator],
            Self::Agents => &[Self::App, Self::Orchestrator],
        }
    }

    /// Whose tokens it verifies.
    #[must_use]
    pub const fn trusts(self) -> &'static [Self] {
        match self {
            Self::App => &[Self::Agents, Self::Controllers],
            Self::Orchestrator => &[Self::App, Self::Controllers, Self::Agents],
            Self::Controllers => &[Self::Orchestrator],
            Self::Agents => &[Self::Controllers, Self::App],
        }
    }

    /// The key of the addresses by which others reach it.
    const fn urls_key(self) -> &'static str {
        match self {
            Self::App => "app.internal_urls",
            Self::Orchestrator => "orchestrator.urls",
            Self::Controllers => "controllers.url",
            Self::Agents => "agents.urls",
        }
    }
}

impl Service<'_> {
    /// Where others reach it.
    #[must_use]
    pub fn urls(&self) -> Vec<Url> {
        self.urls.to_vec()
    }

    /// The file of its signing key, and whether the configuration names it, so that it must exist.
    #[must_use]
    pub fn key_file(&self, data_dir: &Path) -> (PathBuf, bool) {
        match self.key_file {
            Some(named) => (named.to_owned(), true),
            None => (data_dir.join("keys").join(format!("{}.key", self.role.name())), false),
        }
    }

    /// Where its public keys come from; `None` when the configuration does not say.
    ///
    /// # Errors
    /// [`ConfigError`] when both or something else than a JWKS document is given.
    pub fn key_source(&self) -> Result<Option<KeySource>, ConfigError> {
        let invalid = |problem: String| {
            Err(ConfigError::invalid(format!("{}.jwks", self.role.name()), problem))
        };
        match (self.jwks, self.jwks_url) {
            (Some(_), Some(_)) => invalid("there is a jwks_url too; one of them is enough".into()),
            (Some(text), None) => match serde_json::from_str(text) {
                Ok(jwks) => Ok(Some(KeySource::Inline(jwks))),
                Err(error) => invalid(error.to_string()),
            },
            (None, Some(url)) => Ok(Some(KeySource::Published(vec![url.clone()]))),
            (None, None) => {
                let published = self.urls.iter().filter_map(|url| url.join(JWKS_PATH).ok());
                let published: Vec<_> = published.collect();
                Ok((!published.is_empty()).then_some(KeySource::Published(published)))
            }
        }
    }
}

impl Config {
    /// What is said of a service.
    #[must_use]
    pub fn service(&self, role: Role) -> Service<'_> {
        let (urls, key_file, jwks, jwks_url) = match role {
            Role::App => {
                let app = &self.app;
                (app.internal_urls.as_slice(), &app.key_file, &app.jwks, &app.jwks_url)
            }
            Role::Orchestrator => {
                let orchestrator = &self.orchestrator;
                let urls = orchestrator.urls.as_slice();
                (urls, &orchestrator.key_file, &orchestrator.jwks, &orchestrator.jwks_url)
            }
            Role::Controllers => {
                let controllers = &self.controllers;
                let urls = controllers.url.as_slice();
                (urls, &controllers.key_file, &controllers.jwks, &controllers.jwks_url)
            }
            Role::Agents => {
                let agents = &self.agents;
                (agents.urls.as_slice(), &agents.key_file, &agents.jwks, &agents.jwks_url)
            }
        };
        Service {
            role,
            urls,
            key_file: key_file.as_deref(),
            jwks: jwks.as_deref(),
            jwks_url: jwks_url.as_ref(),
        }
    }

    /// That every address is one, and that a process with a role knows what it must know.
    pub(super) fn check_role(&self) -> Result<(), ConfigError> {
        for role in Role::ALL {
            let service = self.service(role);
            if let Some(url) = service.urls.iter().find(|url| !is_base(url)) {
                let problem = format!("{url} is not http(s)://host[:port]");
                return Err(ConfigError::invalid(role.urls_key(), problem));
            }
            service.key_source()?;
        }
        let Some(role) = self.role else { return Ok(()) };
        let needed = |key: &str, what: &str| {
            Err(ConfigError::invalid(
                key,
                format!("it is not set, but the role {:?} needs {what}", role.name()),
            ))
        };
        match role {
            Role::App => {}
            Role::Orchestrator if self.orchestrator.listen.is_none() => {
                return needed("orchestrator.listen", "the address it listens on");
            }
            Role::Controllers if self.controllers.listen.is_none() => {
                return needed("controllers.listen", "the address it listens on");
            }
            Role::Agents if self.agents.listen.is_none() => {
                return needed("agents.listen", "the address it listens on");
            }
            Role::Orchestrator | Role::Controllers | Role::Agents => {}
        }
        for other in role.calls() {
            if self.service(*other).urls.is_empty() {
                return needed(other.urls_key(), "it to call that service");
            }
        }
        for other in role.trusts() {
            if self.service(*other).key_source()?.is_none() {
                let key = format!("{}.jwks_url", other.name());
                let what = format!(
                    "that service's public keys: set it, {}.jwks or {}",
                    other.name(),
                    other.urls_key()
                );
                return needed(&key, &what);
            }
        }
        Ok(())
    }
}

fn is_base(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.host().is_some()
        && url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(role: Role) -> Config {
        let url = |text: &str| Url::parse(text).unwrap();
        let mut config = Config { role: Some(role), ..Config::default() };
        config.app.internal_urls = vec![url("http://app:1")];
        config.orchestrator.listen = Some(([127, 0, 0, 1], 2).into());
        config.orchestrator.urls = vec![url("http://orchestrator:2"), url("http://other:2")];
        config.controllers.listen = Some(([127, 0, 0, 1], 3).into());
        config.controllers.url = Some(url("http://controllers:3"));
        config.agents.listen = Some(([127, 0, 0, 1], 4).into());
        config.agents.urls = vec![url("http://agents:4")];
        config
    }

    /// The key that a configuration fails at.
    fn failing(config: &Config) -> String {
        config.check_role().unwrap_err().to_string().split(':').next().unwrap().to_owned()
    }

    #[test]
    fn one_file_that_names_every_service_is_enough_for_each_role() {
        for role in Role::ALL {
            assert!(config(role).check_role().is_ok(), "{role:?}");
        }
    }

    #[test]
    fn a_role_that_lacks_an_address_is_told_by_its_key() {
        let mut app = config(Role::App);
        app.orchestrator.urls.clear();
        assert_eq!(failing(&app), "orchestrator.urls");
        let mut orchestrator = config(Role::Orchestrator);
        orchestrator.orchestrator.listen = None;
        assert_eq!(failing(&orchestrator), "orchestrator.listen");
        let mut orchestrator = config(Role::Orchestrator);
        orchestrator.controllers.url = None;
        assert_eq!(failing(&orchestrator), "controllers.url");
        let mut controllers = config(Role::Controllers);
        controllers.agents.urls.clear();
        assert_eq!(failing(&controllers), "agents.urls");
        let mut controllers = config(Role::Controllers);
        controllers.controllers.listen = None;
        assert_eq!(failing(&controllers), "controllers.listen");
        let mut agents = config(Role::Agents);
        agents.agents.listen = None;
        assert_eq!(failing(&agents), "agents.listen");
        let mut agents = config(Role::Agents);
        agents.app.internal_urls.clear();
        assert_eq!(failing(&agents), "app.internal_urls");
    }

    #[test]
    fn a_role_that_cannot_know_a_peers_keys_is_told_by_their_key() {
        let mut app = config(Role::App);
        app.agents.urls.clear();
        assert_eq!(failing(&app), "agents.jwks_url");
        app.agents.jwks = Some(r#"{"keys":[]}"#.to_owned());
        assert!(app.check_role().is_ok());
    }

    #[test]
    fn keys_come_from_the_document_else_from_their_url_else_from_the_service_itself() {
        let mut config = config(Role::App);
        let published = |config: &Config| {
            let source = config.service(Role::Orchestrator).key_source().unwrap().unwrap();
            match source {
                KeySource::Published(urls) => urls.iter().map(Url::to_string).collect(),
                KeySource::Inline(_) => Vec::new(),
            }
        };
        assert_eq!(
            published(&config),
            ["http://orchestrator:2/.well-known/jwks.json", "http://other:2/.well-known/jwks.json"]
        );
        config.orchestrator.jwks_url = Some(Url::parse("https://keys/orchestrator").unwrap());
        assert_eq!(published(&config), ["https://keys/orchestrator"]);
        config.orchestrator.jwks_url = None;
        config.orchestrator.jwks = Some(r#"{"keys":[]}"#.to_owned());
        assert!(published(&config).is_empty());
    }
}
