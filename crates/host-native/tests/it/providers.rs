//! Agents on models of a provider: what a good one is sent, and how each fault of a bad one ends.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use convene_testing::{
    client::{Person, Socket},
    model_server::{ModelServer, Script},
    process::{Convene, Launch},
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::convene;

/// Nothing else looks like it, so that it is found wherever it leaks.
const KEY: &str = "sk-test-7fJq2Zr9XwLm4VbT";

/// A Convene with one workspace, whose provider is a model server of the test.
struct House {
    dir: TempDir,
    launch: Launch,
    models: ModelServer,
    ana: Person,
    org: String,
    provider: String,
}

impl House {
    /// Opens one whose providers may be silent for `silence` seconds.
    async fn open(silence: u64) -> (Self, Convene) {
        let dir = tempfile::tempdir().unwrap();
        let models = ModelServer::start().await.unwrap();
        let launch = convene(dir.path())
            .env("CONVENE_AGENTS__ALLOW_HOSTS", "127.0.0.1")
            .env("CONVENE_AGENTS__SILENCE_SECS", silence.to_string())
            .env("CONVENE_LOG__LEVEL", "trace")
            .log_to(dir.path().join("log"));
        let node = launch.start().await;
        let ana = Person::sign_up(&node.url, "Ana").await;
        let org = ana.create_org("Lighthouse").await;
        let provider = new_provider(&ana, &org, "Models", &models.base_url()).await;
        (Self { dir, launch, models, ana, org, provider }, node)
    }

    /// A group with one agent, called like its model.
    async fn room(&self, agent: &str) -> Room<'_> {
        self.room_at(&self.provider, agent).await
    }

    async fn room_at(&self, provider: &str, agent: &str) -> Room<'_> {
        let new = json!({"name": agent, "provider_id": provider, "model": agent});
        let path = format!("/api/orgs/{}/agents", self.org);
        let agent_id = self.ana.post(&path, new).await["agent_id"].clone();
        let new = json!({"org_id": self.org, "title": agent, "agent_ids": [agent_id]});
        let group = self.ana.post("/api/groups", new).await["group_id"].clone();
        let group = group.as_str().unwrap().to_owned();
        let (socket, _) = self.ana.attach(&group, None).await;
        Room { house: self, agent: agent.to_owned(), group, socket, posts: 0 }
    }

    /// Kills the process, starts it anew and gives everybody the new address.
    async fn kill_and_restart(&mut self, node: Convene) -> Convene {
        node.kill().await;
        let node = self.launch.start().await;
        self.ana = self.ana.at(&node.url);
        node
    }
}

async fn new_provider(person: &Person, org: &str, name: &str, base_url: &str) -> String {
    let new = json!({"name": name, "base_url": base_url, "api_key": KEY});
    let made = person.post(&format!("/api/orgs/{org}/providers"), new).await;
    made["provider_id"].as_str().unwrap().to_owned()
}

/// A group with one agent and somebody who talks to it.
struct Room<'a> {
    house: &'a House,
    agent: String,
    group: String,
    socket: Socket,
    posts: usize,
}

/// How a run ended.
struct Ended {
    /// What came while it was written, one after the other.
    deltas: Vec<String>,
    /// The reply, if there is one.
    reply: Option<String>,
    finished: Value,
}

impl Room<'_> {
    /// Mentions the agent.
    async fn mention(&mut self, text: &str) {
        self.posts += 1;
        let text = format!("@{} {text}", self.agent);
        self.socket.post(&format!("m{}", self.posts), &text).await;
    }

    /// Follows the run to its end.
    async fn end(&mut self) -> Ended {
        let (mut deltas, mut reply) = (Vec::new(), None);
        loop {
            let frame = self.socket.next().await.expect("the socket stays open");
            if frame["type"] == "delta" {
                deltas.push(frame["text"].as_str().unwrap().to_owned());
            } else if frame["kind"] == "message.posted" && frame["author"]["kind"] == "agent" {
                reply = Some(frame["text"].as_str().unwrap().to_owned());
            } else if frame["kind"] == "run.finished" {
                return Ended { deltas, reply, finished: frame };
            }
        }
    }

    async fn ask(&mut self, text: &str) -> Ended {
        self.mention(text).await;
        self.end().await
    }

    /// Asks once more, with a model that is well again.
    async fn works_again(&mut self) {
        let script = Script::Say("I am back.".to_owned());
        self.house.models.next(&self.agent, script);
        let ended = self.ask("are you there?").await;
        assert_eq!(ended.finished["status"], "completed", "{}", ended.finished);
        assert_eq!(ended.reply.as_deref(), Some("I am back."));
    }

    /// The whole history of the group, checked: each run that was accepted ended once.
    async fn history(&self) -> Vec<Value> {
        let (mut socket, attached) = self.house.ana.attach(&self.group, Some(0)).await;
        let head = attached["seq"].as_u64().unwrap();
        let mut events = Vec::new();
        while events.last().is_none_or(|event: &Value| event["seq"].as_u64() < Some(head)) {
            events.push(socket.until(|frame| frame["type"] == "event").await);
        }
        let mut runs: BTreeMap<String, usize> = BTreeMap::new();
        for event in &events {
            for accepted in event["candidates"].as_array().into_iter().flatten() {
                runs.entry(accepted["run_id"].as_str().unwrap().to_owned()).or_default();
            }
            if event["kind"] == "run.finished" {
                *runs.get_mut(event["run_id"].as_str().unwrap()).unwrap() += 1;
            }
        }
        assert!(!runs.is_empty() && runs.values().all(|ends| *ends == 1), "{runs:?}");
        events
    }

    /// How often the agent's model was asked.
    fn calls(&self) -> usize {
        let requests = self.house.models.requests();
        requests.iter().filter(|request| request.body["model"] == self.agent.as_str()).count()
    }
}

/// A fault, and how the run must end.
struct Fault {
    agent: &'static str,
    script: Script,
    code: &'static str,
    /// What the sentence for people must say.
    says: &'static str,
    /// The part of the reply that is kept.
    kept: Option<&'static str>,
}

fn faults() -> Vec<Fault> {
    let fault = |agent, script, code, says| Fault { agent, script, code, says, kept: None };
    let half = || vec!["Half ".to_owned(), "a word".to_owned()];
    let kept = |fault: Fault| Fault { kept: Some("Half a word"), ..fault };
    let refused = format!("Incorrect API key provided: {KEY}.");
    vec![
        fault("Silent", Script::Silent, "provider_silent", "said nothing for 1 seconds"),
        kept(fault(
            "SilentAfter",
            Script::SilentAfter(half()),
            "provider_silent",
            "said nothing for 1 seconds",
        )),
        kept(fault("Abort", Script::Abort(half()), "provider_cut", "broke")),
        kept(fault("Cut", Script::Cut(half()), "provider_cut", "before it was complete")),
        kept(fault("Malformed", Script::Malformed(half()), "provider_cut", "malformed")),
        kept(fault(
            "ErrorChunk",
            Script::ErrorChunk { chunks: half(), message: "The model is gone".to_owned() },
            "provider_error",
            "reported an error: The model is gone",
        )),
        fault("Nothing", Script::Nothing("length".to_owned()), "empty_reply", "used up its length"),
        fault("Limited", Script::rate_limited("7"), "provider_rate_limited", "asks to slow down"),
        fault(
            "Unauthorized",
            Script::error(401, &refused),
            "provider_unauthorized",
            "refused the API key: Incorrect API key provided: [redacted]",
        ),
        fault("Error", Script::error(500, "Overheated"), "provider_error", "error 500: Overheated"),
    ]
}

#[tokio::test]
async fn each_fault_ends_its_run_once_with_a_reason_and_the_next_mention_works() {
    let (house, node) = House::open(1).await;
    join_all(faults().into_iter().map(async |fault| {
        let mut room = house.room(fault.agent).await;
        house.models.next(fault.agent, fault.script);
        let Ended { deltas, reply, finished } = room.ask("hello?").await;
        let name = fault.agent;
        assert_eq!(finished["status"], "failed", "{name}: {finished}");
        assert_eq!(finished["code"], fault.code, "{name}: {finished}");
        let detail = finished["detail"].as_str().unwrap();
        assert!(detail.starts_with("The ") && detail.contains(fault.says), "{name}: {detail}");
        assert_eq!(reply.as_deref(), fault.kept, "{name}");
        assert_eq!(deltas.concat(), fault.kept.unwrap_or_default(), "{name}");
        assert_eq!(finished["message_id"].is_string(), fault.kept.is_some(), "{name}");
        assert_eq!(room.calls(), 1, "{name}: a fault of the provider is not tried again");
        room.works_again().await;
        room.history().await;
    }))
    .await;
    house.models.wait_for_open_answers(0).await;
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn addresses_that_nobody_allowed_and_ports_without_a_server_end_the_run() {
    let (house, node) = House::open(60).await;
    let inside = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = inside.local_addr().unwrap().port();
    let nobody = convene_testing::browser::free_port();
    for (agent, base_url, code, says) in [
        ("Loopback", format!("http://127.0.0.2:{port}/v1"), "address_not_allowed", "127.0.0.2"),
        ("Octal", format!("http://0177.0.0.2:{port}/v1"), "address_not_allowed", "127.0.0.2"),
        ("Private", "http://10.0.0.1/v1".to_owned(), "address_not_allowed", "10.0.0.1"),
        ("Named", format!("http://localhost:{port}/v1"), "address_not_allowed", "localhost"),
        ("Nobody", format!("http://127.0.0.1:{nobody}/v1"), "provider_unreachable", "127.0.0.1"),
    ] {
        let provider = new_provider(&house.ana, &house.org, agent, &base_url).await;
        let mut room = house.room_at(&provider, agent).await;
        let Ended { finished, .. } = room.ask("hello?").await;
        assert_eq!(finished["code"], code, "{finished}");
        let detail = finished["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{detail}");
        assert_eq!(
            detail.contains("agents.allow_hosts"),
            code == "address_not_allowed",
            "{detail}"
        );
        assert_eq!(room.calls(), 0);
        room.history().await;

        // Who mends the provider need not wait for anything.
        let path = format!("/api/orgs/{}/providers/{provider}", house.org);
        let mended = json!({"base_url": house.models.base_url(), "api_key": KEY});
        let (status, answer) = house.ana.send("PATCH", &path, Some(&mended)).await;
        assert!(status < 300, "{status} {answer}");
        room.works_again().await;
    }
    // Others are not touched by it.
    house.room("Scribe").await.works_again().await;
    let knocked = tokio::time::timeout(Duration::ZERO, inside.accept()).await;
    assert!(knocked.is_err(), "somebody connected to an address that is not allowed");
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn a_model_is_asked_with_the_key_and_everybodys_words_and_its_own_stream_back() {
    let (house, node) = House::open(2).await;
    let ben = Person::sign_up(&node.url, "Ben").await;
    house.ana.invite(&house.org, &ben).await;
    let mut room = house.room("Scribe").await;
    let (mut to_ben, _) = ben.attach(&room.group, None).await;
    to_ben.post("b1", "The tide turns at nine.").await;
    room.socket.event("message.posted").await;

    let chunks: Vec<_> = ["We ", "sail ", "at ", "nïne", " ⛵."].map(str::to_owned).to_vec();
    let pause = Duration::from_millis(100);
    house.models.next("Scribe", Script::Slow { chunks: chunks.clone(), pause });
    room.mention("when do we sail?").await;
    let first = room.socket.until(|frame| frame["type"] == "delta").await;
    assert_eq!((first["text"].as_str(), house.models.open_answers()), (Some("We "), 1));
    let Ended { deltas, reply, finished } = room.end().await;
    assert_eq!(deltas, chunks[1..]);
    assert_eq!(reply.as_deref(), Some("We sail at nïne ⛵."));
    assert_eq!(finished["status"], "completed");
    assert_eq!(finished["usage"], json!({"input_tokens": 10, "output_tokens": 5}));

    // Signs of life count, although they are no text.
    let pause = Duration::from_millis(600);
    let script = Script::Comments { count: 4, pause, text: "Sorry, a queue.".to_owned() };
    house.models.next("Scribe", script);
    assert_eq!(room.ask("and back?").await.reply.as_deref(), Some("Sorry, a queue."));

    let requests = house.models.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].header("authorization"), Some(&*format!("Bearer {KEY}")));
    let messages = requests[1].messages();
    let said: Vec<_> = messages.iter().map(|(role, text)| (role.as_str(), text.as_str())).collect();
    let [("system", frame), said @ ..] = &*said else { panic!("{said:?}") };
    assert!(frame.contains("You are Scribe") && frame.contains("Ana, Ben"), "{frame}");
    assert_eq!(
        said,
        [
            ("user", "Ben: The tide turns at nine.\n\nAna: @Scribe when do we sail?"),
            ("assistant", "We sail at nïne ⛵."),
            ("user", "Ana: @Scribe and back?"),
        ]
    );
    room.history().await;
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn whoever_stops_a_run_keeps_what_was_written_and_the_provider_is_hung_up_on() {
    let (house, node) = House::open(60).await;
    let mut room = house.room("Talker").await;
    house.models.next("Talker", Script::SilentAfter(vec!["So far".to_owned()]));
    room.mention("tell me everything").await;
    let delta = room.socket.until(|frame| frame["type"] == "delta").await;
    let stop = json!({"type": "cancel", "ref": "stop", "run_id": delta["run_id"]});
    room.socket.send(&stop).await;
    let Ended { reply, finished, .. } = room.end().await;
    assert_eq!(
        (finished["status"].as_str(), &finished["run_id"]),
        (Some("cancelled"), &delta["run_id"])
    );
    assert_eq!(reply.as_deref(), Some("So far"));
    house.models.wait_for_open_answers(0).await;

    // One that has not said a word is stopped as well, and leaves nothing.
    house.models.next("Talker", Script::Silent);
    room.mention("go on").await;
    let started = room.socket.event("run.started").await;
    house.models.wait_for_open_answers(1).await;
    let stop = json!({"type": "cancel", "ref": "stop", "run_id": started["run_id"]});
    room.socket.send(&stop).await;
    let Ended { reply, finished, .. } = room.end().await;
    assert_eq!((finished["status"].as_str(), reply), (Some("cancelled"), None));
    house.models.wait_for_open_answers(0).await;

    room.works_again().await;
    room.history().await;
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn a_kill_ends_a_reply_that_had_begun_and_repeats_one_that_had_not() {
    let (mut house, node) = House::open(60).await;
    house.models.next("Talker", Script::SilentAfter(vec!["So far".to_owned()]));
    house.models.next("Thinker", Script::Silent);
    house.models.next("Thinker", Script::Say("At last.".to_owned()));
    let (talker, thinker) = {
        let (mut talker, mut thinker) = (house.room("Talker").await, house.room("Thinker").await);
        thinker.mention("why?").await;
        talker.mention("tell me everything").await;
        talker.socket.until(|frame| frame["type"] == "delta").await;
        house.models.wait_for_open_answers(2).await;
        (talker.group, thinker.group)
    };
    let node = house.kill_and_restart(node).await;

    // Both end without anybody's looking at their groups.
    house.models.wait_for_open_answers(0).await;
    let room = async |agent: &str, group: String| {
        let (socket, _) = house.ana.attach(&group, Some(0)).await;
        Room { house: &house, agent: agent.to_owned(), group, socket, posts: 1 }
    };
    let mut talker = room("Talker", talker).await;
    let Ended { finished, .. } = talker.end().await;
    assert_eq!(
        (finished["status"].as_str(), finished["attempt"].as_u64()),
        (Some("interrupted"), Some(1))
    );
    assert_eq!(talker.calls(), 1);
    talker.works_again().await;
    talker.history().await;

    let mut thinker = room("Thinker", thinker).await;
    let Ended { finished, reply, .. } = thinker.end().await;
    assert_eq!(
        (finished["status"].as_str(), finished["attempt"].as_u64()),
        (Some("completed"), Some(2))
    );
    assert_eq!(reply.as_deref(), Some("At last."));
    assert_eq!(thinker.calls(), 2);
    thinker.works_again().await;
    thinker.history().await;
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn the_key_is_in_no_log_no_answer_and_no_file() {
    let (house, node) = House::open(60).await;
    let mut room = house.room("Scribe").await;
    house.models.next("Scribe", Script::error(401, &format!("{KEY} is no key of ours")));
    assert_eq!(room.ask("hello?").await.finished["code"], "provider_unauthorized");
    room.works_again().await;
    let sent = house.models.requests();
    assert!(sent.iter().all(|request| request.header("authorization").unwrap().contains(KEY)));

    let org = format!("/api/orgs/{}", house.org);
    let group = format!("/api/groups/{}", room.group);
    for path in [
        org.clone(),
        format!("{org}/providers"),
        format!("{org}/agents"),
        format!("{org}/audit"),
        group.clone(),
        format!("{group}/agents"),
        format!("{group}/messages"),
    ] {
        let (_, answer) = house.ana.get(&path).await;
        assert!(!answer.to_string().contains(KEY), "{path}: {answer}");
    }
    let change = json!({"name": "Renamed"});
    let path = format!("{org}/providers/{}", house.provider);
    let (status, answer) = house.ana.send("PATCH", &path, Some(&change)).await;
    assert_eq!((status, answer["has_key"].as_bool()), (200, Some(true)));
    assert!(!answer.to_string().contains(KEY));
    for event in room.history().await {
        assert!(!event.to_string().contains(KEY), "{event}");
    }

    assert_eq!(node.stop().await, Some(0));
    let files = files_below(house.dir.path());
    assert!(files.len() > 3, "{files:?}");
    let log = std::fs::read_to_string(house.dir.path().join("log")).unwrap();
    assert!(log.contains("TRACE") && log.contains("an attempt failed"), "nothing was logged");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let found = bytes.windows(KEY.len()).any(|part| part == KEY.as_bytes());
        assert!(!found, "the key is in {}", file.display());
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// Waits until the figures are as they should be, and answers what holds them.
async fn until(person: &Person, path: &str, reached: impl Fn(&Value) -> bool) -> Value {
    loop {
        let (status, found) = person.get(path).await;
        assert_eq!(status, 200, "{found}");
        if reached(&found) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_a_run_costs_is_told_of_it_of_its_group_and_of_the_workspace() {
    let (house, node) = House::open(60).await;
    let (org, provider) = (&house.org, &house.provider);
    let path = format!("/api/orgs/{org}/providers/{provider}");
    let prices = json!({"prices": {"Dear": {"input": 1_000_000, "output": 2_500_000}}});
    let (status, answer) = house.ana.send("PATCH", &path, Some(&prices)).await;
    assert_eq!((status, &answer["version"]), (200, &json!(2)), "{answer}");

    // 10 tokens are read, and 3 written.
    let mut dear = house.room("Dear").await;
    house.models.always("Dear", Script::Say("It is done.".to_owned()));
    let Ended { finished, .. } = dear.ask("do it").await;
    assert_eq!(finished["usage"]["cost_micro_usd"], 18, "7.5 are rounded up: {finished}");
    let why = format!("/api/groups/{}/messages/m1/why", dear.group);
    let (_, why) = house.ana.get(&why).await;
    assert_eq!(why["agents"][0]["run"]["usage"], finished["usage"]);
    dear.ask("and again").await;

    // A model without a price costs something that nobody knows, not nothing.
    let mut quiet = house.room("Quiet").await;
    house.models.always("Quiet", Script::Say("It is done.".to_owned()));
    let Ended { finished, .. } = quiet.ask("do it").await;
    assert_eq!(finished["usage"], json!({"input_tokens": 10, "output_tokens": 3}));

    let known = |cost: u64, unknown: u64| {
        move |figures: &Value| {
            (&figures["cost_micro_usd"], &figures["cost_unknown"])
                == (&cost.into(), &unknown.into())
        }
    };
    let month = |room: &Room<'_>| format!("/api/groups/{}/usage", room.group);
    let first = |reached: &dyn Fn(&Value) -> bool, usage: &Value| reached(&usage["months"][0]);
    let of_dear = known(36, 0);
    let usage = until(&house.ana, &month(&dear), |usage| first(&of_dear, usage)).await;
    assert_eq!(usage["months"][0]["runs"], 2);
    let of_quiet = known(0, 1);
    until(&house.ana, &month(&quiet), |usage| first(&of_quiet, usage)).await;
    let usage = until(&house.ana, &format!("/api/orgs/{org}/usage"), known(36, 1)).await;
    assert_eq!((&usage["runs"], &usage["input_tokens"]), (&json!(3), &json!(30)));
    assert_eq!(node.stop().await, Some(0));
}
