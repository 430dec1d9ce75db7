//! The settings of a workspace in front of somebody who sets agents up: a provider, secrets, tools, a
//! server, an agent with all of it, what the pages say when something is wrong, and every page for
//! everybody, at a desk and on a phone.

use convene_testing::{
    browser::{Browsers, Page, Screen},
    client::Person,
    mcp_server::{Behaviour, Generation, McpTestServer, tool},
    model_server::{ModelServer, Script},
    process::Convene,
};
use serde_json::{Value, json};

use crate::{
    convene,
    story_access::{axe, check},
    story_stage::{ESCAPE, fits, picture, sign_in},
};

/// A secret that is shown on one page only, and only when it is asked for.
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
        self.page.until("customElements.get('convene-choice')").await;
    }

    /// Waits until a page that a form led to can be used.
    async fn settled(&self) {
        self.page
            .until("document.readyState === 'complete' && customElements.get('convene-choice')")
            .await;
    }

    /// An agent whose process is somebody else's, with two tokens; its id.
    async fn outside_agent(&self) -> String {
        let agents = format!("/api/orgs/{}/agents", self.org);
        let made = self.ana.post(&agents, json!({"name": "Lookout", "outside": true})).await;
        let agent = made["agent_id"].as_str().unwrap().to_owned();
        for name in ["build server", "my desk, for trying things out"] {
            self.ana.post(&format!("{agents}/{agent}/tokens"), json!({"name": name})).await;
        }
        agent
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
pub(crate) async fn choose(page: &Page, label: &str, words: &str) {
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

/// Empties a field.
async fn clear(page: &Page, selector: &str) {
    page.run(&format!("document.querySelector({}).value = ''", json!(selector))).await;
}

#[tokio::test]
async fn browser_a_secret_is_masked_until_it_is_asked_for_and_a_tool_sends_it() {
    let desk = Desk::open(Screen::Desk).await;
    let page = &desk.page;

    // A secret, which stays masked until its owner asks for it on record.
    desk.go("secrets").await;
    page.write("Name", "TIDES_TOKEN").await;
    page.write("Value", TOKEN).await;
    page.write("Note", "from the harbour office").await;
    page.press("Keep the secret").await;
    page.read("for agents in all groups").await;
    let text: String = page.say("document.documentElement.innerHTML").await;
    assert!(!text.contains(TOKEN), "the page has a secret in it");
    desk.go("secrets").await;
    page.run("document.querySelector('details.fold').open = true").await;
    page.press("Show the value").await;
    page.read("That you looked at it is put on record").await;
    page.press("Show the value").await;
    page.until(&format!(
        "document.querySelector('[aria-label=Result]')?.value === {}",
        json!(TOKEN)
    ))
    .await;
    let audit = desk.api("audit").await;
    assert_eq!(audit[0]["action"], "secret.revealed");
    assert!(!audit.to_string().contains(TOKEN));

    // A tool that sends it along.
    desk.go("tools/http/new").await;
    page.write("Name", "tide_times").await;
    page.write("What it is for", "Finds the tide times of a harbour.").await;
    clear(page, "#tool-parameters").await;
    page.write("Arguments", "{\"type\":\"object\"").await;
    page.write("Base URL", "https://tides.example/v1").await;
    page.write("Path", "/{harbour}").await;
    page.press("Make the tool").await;
    page.read("Arguments is not JSON").await;
    clear(page, "#tool-parameters").await;
    page.write(
        "Arguments",
        "{\"type\":\"object\",\"properties\":{\"harbour\":{\"type\":\"string\"}}}",
    )
    .await;
    page.press("Add a header").await;
    page.keys("Authorization").await;
    choose(page, "Value", "a secret").await;
    page.write("Before it", "Bearer").await;
    page.press("Make the tool").await;
    page.until("location.pathname.match(/tools\\/http\\/[0-9a-f]{32}$/)").await;
    let tool = desk.api("http-tools").await[0].clone();
    let secret = desk.api("secrets").await[0]["secret_id"].clone();
    assert_eq!(
        tool["config"]["headers"],
        json!([{"name": "Authorization", "value": {"secret": secret}, "prefix": "Bearer"}])
    );
    assert_eq!(
        (&tool["config"]["timeout_ms"], &tool["config"]["path"]),
        (&json!(20000), &json!("/{harbour}"))
    );

    // An agent that has the tool; what is saved is there again when the page is.
    desk.go("agents").await;
    page.press("New agent").await;
    page.until("customElements.get('convene-choice')").await;
    page.write("Name", "Tidekeeper").await;
    page.write("System prompt", "You know the tides.").await;
    tick(page, "tide_times").await;
    page.press("Make the agent").await;
    page.until("location.pathname.match(/agents\\/[0-9a-f]{32}$/)").await;
    let agents = desk.api("agents").await;
    let agent = agents.as_array().unwrap().iter().find(|one| one["name"] == "Tidekeeper").unwrap();
    assert_eq!(agent["config"]["http_tools"], json!([tool["tool_id"]]));
    page.until(&format!(
        "document.querySelector('[name=\"config.http_tools\"][value=\"{}\"]').checked",
        tool["tool_id"].as_str().unwrap()
    ))
    .await;
    page.write("System prompt", " And the moon.").await;
    page.press("Save").await;
    page.read("Saved.").await;
    page.write("System prompt", " And the sun.").await;
    page.press("Save").await;
    page.until("document.querySelector('[name=version]').value === '3'").await;

    // What is in use is not deleted, and the page says why.
    desk.go(&format!("tools/http/{}", tool["tool_id"].as_str().unwrap())).await;
    let delete = "document.activeElement.textContent === 'Delete the tool'";
    page.press("Delete the tool").await;
    page.until("document.activeElement.textContent === 'Cancel'").await;
    picture(page, "question").await;
    page.keys(ESCAPE).await;
    page.until(delete).await;
    assert!(desk.api("http-tools").await[0].is_object(), "Escape means no");
    page.press("Delete the tool").await;
    page.press("Cancel").await;
    page.until(delete).await;
    page.press("Delete the tool").await;
    page.press("Delete tool tide_times").await;
    page.read("It is in use by Tidekeeper.").await;
    // The refusal is in the console, and nothing else.
    let errors = page.errors().await;
    assert!(errors.iter().all(|error| error.contains("409")), "{errors:?}");
    desk.close().await;
}

/// Writes something else into a field.
async fn rewrite(page: &Page, label: &str, text: &str) {
    let empty = format!(
        "[...document.querySelectorAll('label')].find((label) => label.checkVisibility() && label.textContent.trim() === {}).control.value = ''",
        json!(label)
    );
    page.run(&empty).await;
    page.write(label, text).await;
}

#[tokio::test]
async fn browser_a_provider_a_server_and_an_agent_are_tried_as_soon_as_they_are_there_at_a_desk() {
    tried_at_once(Screen::Desk).await;
}

#[tokio::test]
async fn browser_a_provider_a_server_and_an_agent_are_tried_as_soon_as_they_are_there_on_a_phone() {
    tried_at_once(Screen::Phone).await;
}

async fn tried_at_once(screen: Screen) {
    let desk = Desk::open(screen).await;
    let page = &desk.page;
    let seen = async |view: &str| {
        picture(page, view).await;
        if page.is_phone() {
            fits(page).await;
        }
    };

    // A provider that is not there says so, and works once its address is right.
    desk.go("providers").await;
    page.write("Name", "Models").await;
    page.write("Base URL", "http://127.0.0.1:9/v1").await;
    page.write("Key", TOKEN).await;
    page.press("Add and try it out").await;
    page.read("does not work").await;
    seen("provider-fails").await;
    desk.settled().await;
    page.run("document.querySelector('details.fold').open = true").await;
    rewrite(page, "Base URL", &desk.models.base_url()).await;
    // The key that is stored goes to no other site.
    page.write("Another key", TOKEN).await;
    page.press("Save").await;
    page.read("works, 2 models").await;
    seen("provider-works").await;
    let html: String = page.say("document.documentElement.innerHTML").await;
    assert!(!html.contains(TOKEN), "the page has a key in it");
    assert_eq!(
        desk.models.requests().last().unwrap().header("authorization"),
        Some(&*format!("Bearer {TOKEN}"))
    );

    // A server that wants a token lists its tools when it has it.
    let mut behaviour =
        Behaviour::new(Generation::Sessions, vec![tool("read", true), tool("write", false)]);
    behaviour.wants = Some(("x-token", TOKEN));
    let server = McpTestServer::start(behaviour).await.unwrap();
    let secret = json!({"scope": "workspace", "name": "FILES_TOKEN", "value": TOKEN});
    desk.ana.post(&format!("/api/orgs/{}/secrets", desk.org), secret).await;
    desk.go("tools/mcp/new").await;
    page.write("Name", "files").await;
    page.write("URL", &server.url()).await;
    page.press("Add and list its tools").await;
    page.until("location.pathname.match(/tools\\/mcp\\/[0-9a-f]{32}$/)").await;
    page.read("does not work").await;
    seen("server-fails").await;
    desk.settled().await;
    page.press("Add a header").await;
    page.keys("x-token").await;
    choose(page, "Value", "a secret").await;
    page.press("Save and try it out").await;
    page.read("works with 2 tools").await;
    page.read("only reads").await;
    seen("server-works").await;

    // An agent that has both answers a question before anybody has it in a group.
    desk.models.always("one", Script::Say("I know the tides.".to_owned()));
    desk.go("agents/new").await;
    page.write("Name", "Tidekeeper").await;
    page.write("System prompt", "You know the tides.").await;
    choose(page, "Provider", "Models").await;
    page.write("Model", "one").await;
    tick(page, "files").await;
    tick(page, "only these").await;
    tick(page, "read").await;
    seen("agent-new").await;
    page.press("Make the agent").await;
    page.until("location.pathname.match(/agents\\/[0-9a-f]{32}$/)").await;
    desk.settled().await;
    page.press("Ask").await;
    page.read("I know the tides.").await;
    page.read("tokens read").await;
    seen("agent-tried").await;
    let agents = desk.api("agents").await;
    let agent = agents.as_array().unwrap().iter().find(|one| one["name"] == "Tidekeeper").unwrap();
    assert_eq!(agent["config"]["mcp_servers"][0]["tools"], json!(["read"]));
    let asked = desk.models.requests().last().unwrap().messages();
    assert!(asked[0].1.contains("You know the tides."), "{asked:?}");
    desk.close().await;
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
async fn browser_an_agent_of_ones_own_is_let_in_by_a_token_shown_once_and_shut_out_with_it() {
    let desk = Desk::open(Screen::Phone).await;
    let page = &desk.page;
    desk.go("agents").await;
    page.press("Bring your own").await;
    page.until("location.pathname.endsWith('/agents/outside')").await;
    page.write("Name", "Lookout").await;
    page.press("Make the agent").await;
    page.until("location.pathname.match(/agents\\/[0-9a-f]{32}$/)").await;
    page.read("Not connected.").await;
    page.read("No tokens yet.").await;
    page.write("Where does it run?", "build server").await;
    page.press("Make a token").await;
    page.until("document.querySelector('.copyable input')?.value.startsWith('cva_')").await;
    let token: String = page.say("document.querySelector('.copyable input').value").await;

    let agents = desk.api("agents").await;
    let agents = agents.as_array().unwrap();
    let agent = agents.iter().find(|agent| agent["name"] == "Lookout").unwrap();
    let id = agent["agent_id"].as_str().unwrap();
    let groups = desk.ana.get(&format!("/api/groups?org_id={}", desk.org)).await.1;
    let group = groups[0]["group_id"].as_str().unwrap().to_owned();
    let members = json!({"agents": [{"agent_id": id, "trigger": "mention"}]});
    let (status, answer) =
        desk.ana.send("PUT", &format!("/api/groups/{group}/agents"), Some(&members)).await;
    assert_eq!(status, 200, "{answer}");
    let mut lookout = desk.ana.clone();
    lookout.token.clone_from(&token);
    let (mut socket, _) = lookout.attach(&group, None).await;

    // Uses are gathered for a moment before they are written.
    while desk.api(&format!("agents/{id}/tokens")).await[0]["last_used_at"].is_null() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // Shown once: from now on the token is a mask, and its process is seen to be there.
    desk.go(&format!("agents/{id}")).await;
    page.until("document.querySelector('.state.good')?.textContent === 'Connected'").await;
    page.read("last used").await;
    let whole: String = page.say("document.documentElement.outerHTML").await;
    assert!(!whole.contains(&token) && whole.contains("cva_••••••••"), "{whole}");
    page.run("document.querySelector('[aria-label=\"Revoke build server\"]').click()").await;
    page.read("A program that uses it is shut out at once.").await;
    page.press("Revoke build server").await;
    page.read("No tokens yet.").await;
    page.read("Not connected.").await;
    while socket.next().await.is_ok() {}
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
    let outside = desk.outside_agent().await;
    for path in [
        "agents",
        "agents/new",
        &format!("agents/{agent}"),
        "agents/outside",
        &format!("agents/{outside}#outside"),
        "providers",
        "tools",
        "tools/http/new",
        &format!("tools/http/{tool}"),
        "tools/mcp/new",
        &format!("tools/mcp/{server}"),
        "secrets",
        "env/new",
        &format!("env/{profile}"),
        "audit",
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

/// One of everything: the ids of an agent, a tool, a server and a profile.
async fn fill(desk: &Desk) -> [String; 4] {
    let api = |what: &str| format!("/api/orgs/{}/{what}", desk.org);
    let ana = &desk.ana;
    desk.models.always("scout", Script::Say("Hello.".to_owned()));
    ana.post(
        &api("providers"),
        json!({
            "name": "Models", "base_url": desk.models.base_url(), "api_key": "k",
            "prices": {"scout": {"input": 3_000_000, "cached_input": 300_000, "output": 15_000_000}},
        }),
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

#[tokio::test]
async fn browser_a_price_is_given_while_a_provider_is_made_at_a_desk() {
    price_from_the_start(Screen::Desk).await;
}

#[tokio::test]
async fn browser_a_price_is_given_while_a_provider_is_made_on_a_phone() {
    price_from_the_start(Screen::Phone).await;
}

async fn price_from_the_start(screen: Screen) {
    let desk = Desk::open(screen).await;
    let page = &desk.page;
    desk.go("providers").await;
    page.write("Name", "Models").await;
    page.write("Base URL", &desk.models.base_url()).await;
    page.press("Add a price").await;
    page.keys("scout").await;
    page.write("Tokens read", "3 dollars").await;
    page.write("Tokens written", "15").await;
    page.press("Add and try it out").await;
    page.read("A price is a number of dollars from 0 to 10,000").await;
    picture(page, "new-provider").await;
    if page.is_phone() {
        fits(page).await;
    }
    assert_eq!(desk.api("providers").await, json!([]), "nothing is made of what is wrong");
    rewrite(page, "Tokens read", "3").await;
    page.press("Add and try it out").await;
    page.until("document.querySelector('.state.good')").await;
    let providers = desk.api("providers").await;
    assert_eq!(
        providers[0]["prices"],
        json!({"scout": {"input": 3_000_000, "output": 15_000_000}})
    );
    desk.close().await;
}
