//! What the stories in a browser share: two people in two browsers and one group, and the words for
//! what they look at.

use std::path::PathBuf;

use convene_testing::{
    browser::{Browsers, Page, Screen, free_port},
    client::{PASSWORD, Person},
    process::{Convene, Launch},
};
use serde_json::json;

use crate::{convene, story_access::STILL};

/// Keys, as WebDriver writes them.
pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const ESCAPE: &str = "\u{e00c}";
pub(crate) const UP: &str = "\u{e013}";

/// The texts of all messages in view, oldest first.
pub(crate) const TEXTS: &str = "[...document.querySelectorAll('[aria-label=Conversation] article .msg-body')].map((body) => body.innerText.trim())";
/// Whether the page is up to date and says nothing else.
pub(crate) const LIVE: &str =
    "document.querySelector('convene-connection')?.getAttribute('state') === 'live'";

/// Ana, who owns the workspace, and Ben, a member, each in front of a browser.
pub(crate) struct Stage {
    pub(crate) launch: Launch,
    pub(crate) node: Convene,
    pub(crate) org: String,
    /// The group that both have open.
    pub(crate) group: String,
    pub(crate) ana: Page,
    pub(crate) ben: Page,
    /// The same two as programs.
    pub(crate) as_ana: Person,
    pub(crate) as_ben: Person,
    _browsers: Browsers,
    dir: tempfile::TempDir,
}

impl Stage {
    /// Opens the group `Launch week` of the workspace `Harbour Lab` in front of both.
    pub(crate) async fn set(ana: Screen, ben: Screen) -> Self {
        Self::set_with(&[], ana, ben).await
    }

    /// The same with settings, as variables of the environment.
    pub(crate) async fn set_with(settings: &[(&str, &str)], ana: Screen, ben: Screen) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut launch = convene(dir.path()).listen(format!("127.0.0.1:{}", free_port()));
        for (name, value) in settings {
            launch = launch.env(name, *value);
        }
        let node = launch.start().await;
        let as_ana = Person::sign_up(&node.url, "Ana").await;
        let as_ben = Person::sign_up(&node.url, "Ben").await;
        let org = as_ana.create_org("Harbour Lab").await;
        as_ana.invite(&org, &as_ben).await;
        let group = as_ana.create_group(&org, "Launch week").await;
        let browsers = Browsers::start().await;
        let ana = browsers.open(&dir.path().join("ana"), ana).await;
        let ben = browsers.open(&dir.path().join("ben"), ben).await;
        for (page, name) in [(&ana, "Ana"), (&ben, "Ben")] {
            sign_in(page, &node.url, name).await;
            open(page, &node.url, &group).await;
        }
        let _browsers = browsers;
        Self { launch, node, org, group, ana, ben, as_ana, as_ben, _browsers, dir }
    }

    /// Sets limits of the workspace, each as `name=value`, as its operator.
    pub(crate) async fn limit(&self, limits: &[&str]) {
        let set = limits.iter().flat_map(|limit| ["--set", limit]);
        self.operator(&[&["limits", &self.org][..], &set.collect::<Vec<_>>()].concat()).await;
    }

    /// Blocks the workspace, or lifts the block.
    pub(crate) async fn block(&self, blocked: bool) {
        if blocked {
            self.operator(&["block", &self.org, "--reason", "a test"]).await;
        } else {
            self.operator(&["unblock", &self.org]).await;
        }
    }

    async fn operator(&self, args: &[&str]) {
        let done = tokio::process::Command::new(env!("CARGO_BIN_EXE_convene"))
            .arg("orgs")
            .args(args)
            .arg("--data-dir")
            .arg(self.dir.path().join("data"))
            .output()
            .await
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Nothing failed unseen; everything ends in order.
    pub(crate) async fn close(self) {
        for page in [&self.ana, &self.ben] {
            assert_eq!(page.errors().await, Vec::<String>::new());
        }
        self.ana.close().await;
        self.ben.close().await;
        assert_eq!(self.node.stop().await, Some(0));
    }
}

pub(crate) async fn sign_in(page: &Page, url: &str, name: &str) {
    page.go(&format!("{url}/sign-in")).await;
    page.write("Mail address", &format!("{}@example.org", name.to_lowercase())).await;
    page.write("Password", PASSWORD).await;
    page.press("Sign in").await;
    page.until("!location.pathname.startsWith('/sign-in')").await;
}

/// Opens a group and waits until it is up to date.
pub(crate) async fn open(page: &Page, url: &str, group: &str) {
    page.go(&format!("{url}/g/{group}")).await;
    page.until(LIVE).await;
}

/// Waits until a message stands in the conversation, once, with nothing left to wait for.
pub(crate) async fn sees(page: &Page, text: &str) {
    let shown = format!("{TEXTS}.filter((text) => text === {}).length === 1", json!(text));
    page.until(&shown).await;
    page.until("!document.querySelector('article.pending')").await;
}

/// Writes a message and sends it as the screen has it.
pub(crate) async fn say(page: &Page, text: &str) {
    page.write("Message", text).await;
    page.press("Send").await;
    sees(page, text).await;
}

/// The element of the message with a text, as an expression.
pub(crate) fn message(text: &str) -> String {
    format!(
        "[...document.querySelectorAll('[aria-label=Conversation] article')].find((article) => article.querySelector('.msg-body').innerText.trim() === {})",
        json!(text)
    )
}

/// Uses a tool of the message with a text: `React`, `Reply` or `More`.
pub(crate) async fn tool(page: &Page, text: &str, tool: &str) {
    page.point_at("[aria-label=Conversation] article .msg-body", text).await;
    page.until(&format!("{}.querySelector('convene-tools')", message(text))).await;
    page.press(tool).await;
}

/// Chooses from the menu of the message with a text.
pub(crate) async fn choose(page: &Page, text: &str, choice: &str) {
    tool(page, text, "More").await;
    page.press(choice).await;
}

/// What the menu of the message with a text offers; it is closed again.
pub(crate) async fn choices(page: &Page, text: &str) -> Vec<String> {
    tool(page, text, "More").await;
    page.until("document.activeElement.matches('[role=menuitem]')").await;
    let offered = page
        .say("[...document.querySelectorAll('[role=menuitem]')].map((item) => item.innerText)")
        .await;
    page.keys(ESCAPE).await;
    page.until("!document.querySelector('[role=menu]')").await;
    offered
}

/// Shows the panel with people, agents and pins, which is a drawer on a phone.
pub(crate) async fn show_panel(page: &Page) {
    if page.is_phone() {
        page.press("People and agents").await;
    }
    page.until("document.querySelector('#panel').checkVisibility()").await;
}

/// Nothing is wider than the screen, and whatever can be touched is large enough for a finger.
pub(crate) async fn fits(page: &Page) {
    page.until("document.readyState === 'complete'").await;
    let (width, screen): (f64, f64) =
        page.say("[document.documentElement.scrollWidth, innerWidth]").await;
    let path: String = page.say("location.pathname").await;
    assert_eq!((width, screen), (390.0, 390.0), "{path}");
    let small: Vec<String> = page.say(SMALL_TARGETS).await;
    assert_eq!(small, Vec::<String>::new(), "too small for a finger on {path}");
}

/// What can be touched and is under 44 pixels in height; links within a text are text.
const SMALL_TARGETS: &str = "[...document.querySelectorAll('button, a[href], summary, select, input, textarea')]
    .filter((element) => element.checkVisibility() && element.getClientRects().length)
    .filter((element) => !element.closest('.prose, p, .msg-note, .sr-only, .skip, .hint'))
    .map((element) => [element.closest('label') ?? element, element])
    .filter(([box]) => box.getBoundingClientRect().height < 43.5)
    .map(([box, element]) => `${element.tagName} ${element.getAttribute('aria-label') ?? box.textContent.trim()} ${box.getBoundingClientRect().height}`)";

/// Keeps a picture for the documents, when they are to be made anew.
pub(crate) async fn save(page: &Page, name: &str) {
    if std::env::var_os("CONVENE_SCREENSHOTS").is_some_and(|value| value == "1") {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/images");
        std::fs::create_dir_all(&folder).unwrap();
        page.picture(&folder.join(name)).await;
    }
}

/// Keeps pictures in light and dark in the folder that `CONVENE_PICTURES` names, for the eyes of
/// whoever changes the pages.
pub(crate) async fn picture(page: &Page, path: &str) {
    let Some(folder) = std::env::var_os("CONVENE_PICTURES").map(PathBuf::from) else { return };
    let kind = path.split('/').map(|part| if part.len() == 32 { "one" } else { part });
    let kind = kind.collect::<Vec<_>>().join("-");
    let device = if page.is_phone() { "phone" } else { "desk" };
    let script = "document.querySelector('details.fold')?.setAttribute('open', '')";
    page.run(script).await;
    for (dark, shade) in [(false, "light"), (true, "dark")] {
        page.prefer_dark(dark).await;
        // Colours that fade into each other would be seen halfway.
        page.run(STILL).await;
        page.picture(&folder.join(format!("{kind}-{device}-{shade}.png"))).await;
    }
}
