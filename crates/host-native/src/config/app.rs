//! `[app]`: the public door.

use convene_app::web::client::Network;
use serde::Deserialize;
use url::Url;

use super::ConfigError;

/// The App.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AppConfig {
    /// The URL by which people reach the App; sets `Secure` cookies and the allowed `Origin`. Not
    /// set, the request's own host counts.
    pub public_url: Option<Url>,
    /// Addresses or ranges of proxies whose `x-forwarded-for` and `x-forwarded-proto` are believed.
    pub trusted_proxies: Vec<String>,
}

impl AppConfig {
    /// The proxies that are believed.
    ///
    /// # Errors
    /// [`ConfigError`] when one of them is not an address or a range.
    pub fn proxies(&self) -> Result<Vec<Network>, ConfigError> {
        let parsed = self.trusted_proxies.iter().map(|text| text.parse::<Network>());
        parsed
            .collect::<Result<_, _>>()
            .map_err(|error| ConfigError::invalid("app.trusted_proxies", error.to_string()))
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.proxies()?;
        let Some(url) = &self.public_url else { return Ok(()) };
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let valid = matches!(url.scheme(), "http" | "https")
            && url.host().is_some()
            && url.username().is_empty()
            && bare;
        if valid {
            Ok(())
        } else {
            Err(ConfigError::invalid("app.public_url", "it is not http(s)://host[:port]"))
        }
    }
}
