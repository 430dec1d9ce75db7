//! The object stores that the configuration names, opened.

use std::time::Duration;

use convene_storage::objects::{
    FolderError, Leftovers, S3Error, S3Settings, Store, open_folder, open_s3,
};
use zeroize::Zeroizing;

use crate::{
    agents_transport::{CONNECT_TIMEOUT, tls},
    config::{Config, ConfigError, StoreConfig, StoreKind},
};

/// How long a store may be silent in the middle of a call, a part on its way up included.
const SILENCE: Duration = Duration::from_secs(60);

/// A store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// A key is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The bucket cannot be used.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The client cannot be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(#[from] reqwest::Error),
}

/// Who opens a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opener {
    /// The service that writes to it.
    Service,
    /// A command, perhaps beside the running service.
    Command,
}

/// The store of `[archives]`.
pub(crate) fn archives(config: &Config, opener: Opener) -> Result<Store, StoreError> {
    open(config, &config.archives, "archives", opener)
}

/// The store of `[logs]`, and what the names in it begin with.
pub(crate) fn logs(config: &Config) -> Result<(Store, &'static str), StoreError> {
    let prefix = match config.logs.store {
        StoreKind::Folder => "",
        StoreKind::S3 => "logs/",
    };
    Ok((open(config, &config.logs, "logs", Opener::Service)?, prefix))
}

fn open(
    config: &Config,
    store: &StoreConfig,
    section: &str,
    opener: Opener,
) -> Result<Store, StoreError> {
    match store.store {
        StoreKind::Folder => {
            let path = store.path.clone().unwrap_or_else(|| config.data_dir.join(section));
            let leftovers = match opener {
                Opener::Command => Leftovers::Keep,
                // Without roles the data directory is this process's alone.
                Opener::Service if store.path.is_none() && config.role.is_none() => {
                    Leftovers::Remove
                }
                Opener::Service => Leftovers::RemoveOld,
            };
            Ok(open_folder(&path, leftovers)?)
        }
        StoreKind::S3 => {
            let settings = S3Settings {
                bucket: store.bucket.clone().unwrap_or_default(),
                prefix: store.prefix.clone().unwrap_or_default(),
                endpoint: store.endpoint.clone(),
                region: store.region().to_owned(),
                access_key_id: store.access_key_id.clone().unwrap_or_default(),
                secret_access_key: Zeroizing::new(store.secret(section)?.expose().to_owned()),
                virtual_hosted_style: store.virtual_hosted_style,
            };
            let client = reqwest::Client::builder()
                .tls_backend_preconfigured(tls()?)
                .user_agent(concat!("convene/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .https_only(!store.allow_http)
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(SILENCE)
                .build()?;
            Ok(open_s3(&settings, client)?)
        }
    }
}
