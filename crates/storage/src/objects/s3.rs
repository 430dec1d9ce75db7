//! A bucket of anything that speaks S3: AWS, Cloudflare R2, and servers of one's own.
//!
//! Each request is signed over its body's SHA-256, so that the server refuses what arrived
//! damaged. Credentials are held in one place, shown by no `Debug` and wiped when the store closes.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use object_store::{
    BackoffConfig, ClientOptions, CredentialProvider, Result, RetryConfig,
    aws::{AmazonS3Builder, AwsCredential},
    client::{HttpClient, HttpConnector},
    prefix::PrefixStore,
};
use url::{Host, Url};
use zeroize::{Zeroize, Zeroizing};

use super::Store;

/// How often a call is tried again that failed in passing (no connection, 429, 5xx).
const MAX_RETRIES: usize = 4;
/// How long a call is tried again at most, so that its caller hears of a store that is down.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);

/// A bucket, and how it is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// Under what everything is kept in it; empty for the bucket itself.
    pub prefix: String,
    /// The service's address, `https://host[:port]`, without the bucket; AWS's own when not set.
    pub endpoint: Option<Url>,
    /// The region; `auto` for R2.
    pub region: String,
    /// The id of the access key.
    pub access_key_id: String,
    /// The secret of the access key.
    pub secret_access_key: Zeroizing<String>,
    /// Whether the bucket is part of the host's name rather than of the path.
    pub virtual_hosted_style: bool,
}

impl fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Settings")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("endpoint", &self.endpoint.as_ref().map(Url::as_str))
            .field("region", &self.region)
            .field("virtual_hosted_style", &self.virtual_hosted_style)
            .finish_non_exhaustive()
    }
}

/// A bucket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// The address has no host's name that a bucket could stand in front of.
    #[error("{0} is not an address that a bucket can be part of")]
    Endpoint(String),
    /// The client cannot be set up.
    #[error(transparent)]
    Store(#[from] object_store::Error),
}

/// Opens a bucket; `client` makes the connections, with its own TLS and time limits. Nothing is
/// asked of the service yet.
///
/// # Errors
/// [`S3Error`] when the settings cannot be those of a bucket.
pub fn open_s3(settings: &S3Settings, client: reqwest::Client) -> Result<Store, S3Error> {
    let credential = AwsCredential {
        key_id: settings.access_key_id.clone(),
        secret_key: settings.secret_access_key.to_string(),
        token: None,
    };
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(3),
            base: 2.0,
        },
        max_retries: MAX_RETRIES,
        retry_timeout: RETRY_TIMEOUT,
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_credentials(Arc::new(Keys(Arc::new(credential))))
        .with_http_connector(Connector(client))
        .with_virtual_hosted_style_request(settings.virtual_hosted_style)
        .with_retry(retry);
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(address(endpoint, settings)?);
    }
    let bucket = builder.build()?;
    if settings.prefix.is_empty() {
        return Ok(Arc::new(bucket));
    }
    Ok(Arc::new(PrefixStore::new(bucket, settings.prefix.as_str())))
}

/// The service's address, with the bucket in its host's name where that is wanted.
fn address(endpoint: &Url, settings: &S3Settings) -> Result<String, S3Error> {
    let unusable = || S3Error::Endpoint(endpoint.to_string());
    let mut url = endpoint.clone();
    if settings.virtual_hosted_style {
        let Some(Host::Domain(host)) = endpoint.host() else { return Err(unusable()) };
        let host = format!("{}.{host}", settings.bucket);
        url.set_host(Some(&host)).map_err(|_| unusable())?;
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// The one copy of the credentials.
struct Keys(Arc<AwsCredential>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // Requests under way share it; whoever drops it last without us frees it unwiped.
        if let Some(credential) = Arc::get_mut(&mut self.0) {
            credential.secret_key.zeroize();
        }
    }
}

#[async_trait]
impl CredentialProvider for Keys {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> Result<Arc<AwsCredential>> {
        Ok(Arc::clone(&self.0))
    }
}

/// Hands out the client that the host made.
#[derive(Debug)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(endpoint: &str, virtual_hosted_style: bool) -> S3Settings {
        S3Settings {
            bucket: "rooms".into(),
            prefix: String::new(),
            endpoint: Some(endpoint.parse().unwrap()),
            region: "auto".into(),
            access_key_id: "key-id".into(),
            secret_access_key: Zeroizing::new("hush-hush".into()),
            virtual_hosted_style,
        }
    }

    #[test]
    fn the_bucket_stands_in_the_path_or_in_the_host() {
        let at = |endpoint: &str, style| {
            let settings = settings(endpoint, style);
            address(settings.endpoint.as_ref().unwrap(), &settings)
        };
        assert_eq!(at("https://s3.test:9000/", false).unwrap(), "https://s3.test:9000");
        assert_eq!(at("https://s3.test:9000", true).unwrap(), "https://rooms.s3.test:9000");
        assert!(matches!(at("http://127.0.0.1:9000", true), Err(S3Error::Endpoint(_))));
    }

    #[test]
    fn no_debug_output_has_the_secret() {
        let keys = Keys(Arc::new(AwsCredential {
            key_id: "key-id".into(),
            secret_key: "hush-hush".into(),
            token: None,
        }));
        let settings = settings("http://s3.test", true);
        assert!(!format!("{keys:?} {settings:?}").contains("hush"));
    }
}
