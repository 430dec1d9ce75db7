//! A real browser, driven over WebDriver, seen as a person sees it: by labels, names and text.

use std::{path::Path, process::Stdio, time::Duration};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thirtyfour::{
    ChromiumLikeCapabilities, DesiredCapabilities, LoggingPrefsLogLevel, WebDriver, WebElement,
};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::client::{PATIENCE, http_client};

/// How long the driver may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause between two looks at a page.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// ChromeDriver as a process; killed when dropped.
#[derive(Debug)]
pub struct Browsers {
    url: String,
    _driver: Child,
}

/// What a browser is shown on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    /// A window of 1280 × 800 with a mouse.
    Desk,
    /// A phone of 390 × 844 that is touched.
    Phone,
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
        let deadline = Instant::now() + START_TIMEOUT;
        let http = http_client();
        while http.get(format!("{url}/status")).send().await.is_err() {
            assert!(Instant::now() < deadline, "{program} does not answer");
            sleep(LOOK_EVERY).await;
        }
        Self { url, _driver: driver }
    }

    /// Opens a browser of its own, which keeps what it keeps in `profile`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn open(&self, profile: &Path, screen: Screen) -> Page {
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
            "--window-size=1280,960",
            // The browser ends with the driver, also when a test fails.
            "--remote-debugging-pipe",
            &format!("--user-data-dir={}", profile.display()),
        ] {
            capabilities.add_arg(flag).expect("a capability");
        }
        capabilities.set_browser_log_level(LoggingPrefsLogLevel::Severe).expect("a capability");
        if screen == Screen::Phone {
            let metrics = json!({
                "width": 390, "height": 844, "pixelRatio": 2.0, "touch": true, "mobile": true
            });
            let emulation = json!({"deviceMetrics": metrics});
            let set = capabilities.add_experimental_option("mobileEmulation", emulation);
            set.expect("a capability");
        }
        let driver = WebDriver::new(&self.url, capabilities).await.expect("the browser starts");
        if screen == Screen::Desk {
            let size =
                driver.cdp().emulation().set_device_metrics_override(1280, 800, 1.0, false).await;
            size.expect("the window has a size");
        }
        Page { driver, screen }
    }
}

/// A browser with one page.
///
/// Every method waits a while for what it is about and panics, saying what was missing, if that
/// does not appear.
#[derive(Debug)]
pub struct Page {
    driver: WebDriver,
    screen: Screen,
}

impl Page {
    /// Goes to an address.
    ///
    /// # Panics
    /// When the browser is gone.
    pub async fn go(&self, url: &str) {
        self.driver.goto(url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// What an expression of the page's script says.
    ///
    /// # Panics
    /// When it throws, or says something else than a `T`.
    pub async fn say<T: DeserializeOwned>(&self, expression: &str) -> T {
        let script = format!("return ({expression});");
        let said = self.driver.execute(script, Vec::new()).await;
        let said = said.unwrap_or_else(|error| panic!("{expression}: {error}"));
        said.convert().unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// Runs statements in the page.
    ///
    /// # Panics
    /// When they throw.
    pub async fn run(&self, script: &str) {
        let done = self.driver.execute(script, Vec::new()).await;
        done.unwrap_or_else(|error| panic!("{script}: {error}"));
    }

    /// Waits until an expression is true.
    ///
    /// # Panics
    /// When it does not become true in time.
    pub async fn until(&self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        // Between two pages there is none that could answer.
        let look = async || {
            let said = self.driver.execute(format!("return !!({expression});"), Vec::new()).await;
            said.is_ok_and(|said| said.json() == &Value::Bool(true))
        };
        while !look().await {
            if Instant::now() > deadline {
                let text = self.driver.execute("return document.body.innerText", Vec::new()).await;
                let text = text.map(|text| text.json().to_string()).unwrap_or_default();
                panic!("never true: {expression}\non the page: {text}");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until a text can be read somewhere on the page.
    ///
    /// # Panics
    /// When it does not appear in time.
    pub async fn read(&self, text: &str) {
        self.until(&format!("document.body.innerText.includes({})", json!(text))).await;
    }

    /// Presses the button or link of that name.
    ///
    /// # Panics
    /// When there is none in sight.
    pub async fn press(&self, name: &str) {
        let button = self.element(FIND_BUTTON, name).await;
        button.click().await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Types into the field with that label, keys as in [`thirtyfour::Key`] included.
    ///
    /// # Panics
    /// When there is none in sight.
    pub async fn write(&self, label: &str, text: &str) {
        let field = self.element(FIND_FIELD, label).await;
        field.send_keys(text).await.unwrap_or_else(|error| panic!("{label}: {error}"));
    }

    /// Types into what has the focus.
    ///
    /// # Panics
    /// When nothing takes keys.
    pub async fn keys(&self, keys: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // The focus may be on its way from something that has just closed.
            let element = self.driver.active_element().await.expect("something has the focus");
            match element.send_keys(keys).await {
                Ok(()) => return,
                Err(error) => assert!(Instant::now() < deadline, "{keys:?}: {error}"),
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Points at the first visible element that a CSS selector and a text choose: with the mouse on
    /// a desk, with a finger on a phone.
    ///
    /// # Panics
    /// When there is none in sight.
    pub async fn point_at(&self, selector: &str, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        let element = loop {
            let found = self.driver.execute(FIND_TEXT, vec![json!(selector), json!(text)]).await;
            if let Some(element) = found.ok().and_then(|found| found.element().ok()) {
                break element;
            }
            assert!(Instant::now() < deadline, "no {selector} says {text:?}");
            sleep(LOOK_EVERY).await;
        };
        let done = match self.screen {
            Screen::Desk => {
                let pointer = self.driver.action_chain();
                pointer.move_to_element_center(&element).perform().await
            }
            Screen::Phone => element.click().await,
        };
        done.unwrap_or_else(|error| panic!("{selector} {text:?}: {error}"));
    }

    /// Whether the page is shown on a phone.
    #[must_use]
    pub fn is_phone(&self) -> bool {
        self.screen == Screen::Phone
    }

    /// Cuts the browser off from the network, or lets it back.
    ///
    /// # Panics
    /// When the browser is gone.
    pub async fn offline(&self, offline: bool) {
        let conditions = json!({
            "offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1
        });
        let cdp = self.driver.cdp();
        cdp.send_raw("Network.enable", json!({})).await.expect("the network can be watched");
        let set = cdp.send_raw("Network.emulateNetworkConditions", conditions).await;
        set.expect("the network can be cut");
    }

    /// What stands in the field with that label.
    ///
    /// # Panics
    /// When there is none in sight.
    pub async fn value(&self, label: &str) -> String {
        let field = self.element(FIND_FIELD, label).await;
        let value = field.prop("value").await.expect("a field has a value");
        value.unwrap_or_default()
    }

    async fn element(&self, find: &str, name: &str) -> WebElement {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.driver.execute(find, vec![json!(name)]).await;
            if let Some(element) = found.ok().and_then(|found| found.element().ok()) {
                return element;
            }
            assert!(Instant::now() < deadline, "nothing in sight is called {name:?}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Lets the page believe that its reader prefers dark colours, or light ones.
    ///
    /// # Panics
    /// When the browser is gone.
    pub async fn prefer_dark(&self, dark: bool) {
        self.prefer("prefers-color-scheme", if dark { "dark" } else { "light" }).await;
    }

    /// Lets the page believe that its reader has one preference, a media feature, and no other.
    ///
    /// # Panics
    /// When the browser is gone.
    pub async fn prefer(&self, feature: &str, value: &str) {
        let features = json!({"features": [{"name": feature, "value": value}]});
        let set = self.driver.cdp().send_raw("Emulation.setEmulatedMedia", features).await;
        set.expect("a preference can be set");
    }

    /// Forgets every cookie of the page's site.
    ///
    /// # Panics
    /// When the browser is gone.
    pub async fn forget_cookies(&self) {
        self.driver.delete_all_cookies().await.expect("cookies can be forgotten");
    }

    /// Saves a picture of the page as PNG.
    ///
    /// # Panics
    /// When it cannot be written.
    pub async fn picture(&self, file: &Path) {
        self.driver.screenshot(file).await.expect("a picture can be taken");
    }

    /// Errors that scripts, the network and the content security policy reported since the last
    /// call.
    ///
    /// # Panics
    /// When the browser is gone.
    pub async fn errors(&self) -> Vec<String> {
        let entries = self.driver.browser_log().await.expect("the browser keeps a log");
        entries.into_iter().map(|entry| entry.message).collect()
    }

    /// Closes the browser.
    pub async fn close(self) {
        let _ = self.driver.clone().quit().await;
    }
}

impl Drop for Page {
    /// A page that was not closed belongs to a test that failed: the browser ends with its driver,
    /// and nobody waits for it.
    fn drop(&mut self) {
        let _ = self.driver.clone().leak();
    }
}

/// The visible button or link with an accessible name.
const FIND_BUTTON: &str = "
    const name = arguments[0];
    const top = document.querySelector('dialog[open]') ?? document.querySelector('.pop:popover-open') ?? document;
    return [...top.querySelectorAll('button, a[href], summary, [role=button]')].find((element) =>
        element.checkVisibility() && element.getClientRects().length &&
        (element.getAttribute('aria-label') ?? element.textContent).trim().replace(/\\s+/g, ' ') === name);
";

/// The visible field with a label.
const FIND_FIELD: &str = "
    const name = arguments[0];
    return [...document.querySelectorAll('input, textarea, select')].find((element) =>
        element.checkVisibility() && element.getClientRects().length &&
        [element.getAttribute('aria-label'), ...[...element.labels ?? []].map((label) => label.textContent)]
            .some((label) => label?.trim() === name));
";

/// The visible element that a selector chooses and whose text, without spaces around it, is this.
const FIND_TEXT: &str = "
    const [selector, text] = arguments;
    const found = [...document.querySelectorAll(selector)].find((element) =>
        element.checkVisibility() && element.innerText.trim() === text);
    found?.scrollIntoView({ block: 'nearest' });
    return found;
";

/// A port that was free a moment ago.
///
/// # Panics
/// When the machine has none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
