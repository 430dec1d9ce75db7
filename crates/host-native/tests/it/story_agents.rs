//! Agents as two people meet them, through the whole chain: an agent is mentioned, writes, asks leave
//! for a call of a real service, and what it may is done once, whoever decides and whatever dies
//! meanwhile; it is stopped in mid-sentence; and it is told why it came.

use std::time::Duration;

use convene_testing::{
    browser::{Page, Screen},
    client::Person,
    model_server::{ModelServer, Script},
    web_service::WebService,
};
use serde_json::{Value, json};

use crate::story_stage::{ESCAPE, LIVE, Stage, choose, fits, open, say, sees};

/// The newest element of an agent.
pub(crate) const NEWEST: &str =
    "[...document.querySelectorAll('[aria-label=Conversation] article.agent')].at(-1)";
pub(crate) const CARDS: &str = "document.querySelectorAll('convene-approval').length";

/// The stage with an agent on it whose model is scripted.
pub(crate) struct Play {
    pub(crate) stage: Stage,
    pub(crate) models: ModelServer,
    /// Where its tool `restart` leads to.
    pub(crate) service: WebService,
    pub(crate) group: String,
}

impl Play {
    /// `approvers` permit the calls of the agent's tool `restart`, a service on loopback.
    pub(crate) async fn set(approvers: impl Fn(&Stage) -> Value) -> Self {
        Self::set_with(&[], async |play| {
            let tool = json!({"name": "restart", "config": {
                "description": "Restarts a gauge.", "base_url": format!("{}/echo", play.service.url()),
                "methods": ["POST"], "path": "/{station}", "approvers": approvers(&play.stage),
                "parameters": {"type": "object", "properties": {"station": {"type": "string"}}},
            }});
            json!({"http_tools": [play.make("http-tools", "tool_id", tool).await]})
        })
        .await
    }

    /// The same with settings, as variables of the environment, and with an agent that is made as
    /// `config` says.
    pub(crate) async fn set_with(
        settings: &[(&str, &str)],
        config: impl AsyncFn(&Self) -> Value,
    ) -> Self {
        let mut all = vec![("CONVENE_AGENTS__ALLOW_HOSTS", "127.0.0.1")];
        all.extend_from_slice(settings);
        let stage = Stage::set_with(&all, Screen::Desk, Screen::Phone).await;
        let models = ModelServer::start().await.unwrap();
        let service = WebService::start().await.unwrap();
        let mut play = Self { stage, models, service, group: String::new() };
        let provider = json!({"name": "Models", "base_url": play.models.base_url()});
        let provider = play.make("providers", "provider_id", provider).await;
        let config = config(&play).await;
        let agent =
            json!({"name": "Aria", "provider_id": provider, "model": "m", "config": config});
        let agent = play.make("agents", "agent_id", agent).await;
        let stage = &play.stage;
        let group = json!({"org_id": stage.org, "title": "Gauges", "agent_ids": [agent], "is_private": false});
        let group = stage.as_ana.post("/api/groups", group).await["group_id"].clone();
        group.as_str().unwrap().clone_into(&mut play.group);
        for page in play.people() {
            open(page, &play.stage.node.url, &play.group).await;
        }
        play
    }

    /// Makes something in the workspace's settings; its id.
    pub(crate) async fn make(&self, what: &str, id: &str, new: Value) -> Value {
        let path = format!("/api/orgs/{}/{what}", self.stage.org);
        self.stage.as_ana.post(&path, new).await[id].clone()
    }

    pub(crate) fn people(&self) -> [&Page; 2] {
        [&self.stage.ana, &self.stage.ben]
    }

    /// The agent wants to restart a gauge, and says afterwards what came of it.
    pub(crate) async fn wants_to_restart(&self, says: &str) {
        let call = ("restart".to_owned(), json!({"station": "husum"}).to_string());
        let first = Script::Call { text: "I restart the gauge. ".to_owned(), calls: vec![call] };
        self.models.next("m", first);
        let chunks = says.split_inclusive(' ').map(str::to_owned).collect();
        self.models.next("m", Script::Slow { chunks, pause: Duration::from_millis(300) });
        say(&self.stage.ana, "@Aria the gauge in Husum is silent").await;
        for page in self.people() {
            stands(page, "waiting", "waiting for approval").await;
            page.read("Aria asks to use restart").await;
            page.read("\"station\":\"husum\"").await;
            reads(page, "I restart the gauge.").await;
        }
        assert_eq!(self.service.requests().len(), 0, "nothing is done without leave");
    }

    /// The tool was used once, both see what came of it, and nothing is left to be decided.
    async fn was_done_once(&self, says: &str) {
        for page in self.people() {
            stands(page, "done", "done").await;
            reads(page, &format!("I restart the gauge. {says}")).await;
            page.until(&format!("{CARDS} === 0")).await;
        }
        let requests = self.service.requests();
        assert_eq!(requests.len(), 1);
        assert_eq!((requests[0].method.as_str(), requests[0].uri.path()), ("POST", "/echo/husum"));
        let (socket, attached) = self.stage.as_ana.attach(&self.group, Some(0)).await;
        drop(socket);
        assert_eq!(attached["state"]["runs"], json!([]), "{attached}");
        let path = format!("/api/groups/{}/messages", self.group);
        let (_, page) = self.stage.as_ana.get(&path).await;
        let replies = page["messages"].as_array().unwrap().iter();
        assert_eq!(replies.filter(|message| message["run_id"].is_string()).count(), 1, "{page}");
    }
}

/// Waits until the newest run says so.
pub(crate) async fn stands(page: &Page, state: &str, words: &str) {
    let line = format!("{NEWEST}?.querySelector('convene-run')");
    let shown = format!(
        "{line}?.getAttribute('state') === {} && {line}.querySelector('.run-text').innerText.trim() === {}",
        json!(state),
        json!(words)
    );
    page.until(&shown).await;
}

/// Waits until the newest text of an agent is exactly this.
pub(crate) async fn reads(page: &Page, text: &str) {
    let body =
        format!("{NEWEST}?.querySelector('.msg-body')?.innerText.replace(/\\s+/g, ' ').trim()");
    page.until(&format!("{body} === {}", json!(text))).await;
}

/// What is read in the account of a message, which its menu opens.
async fn asks_why(page: &Page, text: &str, choice: &str, words: &[&str]) {
    choose(page, text, choice).await;
    page.until("document.querySelector('dialog[open] .accounts strong')").await;
    for words in words {
        page.read(words).await;
    }
    page.keys(ESCAPE).await;
    page.until("!document.querySelector('dialog[open]')").await;
}

#[tokio::test]
async fn browser_a_mentioned_agent_writes_asks_and_does_once_what_it_may_though_all_is_killed_meanwhile()
 {
    let mut play = Play::set(|_| json!({"kind": "initiator"})).await;
    play.wants_to_restart("Husum answers again, high water at noon.").await;
    let ben = &play.stage.ben;
    let buttons = "document.querySelectorAll('convene-approval button').length";
    assert_eq!(ben.say::<u64>(buttons).await, 0, "it is for Ana to decide");
    ben.read("For Ana to decide.").await;
    fits(ben).await;

    // What waits outlives the process.
    play.stage.node.kill().await;
    for page in [&play.stage.ana, &play.stage.ben] {
        page.until(&format!("!({LIVE})")).await;
    }
    play.stage.node = play.stage.launch.start().await;
    let [ana, ben] = play.people();
    for page in [ana, ben] {
        page.until(LIVE).await;
        stands(page, "waiting", "waiting for approval").await;
    }
    assert_eq!(play.service.requests().len(), 0);

    // The text grows while it is written.
    let watch = format!(
        "window.seen = new Set();
        new MutationObserver(() => seen.add({NEWEST}?.querySelector('.msg-body').innerText.trim()))
            .observe(document.querySelector('[aria-label=Conversation]'), {{childList: true, subtree: true, characterData: true}});"
    );
    ben.run(&watch).await;
    ana.press("Allow").await;
    play.was_done_once("Husum answers again, high water at noon.").await;
    let grew = "[...seen].some((text) => text.includes('Husum') && !text.includes('noon'))";
    assert!(ben.say::<bool>(grew).await, "{:?}", ben.say::<Value>("[...seen]").await);

    // What was used, and by whose leave.
    for page in [ana, ben] {
        page.run(&format!("{NEWEST}.querySelector('.calls summary').click()")).await;
        page.read("allowed by Ana, done").await;
        let asked = "@Aria the gauge in Husum is silent";
        let account = ["Aria", "It was mentioned.", "Done at", "in attempt 2"];
        asks_why(page, asked, "Who answers, and why", &account).await;
        let reply = "I restart the gauge.\n\nHusum answers again, high water at noon.";
        asks_why(page, reply, "How it came about", &account).await;
    }
    // The console has nothing but the attempts to connect meanwhile.
    for page in [ana, ben] {
        let errors = page.errors().await;
        let away = |error: &String| {
            error.contains("ERR_CONNECTION_REFUSED")
                || error.contains("ERR_INCOMPLETE_CHUNKED_ENCODING")
                || error.contains("ERR_CONNECTION_RESET")
        };
        assert!(errors.iter().all(away), "{errors:?}");
    }
    play.stage.close().await;
}

#[tokio::test]
async fn browser_several_people_decide_and_whoever_may_not_is_refused() {
    let play = Play::set(|stage| {
        let users = [&stage.as_ana.user_id, &stage.as_ben.user_id];
        json!({"kind": "n_of_m", "n": 2, "users": users})
    })
    .await;
    let cleo = Person::sign_up(&play.stage.node.url, "Cleo").await;
    play.stage.as_ana.invite(&play.stage.org, &cleo).await;
    play.wants_to_restart("Done.").await;
    let [ana, ben] = play.people();
    for page in [ana, ben] {
        page.read("0 of 2 have allowed it").await;
    }
    // One that is not among them has no say.
    let (mut socket, attached) = cleo.attach(&play.group, None).await;
    let approval = &attached["state"]["approvals"][0]["approval_id"];
    let vote =
        json!({"type": "approve", "ref": "v", "approval_id": approval, "decision": "approve"});
    socket.send(&vote).await;
    let refused = socket.until(|frame| frame["ref"] == "v").await;
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("not_permitted")));

    ana.press("Allow").await;
    for page in [ana, ben] {
        page.read("1 of 2 have allowed it").await;
    }
    ana.read("You have allowed it.").await;
    assert_eq!(play.service.requests().len(), 0, "one is not enough");
    ben.press("Allow").await;
    play.was_done_once("Done.").await;
    ana.run(&format!("{NEWEST}.querySelector('.calls summary').click()")).await;
    ana.read("allowed by Ana, Ben, done").await;

    // What one of them refuses is not done.
    let call = Script::call("restart", &json!({"station": "list"}));
    play.models.next("m", call);
    play.models.next("m", Script::Say("Then I leave it.".to_owned()));
    say(ben, "@Aria and the one on Sylt").await;
    ana.until(&format!("{CARDS} === 1")).await;
    ana.press("Refuse").await;
    for page in [ana, ben] {
        stands(page, "done", "done").await;
        reads(page, "Then I leave it.").await;
    }
    assert_eq!(play.service.requests().len(), 1);
    play.stage.close().await;
}

#[tokio::test]
async fn browser_an_agent_is_stopped_in_mid_sentence_and_tries_again() {
    let play = Play::set(|_| json!({"kind": "initiator"})).await;
    let [ana, ben] = play.people();
    play.models.next("m", Script::SilentAfter(vec!["High ".to_owned(), "water is".to_owned()]));
    say(ana, "@Aria when is high water?").await;
    for page in [ana, ben] {
        stands(page, "writing", "writing…").await;
        reads(page, "High water is").await;
    }
    // The one on the phone has had enough.
    ben.press("Stop").await;
    for page in [ana, ben] {
        stands(page, "stopped", "stopped").await;
        reads(page, "High water is").await;
    }
    // The provider is hung up on.
    play.models.wait_for_open_answers(0).await;
    play.models.next("m", Script::Say("High water is at noon.".to_owned()));
    ana.press("Try again").await;
    for page in [ana, ben] {
        stands(page, "done", "done").await;
        reads(page, "High water is at noon.").await;
        sees(page, "High water is").await;
    }
    fits(ben).await;
    play.stage.close().await;
}
