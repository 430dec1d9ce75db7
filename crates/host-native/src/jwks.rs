//! Public keys of outside apps that are published under a URL: read at the start, then every few
//! minutes, so that their rotation needs no restart here.

use std::time::Duration;

use convene_model::keys::{Jwks, TrustedKeys};
use tokio_util::sync::CancellationToken;
use url::Url;

/// How often published keys are read again.
const REFRESH_EVERY: Duration = Duration::from_secs(5 * 60);
/// How soon after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// How long one reading may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a key set at most.
const MAX_JWKS_BYTES: usize = 64 * 1024;

/// Keeps an issuer's keys up to date until the process stops. Keys that were read stay trusted
/// while their URL cannot be reached.
pub(crate) async fn keep_fresh(
    issuer: String,
    url: Url,
    keys: TrustedKeys,
    stopping: CancellationToken,
) {
    loop {
        let pause = match read(&url)
            .await
            .and_then(|jwks| keys.replace(&issuer, &jwks).map_err(|error| error.to_string()))
        {
            Ok(()) => REFRESH_EVERY,
            Err(error) => {
                tracing::warn!(issuer, %url, error, "an outside app's keys cannot be read");
                RETRY_AFTER
            }
        };
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn read(url: &Url) -> Result<Jwks, String> {
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| error.to_string())?;
    let mut response = client.get(url.clone()).send().await.map_err(|error| error.to_string())?;
    if !response.status().is_success() {
        return Err(format!("the answer is {}", response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| error.to_string())? {
        if body.len() + chunk.len() > MAX_JWKS_BYTES {
            return Err(format!("a key set has at most {MAX_JWKS_BYTES} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}
