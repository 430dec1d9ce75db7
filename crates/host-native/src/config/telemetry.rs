//! `[telemetry]`: traces that follow a message from hop to hop.

use serde::Deserialize;
use url::Url;

use super::ConfigError;

/// Traces.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// A collector that takes OTLP over HTTP with protobuf; spans go to `v1/traces` below it.
    pub otlp_endpoint: Option<Url>,
    /// Which share of the traces that begin here is recorded, from 0 to 1.
    pub sample_ratio: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { otlp_endpoint: None, sample_ratio: 1.0 }
    }
}

impl TelemetryConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if let Some(url) = &self.otlp_endpoint
            && !(matches!(url.scheme(), "http" | "https") && url.host().is_some())
        {
            let problem = format!("{url} is not an http(s) URL");
            return Err(ConfigError::invalid("telemetry.otlp_endpoint", problem));
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            let problem = format!("{} is not between 0 and 1", self.sample_ratio);
            return Err(ConfigError::invalid("telemetry.sample_ratio", problem));
        }
        Ok(())
    }

    /// Where spans go.
    pub(crate) fn traces_url(&self) -> Option<String> {
        let base = self.otlp_endpoint.as_ref()?.as_str().trim_end_matches('/');
        Some(if base.ends_with("/v1/traces") {
            base.to_owned()
        } else {
            format!("{base}/v1/traces")
        })
    }
}
