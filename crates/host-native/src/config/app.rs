//! `[app]`: the public door, and the one for the Agents Worker.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use convene_app::{rooms::tuning::PING_EVERY, web::client::Network};
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use super::ConfigError;

/// The App.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AppConfig {
    /// The URL by which people reach the App; sets `Secure` cookies and the allowed `Origin`. Not
    /// set, the request's own host counts.
    pub public_url: Option<Url>,
    /// Addresses or ranges of proxies whose `x-forwarded-for` and `x-forwarded-proto` are believed.
    pub trusted_proxies: Vec<String>,
    /// How often a client's socket is pinged, in milliseconds.
    pub ping_every_ms: u64,
    /// How many requests one person may make in a minute; as many as they like when not set.
    pub requests_per_minute: Option<u32>,
    /// The master key itself, for those who keep it outside of files; wins over the file.
    pub master_key: Option<InlineKey>,
    /// The key behind secrets at rest; `keys/master.key` in the data directory when not set.
    pub master_key_file: Option<PathBuf>,
    /// Where the door for the Agents Worker is. The public door's own address puts it there; not
    /// set, only a worker in the same process has one.
    pub internal_listen: Option<SocketAddr>,
    /// Where other processes reach that door.
    pub internal_urls: Vec<Url>,
    /// The App's signing key; `keys/app.key` in the data directory when not set.
    pub key_file: Option<PathBuf>,
    /// The App's public keys, for other processes.
    pub jwks: Option<String>,
    /// Where they are published; below `internal_urls` when neither is set.
    pub jwks_url: Option<Url>,
}

/// Thirty-two bytes as 64 hexadecimal digits; shown by nothing.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct InlineKey(Zeroizing<[u8; 32]>);

impl InlineKey {
    /// The key.
    #[must_use]
    pub fn bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }
}

impl TryFrom<String> for InlineKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const WRONG: &str = "a master key has 64 hexadecimal digits";
        let text = Zeroizing::new(text);
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(WRONG);
        }
        let mut key = Zeroizing::new([0; 32]);
        for (at, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| WRONG)?;
        }
        Ok(Self(key))
    }
}

impl std::fmt::Debug for InlineKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InlineKey(…)")
    }
}

/// What [`AppConfig::requests_per_minute`] may be.
pub(super) const REQUESTS_PER_MINUTE: std::ops::RangeInclusive<u32> = 1..=1_000_000;

/// What [`AppConfig::ping_every_ms`] may be.
pub(super) const PING_EVERY_MS: std::ops::RangeInclusive<u64> = 100..=300_000;

impl Default for AppConfig {
    fn default() -> Self {
        Self {
            public_url: None,
            trusted_proxies: Vec::new(),
            ping_every_ms: PING_EVERY.as_millis() as u64,
            requests_per_minute: None,
            master_key: None,
            master_key_file: None,
            internal_listen: None,
            internal_urls: Vec::new(),
            key_file: None,
            jwks: None,
            jwks_url: None,
        }
    }
}

impl AppConfig {
    /// How often a client's socket is pinged.
    #[must_use]
    pub fn ping_every(&self) -> Duration {
        Duration::from_millis(self.ping_every_ms)
    }

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
        if !PING_EVERY_MS.contains(&self.ping_every_ms) {
            let problem = format!("it is not {PING_EVERY_MS:?}");
            return Err(ConfigError::invalid("app.ping_every_ms", problem));
        }
        if self.requests_per_minute.is_some_and(|rate| !REQUESTS_PER_MINUTE.contains(&rate)) {
            let problem = format!("it is not {REQUESTS_PER_MINUTE:?}");
            return Err(ConfigError::invalid("app.requests_per_minute", problem));
        }
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
