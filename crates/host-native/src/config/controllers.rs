//! `[controllers]`: the Group Controllers in a process of their own.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;
use url::Url;

/// The Group Controllers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControllersConfig {
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
}
