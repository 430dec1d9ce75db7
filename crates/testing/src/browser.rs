//! A real browser, driven over WebDriver.

use std::{path::Path, process::Stdio, time::Duration};

use thirtyfour::{ChromiumLikeCapabilities, DesiredCapabilities, WebDriver};
use tokio::process::{Child, Command};

use crate::client::http_client;

/// How long the driver may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// ChromeDriver as a process; killed when dropped.
#[derive(Debug)]
pub struct Browsers {
    url: String,
    _driver: Child,
}

impl Browsers {
    /// Starts ChromeDriver (`CONVENE_CHROMEDRIVER`, else `chromedriver` on the path).
    ///
    /// # Panics
    /// When it cannot be started: browser tests are never skipped in silence.
    pub async fn start() -> Self {
        let program =
            std::env::var("CONVENE_CHROMEDRIVER").unwrap_or_else(|_| "chromedriver".to_owned());
        let port = free_port();
        let driver = Command::new(&program)
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{program} cannot be started ({error}): run the tests with `cargo xtask test`, which installs it")
            });
        let url = format!("http://127.0.0.1:{port}");
        let deadline = tokio::time::Instant::now() + START_TIMEOUT;
        let http = http_client();
        while http.get(format!("{url}/status")).send().await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "{program} does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self { url, _driver: driver }
    }

    /// Opens a browser of its own with a window of `width` × `height` CSS pixels.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn open(&self, profile: &Path, width: u32, height: u32) -> WebDriver {
        let mut capabilities = DesiredCapabilities::chrome();
        if let Ok(binary) = std::env::var("CONVENE_CHROMIUM") {
            capabilities.set_binary(&binary).expect("a capability");
        }
        for flag in [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            &format!("--user-data-dir={}", profile.display()),
            &format!("--window-size={width},{height}"),
        ] {
            capabilities.add_arg(flag).expect("a capability");
        }
        WebDriver::new(&self.url, capabilities).await.expect("the browser starts")
    }
}

/// A port that was free a moment ago.
///
/// # Panics
/// When the machine has none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
