//! The settings of a workspace in front of somebody who sets agents up: secrets, variables, hosts,
//! and every page for everybody, at a desk and on a phone.

use std::path::PathBuf;

use convene_testing::{
    browser::{Browsers, Page, Screen},
    client::Person,
    model_server::{ModelServer, Script},
    process::Convene,
};
use serde_json::{Value, json};

use crate::{
    convene,
    story_access::{axe, check},
    story_stage::sign_in,
};

/// A value that nothing else looks like.
const TOKEN: &str = "tides-token-Kq83";

/// Somebody in front of the settings of a new workspace.
struct Desk {
    node: Convene,
    models: ModelServer,
    ana: Person,
    org: String,
    page: Page,
    _browsers: Browsers,
    _dir: tempfile::TempDir,
}

impl Desk {
    async fn open(screen: Screen) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let models = ModelServer::start().await.unwrap();
        let node =
            convene(dir.path()).env("CONVENE_AGENTS__ALLOW_HOSTS", "127.0.0.1").start().await;
        let ana = Person::sign_up(&node.url, "Ana").await;
        let org = ana.create_org("Harbour Lab").await;
        ana.create_group(&org, "Launch week").await;
        let browsers = Browsers::start().await;
        let page = browsers.open(&dir.path().join("ana"), screen).await;
        sign_in(&page, &node.url, "Ana").await;
        Self { node, models, ana, org, page, _browsers: browsers, _dir: dir }
    }

    async fn go(&self, path: &str) {
        self.page.go(&format!("{}/o/{}/settings/{path}", self.node.url, self.org)).await;
        // Whoever is asked says yes.
        self.page.run("window.confirm = () => true").await;
        self.page.until("customElements.get('convene-choice')").await;
    }

    async fn api(&self, what: &str) -> Value {
        self.ana.get(&format!("/api/orgs/{}/{what}", self.org)).await.1
    }

    async fn close(self) {
        assert_eq!(self.page.errors().await, Vec::<String>::new());
        self.page.close().await;
        assert_eq!(self.node.stop().await, Some(0));
    }
}

/// Chooses an option of a list by the label of the list and the words of the option.
async fn choose(page: &Page, label: &str, words: &str) {
    let script = format!(
        "const label = [...document.querySelectorAll('label')].find((label) => label.checkVisibility() && label.textContent.trim().startsWith({label}));
        const list = label.control;
        list.value = [...list.options].find((option) => option.textContent.trim() === {words}).value;
        list.dispatchEvent(new Event('change', {{ bubbles: true }}));",
        label = json!(label),
        words = json!(words)
    );
    page.run(&script).await;
}

/// Ticks a box or a choice by its words.
async fn tick(page: &Page, words: &str) {
    let script = format!(
        "[...document.querySelectorAll('label.check')].find((label) => label.checkVisibility() && label.textContent.trim().startsWith({})).control.click()",
        json!(words)
    );
    page.run(&script).await;
}

#[tokio::test]
async fn browser_variables_hosts_and_grants_are_set_by_what_is_seen() {
    let desk = Desk::open(Screen::Phone).await;
    let page = &desk.page;
    desk.go("secrets").await;
    choose(page, "Whose is it", "mine: only for runs that I begin").await;
    page.write("Name", "GITHUB_TOKEN").await;
    page.write("Value", TOKEN).await;
    page.press("Keep the secret").await;
    page.read("only for runs that you begin").await;

    desk.go("env/new").await;
    page.write("Name", "Staging").await;
    page.press("Add a variable").await;
    page.write("Variable", "API_TOKEN").await;
    choose(page, "Value", "a secret of whoever asks").await;
    page.write("Its name", "GITHUB_TOKEN").await;
    page.press("Make the profile").await;
    page.until("location.pathname.match(/env\\/[0-9a-f]{32}$/)").await;
    let profile = desk.api("env-profiles").await[0].clone();
    let variables = json!([{"name": "API_TOKEN", "value": {"personal": "GITHUB_TOKEN"}}]);
    assert_eq!(profile["config"]["variables"], variables);

    desk.go("tools").await;
    tick(page, "only to these").await;
    page.write("Hosts", "api.example\ntides.example:8443").await;
    page.press("Save the hosts").await;
    page.read("Saved.").await;
    let hosts = json!({"hosts": ["api.example", "tides.example:8443"]});
    assert_eq!(desk.api("tool-hosts").await, hosts);

    desk.go("secrets").await;
    page.write("Name", "SHARED").await;
    page.write("Value", TOKEN).await;
    tick(page, "only in these").await;
    tick(page, "Launch week").await;
    page.press("Keep the secret").await;
    page.read("granted to 1 group").await;
    desk.close().await;
}

#[tokio::test]
async fn browser_the_settings_are_for_everybody_at_a_desk() {
    every_page(Screen::Desk).await;
}

#[tokio::test]
async fn browser_the_settings_are_for_everybody_on_a_phone() {
    every_page(Screen::Phone).await;
}

/// Each page of a filled workspace, with all that is folded away.
async fn every_page(screen: Screen) {
    let axe = axe();
    let desk = Desk::open(screen).await;
    let [agent, tool, server, profile] = fill(&desk).await;
    for path in [
        "agents",
        "agents/new",
        &format!("agents/{agent}"),
        "providers",
        "tools",
        "tools/http/new",
        &format!("tools/http/{tool}"),
        "tools/mcp/new",
        &format!("tools/mcp/{server}"),
        "secrets",
        "env/new",
        &format!("env/{profile}"),
    ] {
        desk.go(path).await;
        picture(&desk.page, path).await;
        desk.page
            .run("for (const fold of document.querySelectorAll('details.fold')) fold.open = true")
            .await;
        check(&desk.page, &axe, path).await;
    }
    desk.close().await;
}

/// Keeps pictures in light and dark in the folder that `CONVENE_PICTURES` names, for the eyes of
/// whoever changes the pages.
async fn picture(page: &Page, path: &str) {
    let Some(folder) = std::env::var_os("CONVENE_PICTURES").map(PathBuf::from) else { return };
    let kind = path.split('/').map(|part| if part.len() == 32 { "one" } else { part });
    let kind = kind.collect::<Vec<_>>().join("-");
    let device = if page.is_phone() { "phone" } else { "desk" };
    let script = "document.querySelector('details.fold')?.setAttribute('open', '')";
    page.run(script).await;
    for (dark, shade) in [(false, "light"), (true, "dark")] {
        page.prefer_dark(dark).await;
        page.picture(&folder.join(format!("{kind}-{device}-{shade}.png"))).await;
    }
}

/// One of everything: the ids of an agent, a tool, a server and a profile.
async fn fill(desk: &Desk) -> [String; 4] {
    let api = |what: &str| format!("/api/orgs/{}/{what}", desk.org);
    let ana = &desk.ana;
    desk.models.always("scout", Script::Say("Hello.".to_owned()));
    ana.post(
        &api("providers"),
        json!({"name": "Models", "base_url": desk.models.base_url(), "api_key": "k"}),
    )
    .await;
    let secret = json!({"scope": "workspace", "name": "TIDES_TOKEN", "value": TOKEN, "note": "from the harbour office"});
    let secret = ana.post(&api("secrets"), secret).await["secret_id"].clone();
    let own = json!({"scope": "personal", "name": "GITHUB_TOKEN", "value": TOKEN});
    ana.post(&api("secrets"), own).await;
    let tool = json!({"name": "tide_times", "config": {
        "description": "Finds the tide times of a harbour on a day.",
        "base_url": "https://tides.example/v1", "methods": ["GET", "POST"], "path": "/{harbour}",
        "parameters": {"type": "object", "properties": {"harbour": {"type": "string"}}},
        "headers": [{"name": "Authorization", "value": {"secret": secret}, "prefix": "Bearer"}],
    }});
    let tool = ana.post(&api("http-tools"), tool).await["tool_id"].clone();
    let server = json!({"name": "github", "config": {"url": "https://mcp.example/mcp"}});
    let server = ana.post(&api("mcp-servers"), server).await["server_id"].clone();
    let variables = json!([{"name": "API_TOKEN", "value": {"personal": "GITHUB_TOKEN"}}]);
    let profile = json!({"name": "Staging", "config": {"variables": variables}});
    let profile = ana.post(&api("env-profiles"), profile).await["env_profile_id"].clone();
    let config = json!({
        "builtin_tools": ["current_time"], "http_tools": [tool],
        "mcp_servers": [{"server_id": server, "tools": ["create_issue"]}], "env_profile_id": profile,
    });
    let agent = json!({"name": "Tidekeeper", "system_prompt": "You know the tides.", "config": config, "visibility": "owner"});
    let agent = ana.post(&api("agents"), agent).await["agent_id"].clone();
    [agent, tool, server, profile].map(|id| id.as_str().unwrap().to_owned())
}
