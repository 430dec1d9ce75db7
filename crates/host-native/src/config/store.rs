//! `[archives]` and `[logs]`: object stores, each a folder or a bucket.

use std::{fmt, path::PathBuf, time::Duration};

use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use super::ConfigError;

/// Bytes of uncompressed lines that a snapshot may have unless something else is set.
const DEFAULT_MAX_SNAPSHOT_BYTES: u64 = 64 * 1024 * 1024 * 1024;
/// The smallest limit that can be set.
const MIN_MAX_SNAPSHOT_BYTES: u64 = 1024 * 1024;
/// How old a line becomes before it is shipped when nothing is said, and what can be set.
const DEFAULT_EVERY_SECS: u64 = 30;
const EVERY_SECS: std::ops::RangeInclusive<u64> = 1..=3600;
/// How long logs are kept when nothing is said, and at most.
const DEFAULT_KEEP_DAYS: u64 = 30;
const MAX_KEEP_DAYS: u64 = 3650;
/// The region where nothing is said.
const DEFAULT_REGION: &str = "us-east-1";

/// An object store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// What it is.
    pub store: StoreKind,
    /// The folder; one in the data directory when not set.
    pub path: Option<PathBuf>,
    /// The bucket.
    pub bucket: Option<String>,
    /// Under what everything is kept in the bucket.
    pub prefix: Option<String>,
    /// Where the service is, without the bucket.
    pub endpoint: Option<Url>,
    /// The region.
    pub region: Option<String>,
    /// The id of the access key.
    pub access_key_id: Option<String>,
    /// The secret of the access key.
    pub secret_access_key: Option<SecretText>,
    /// A file with the secret.
    pub secret_access_key_file: Option<PathBuf>,
    /// Whether the bucket is part of the host's name.
    pub virtual_hosted_style: bool,
    /// Whether the endpoint may be `http`.
    pub allow_http: bool,
    /// For archives: bytes of uncompressed lines that a snapshot may have.
    pub max_snapshot_bytes: Option<u64>,
    /// For logs: whether they are shipped.
    pub ship: Option<bool>,
    /// For logs: how old a line becomes before it is shipped, in seconds.
    pub every_secs: Option<u64>,
    /// For logs: how many days they are kept; 0 is for ever.
    pub keep_days: Option<u64>,
}

/// What an object store is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// A folder.
    #[default]
    Folder,
    /// A bucket of anything that speaks S3.
    S3,
}

/// A secret: shown by no `Debug` and wiped when dropped.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// The secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl StoreConfig {
    /// Bytes of uncompressed lines that a snapshot may have.
    #[must_use]
    pub fn max_snapshot_bytes(&self) -> u64 {
        self.max_snapshot_bytes.unwrap_or(DEFAULT_MAX_SNAPSHOT_BYTES)
    }

    /// Whether logs are shipped.
    #[must_use]
    pub fn ships(&self) -> bool {
        self.ship.unwrap_or(true)
    }

    /// How old a line of a log becomes before it is shipped.
    #[must_use]
    pub fn every(&self) -> Duration {
        Duration::from_secs(self.every_secs.unwrap_or(DEFAULT_EVERY_SECS))
    }

    /// How long logs are kept; `None` is for ever.
    #[must_use]
    pub fn keep(&self) -> Option<Duration> {
        let days = self.keep_days.unwrap_or(DEFAULT_KEEP_DAYS);
        (days > 0).then(|| Duration::from_secs(days * 24 * 60 * 60))
    }

    /// The bucket's region.
    #[must_use]
    pub fn region(&self) -> &str {
        self.region.as_deref().unwrap_or(DEFAULT_REGION)
    }

    /// The access key's secret, from the configuration or from its file. `section` names the store
    /// in errors.
    ///
    /// # Errors
    /// [`ConfigError`] when there is none or its file cannot be read.
    pub fn secret(&self, section: &str) -> Result<SecretText, ConfigError> {
        let key = |name: &str| format!("{section}.{name}");
        let secret = match (&self.secret_access_key, &self.secret_access_key_file) {
            (Some(secret), None) => secret.clone(),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
                    let problem = format!("{} cannot be read: {error}", path.display());
                    ConfigError::invalid(key("secret_access_key_file"), problem)
                })?;
                SecretText::from(text.trim().to_owned())
            }
            (None, None) => {
                let problem = "it or secret_access_key_file is needed for s3";
                return Err(ConfigError::invalid(key("secret_access_key"), problem));
            }
            (Some(_), Some(_)) => {
                let problem = "it and secret_access_key_file exclude each other";
                return Err(ConfigError::invalid(key("secret_access_key"), problem));
            }
        };
        if secret.expose().is_empty() {
            return Err(ConfigError::invalid(key("secret_access_key"), "it is empty"));
        }
        Ok(secret)
    }

    pub(super) fn check(&self, section: &str) -> Result<(), ConfigError> {
        let invalid =
            |name: &str, problem: &str| ConfigError::invalid(format!("{section}.{name}"), problem);
        if self.max_snapshot_bytes.is_some_and(|bytes| bytes < MIN_MAX_SNAPSHOT_BYTES) {
            return Err(invalid("max_snapshot_bytes", "it is less than 1048576"));
        }
        if self.every_secs.is_some_and(|secs| !EVERY_SECS.contains(&secs)) {
            return Err(invalid("every_secs", "it must be 1 to 3600"));
        }
        if self.keep_days.is_some_and(|days| days > MAX_KEEP_DAYS) {
            return Err(invalid("keep_days", "it is at most 3650"));
        }
        match self.store {
            StoreKind::Folder => {
                let only_s3 = [
                    ("bucket", self.bucket.is_some()),
                    ("prefix", self.prefix.is_some()),
                    ("endpoint", self.endpoint.is_some()),
                    ("region", self.region.is_some()),
                    ("access_key_id", self.access_key_id.is_some()),
                    ("secret_access_key", self.secret_access_key.is_some()),
                    ("secret_access_key_file", self.secret_access_key_file.is_some()),
                ];
                match only_s3.into_iter().find(|(_, is_set)| *is_set) {
                    Some((name, _)) => Err(invalid(name, "it needs store = \"s3\"")),
                    None => Ok(()),
                }
            }
            StoreKind::S3 => self.check_bucket(section, &invalid),
        }
    }

    fn check_bucket(
        &self,
        section: &str,
        invalid: &impl Fn(&str, &str) -> ConfigError,
    ) -> Result<(), ConfigError> {
        if self.path.is_some() {
            return Err(invalid("path", "it needs store = \"folder\""));
        }
        let is_name = |bucket: &str| {
            (3..=63).contains(&bucket.len())
                && bucket.bytes().all(|b| {
                    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.')
                })
        };
        if !self.bucket.as_deref().is_some_and(is_name) {
            return Err(invalid("bucket", "it is needed for s3: 3 to 63 of [a-z0-9.-]"));
        }
        let is_prefix = |prefix: &str| {
            prefix.split('/').all(|part| {
                !part.is_empty()
                    && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            })
        };
        if !self.prefix.as_deref().is_none_or(is_prefix) {
            let problem = "it is parts of [A-Za-z0-9_-] with one / between them";
            return Err(invalid("prefix", problem));
        }
        if let Some(endpoint) = &self.endpoint {
            let plain = matches!(endpoint.path(), "" | "/")
                && endpoint.query().is_none()
                && endpoint.fragment().is_none()
                && endpoint.username().is_empty()
                && endpoint.password().is_none()
                && endpoint.has_host();
            match endpoint.scheme() {
                "https" if plain => {}
                "http" if plain && self.allow_http => {}
                "http" if plain => {
                    return Err(invalid("endpoint", "it is http, which allow_http would allow"));
                }
                _ => return Err(invalid("endpoint", "it is not https://host[:port]")),
            }
            if self.virtual_hosted_style && endpoint.domain().is_none() {
                return Err(invalid("endpoint", "virtual_hosted_style needs a host's name"));
            }
        }
        if self.region().is_empty() {
            return Err(invalid("region", "it is empty"));
        }
        if self.access_key_id.as_deref().is_none_or(str::is_empty) {
            return Err(invalid("access_key_id", "it is needed for s3"));
        }
        self.secret(section).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket() -> StoreConfig {
        StoreConfig {
            store: StoreKind::S3,
            bucket: Some("convene-archives".into()),
            endpoint: Some("https://s3.example.org".parse().unwrap()),
            access_key_id: Some("key-id".into()),
            secret_access_key: Some(SecretText::from("hush".to_owned())),
            ..StoreConfig::default()
        }
    }

    #[test]
    fn a_bucket_needs_name_keys_and_a_plain_address() {
        assert!(bucket().check("archives").is_ok());
        type Change = fn(&mut StoreConfig);
        let changes: [(&str, Change); 11] = [
            ("archives.bucket", |config| config.bucket = Some("Not_A_Bucket".into())),
            ("archives.prefix", |config| config.prefix = Some("/a".into())),
            ("archives.prefix", |config| config.prefix = Some("a/../b".into())),
            ("archives.endpoint", |config| config.endpoint = "http://x".parse().ok()),
            ("archives.endpoint", |config| config.endpoint = "https://x/path".parse().ok()),
            ("archives.endpoint", |config| config.endpoint = "https://u:p@x".parse().ok()),
            ("archives.endpoint", |config| {
                config.endpoint = "https://127.0.0.1:1".parse().ok();
                config.virtual_hosted_style = true;
            }),
            ("archives.path", |config| config.path = Some("x".into())),
            ("archives.access_key_id", |config| config.access_key_id = None),
            ("archives.secret_access_key", |config| config.secret_access_key = None),
            ("archives.secret_access_key", |config| {
                config.secret_access_key_file = Some("/nowhere".into());
            }),
        ];
        for (key, change) in changes {
            let mut config = bucket();
            change(&mut config);
            let error = config.check("archives").unwrap_err().to_string();
            assert!(error.starts_with(key), "{key}: {error}");
        }
        let http = "http://127.0.0.1:1".parse().ok();
        assert!(StoreConfig { endpoint: http, allow_http: true, ..bucket() }.check("logs").is_ok());
        let with_prefix = StoreConfig { prefix: Some("a/b_c-1".into()), ..bucket() };
        assert!(with_prefix.check("archives").is_ok());
    }

    #[test]
    fn a_secret_comes_from_its_file_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        let config = StoreConfig {
            secret_access_key: None,
            secret_access_key_file: Some(file.clone()),
            ..bucket()
        };
        assert!(config.check("archives").is_err(), "there is no such file");
        std::fs::write(&file, "\n").unwrap();
        assert!(config.check("archives").is_err(), "it is empty");
        std::fs::write(&file, "hush-hush\n").unwrap();
        assert_eq!(config.secret("archives").unwrap().expose(), "hush-hush");
        assert!(!format!("{config:?} {:?}", config.secret("archives")).contains("hush"));
        assert!(!format!("{:?}", bucket()).contains("hush"));
    }

    #[test]
    fn logs_are_shipped_and_kept_for_a_while_unless_something_else_is_said() {
        let said = |every_secs, keep_days| StoreConfig { every_secs, keep_days, ..bucket() };
        let default = said(None, None);
        assert!(default.ships() && !StoreConfig { ship: Some(false), ..bucket() }.ships());
        assert_eq!(default.every(), Duration::from_secs(30));
        assert_eq!(default.keep(), Some(Duration::from_secs(30 * 24 * 60 * 60)));
        assert_eq!(said(None, Some(0)).keep(), None);
        for (config, key) in [
            (said(Some(0), None), "logs.every_secs"),
            (said(Some(3601), None), "logs.every_secs"),
            (said(None, Some(3651)), "logs.keep_days"),
        ] {
            let error = config.check("logs").unwrap_err().to_string();
            assert!(error.starts_with(key), "{error}");
        }
        for config in [said(Some(1), Some(3650)), said(Some(3600), Some(1))] {
            assert!(config.check("logs").is_ok());
        }
    }

    #[test]
    fn the_limit_of_a_snapshot_has_a_floor() {
        let limited = |bytes| StoreConfig { max_snapshot_bytes: Some(bytes), ..bucket() };
        assert!(limited(MIN_MAX_SNAPSHOT_BYTES).check("archives").is_ok());
        assert!(limited(MIN_MAX_SNAPSHOT_BYTES - 1).check("archives").is_err());
        assert_eq!(bucket().max_snapshot_bytes(), DEFAULT_MAX_SNAPSHOT_BYTES);
    }
}
