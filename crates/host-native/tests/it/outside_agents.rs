//! An agent of one's own: a process with its own token, through the whole chain.

use std::{process::Stdio, time::Duration};

use convene_model::limits::{MAX_TEXT_BYTES, OUTSIDE_FRAMES_PER_MINUTE};
use convene_testing::{
    client::{Person, Socket},
    cluster::{Member, Plan},
};
use http::header;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::{
    convene,
    examples::{example, python},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A workspace of ana's with a group in which her agent Echo takes part.
struct Stage {
    ana: Person,
    org: String,
    group: String,
    agent: String,
}

impl Stage {
    async fn new(url: &str) -> Self {
        let ana = Person::sign_up(url, "Ana").await;
        let org = ana.create_org("Lighthouse").await;
        let path = format!("/api/orgs/{org}/agents");
        let made = ana.post(&path, json!({"name": "Echo", "outside": true})).await;
        assert_eq!(made["outside"], true, "{made}");
        let agent = made["agent_id"].as_str().unwrap().to_owned();
        let group = ana.create_group(&org, "Plans").await;
        let stage = Self { ana, org, group, agent };
        stage.put_in(&stage.group, true).await;
        stage
    }

    /// Puts the agent into a group, or takes it out.
    async fn put_in(&self, group: &str, inside: bool) {
        let agent = json!({"agent_id": self.agent, "trigger": "mention"});
        let agents = if inside { json!([agent]) } else { json!([]) };
        let path = format!("/api/groups/{group}/agents");
        let (status, answer) = self.ana.send("PUT", &path, Some(&json!({"agents": agents}))).await;
        assert_eq!(status, 200, "{answer}");
    }

    fn tokens(&self) -> String {
        format!("/api/orgs/{}/agents/{}/tokens", self.org, self.agent)
    }

    /// A token for it: its id and itself.
    async fn token(&self) -> (String, String) {
        let made = self.ana.post(&self.tokens(), json!({"name": "my desk"})).await;
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        (text("token_id"), text("token"))
    }

    /// A socket of the agent's in a group, attached.
    async fn attach(&self, url: &str, group: &str, token: &str) -> (Socket, Value) {
        let mut socket = open(url, group, token).await.expect("the socket opens");
        socket.send(&json!({"type": "attach", "ref": "attach"})).await;
        let attached = socket.answer("attach").await;
        (socket, attached)
    }
}

async fn open(url: &str, group: &str, token: &str) -> Result<Socket, tokio_websockets::Error> {
    let uri = format!("{}/api/groups/{group}/ws", url.replacen("http", "ws", 1));
    Socket::open(&uri, &[(header::AUTHORIZATION, format!("Bearer {token}"))]).await
}

async fn act(socket: &mut Socket, kind: &str, run: &Value, with: Value) -> Value {
    let answered = kind.replace('.', "-");
    let mut frame = json!({
        "type": kind, "ref": answered, "run_id": run["run_id"], "attempt": run["attempt"],
    });
    for (name, value) in with.as_object().into_iter().flatten() {
        frame[name] = value.clone();
    }
    socket.send(&frame).await;
    socket.answer(&answered).await
}

/// The example as a process of its own.
struct Echo {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Echo {
    fn start(stage: &Stage, url: &str, token: &str) -> Self {
        let mut child = Command::new(python())
            .arg(example("outside_agent.py"))
            .args(["--url", url, "--group", &stage.group, "--agent", &stage.agent])
            .env("CONVENE_AGENT_TOKEN", token)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn says(&mut self, wanted: &str) {
        let said = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if line.starts_with(wanted) {
                    return;
                }
            }
            panic!("it ended without {wanted}");
        };
        timeout(PATIENCE, said).await.expect("it says so in time");
    }
}

#[tokio::test]
async fn the_example_is_woken_like_any_agent_and_ends_with_its_token() {
    let dir = tempfile::tempdir().unwrap();
    let node = convene(dir.path()).start().await;
    let stage = Stage::new(&node.url).await;
    let (token_id, token) = stage.token().await;
    let (mut ana, _) = stage.ana.attach(&stage.group, None).await;

    // It takes on what was asked before it came, too.
    ana.post("m1", "@Echo one two three").await;
    ana.event("run.started").await;
    let mut echo = Echo::start(&stage, &node.url, &token);
    let delta = ana.until(|frame| frame["type"] == "delta").await;
    assert_eq!((&delta["offset"], &delta["text"]), (&json!(0), &json!("three ")));
    let reply = ana.event("message.posted").await;
    assert_eq!(reply["text"].as_str().unwrap().trim(), "three two one");
    assert_eq!(reply["author"], json!({"kind": "agent", "id": stage.agent}));
    assert_eq!((&reply["root"], &reply["hop"]), (&json!("m1"), &json!(1)));
    assert_eq!(ana.event("run.finished").await["status"], "completed");
    echo.says("answered").await;
    ana.post("m2", "@Echo again").await;
    assert_eq!(ana.event("run.finished").await["status"], "completed");

    // The token is shown once, kept as a digest, listed with its use, and void at once.
    let mut listed = stage.ana.get(&stage.tokens()).await.1;
    while listed[0]["last_used_at"].is_null() {
        // Uses are gathered for a moment before they are written.
        tokio::time::sleep(Duration::from_millis(20)).await;
        listed = stage.ana.get(&stage.tokens()).await.1;
    }
    assert_eq!(listed[0]["name"], "my desk");
    assert!(listed[0].get("token").is_none() && listed[0]["last_used_at"].is_u64(), "{listed}");
    let path = format!("{}/{token_id}", stage.tokens());
    assert_eq!(stage.ana.send("DELETE", &path, None).await.0, 204);
    let ended = timeout(PATIENCE, echo.child.wait_with_output()).await.expect("it ends");
    let said = String::from_utf8_lossy(&ended.unwrap().stderr).into_owned();
    assert!(said.contains("revoked") || said.contains("not let in"), "{said}");
    let (_, audit) = stage.ana.get(&format!("/api/orgs/{}/audit", stage.org)).await;
    let audit = audit.to_string();
    assert!(audit.contains("agent.token_made") && audit.contains("agent.token_revoked"));
    assert!(!audit.contains(&token));
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn an_agents_token_opens_its_groups_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let node = convene(dir.path()).start().await;
    let stage = Stage::new(&node.url).await;
    let (_, token) = stage.token().await;
    let other = stage.ana.create_group(&stage.org, "Elsewhere").await;
    stage.put_in(&other, false).await;
    let mut echo = stage.ana.clone();
    echo.token.clone_from(&token);

    let messages = format!("/api/groups/{}/messages", stage.group);
    stage.ana.post(&messages, json!({"text": "hello", "message_id": "m1"})).await;
    assert_eq!(echo.get(&messages).await.1["messages"][0]["text"], "hello");
    assert_eq!(echo.get(&format!("{messages}/m1")).await.0, 200);
    for (method, path, expected) in [
        ("GET", format!("/api/groups/{other}/messages"), "group_not_found"),
        ("GET", format!("/api/groups/{}/search?q=hello", stage.group), "forbidden"),
        ("POST", messages.clone(), "forbidden"),
        ("GET", "/api/me".to_owned(), "forbidden"),
        ("GET", format!("/api/orgs/{}/agents", stage.org), "forbidden"),
        ("POST", stage.tokens(), "forbidden"),
        ("GET", "/api/events".to_owned(), "forbidden"),
    ] {
        let body = (method == "POST").then(|| json!({"text": "hello", "name": "x"}));
        let (_, problem) = echo.send(method, &path, body.as_ref()).await;
        assert_eq!(problem["code"], expected, "{method} {path}: {problem}");
    }
    assert!(open(&node.url, &other, &token).await.is_err());
    assert!(open(&node.url, &stage.group, "cva_nobodys").await.is_err());

    let (mut socket, attached) = stage.attach(&node.url, &stage.group, &token).await;
    assert_eq!(attached["type"], "attached", "{attached}");
    assert!(!attached["state"]["present"].to_string().contains(&stage.agent));
    for frame in [
        json!({"type": "post", "ref": "r", "message_id": "m9", "text": "unasked"}),
        json!({"type": "react", "ref": "r", "message_id": "m1", "emoji": "👍", "on": true}),
        json!({"type": "read", "ref": "r", "up_to": 1}),
    ] {
        socket.send(&frame).await;
        assert_eq!(socket.answer("r").await["code"], "forbidden", "{frame}");
    }
    // Taken out of the group it is shown out, and what it has not ended ends with it.
    let (mut ana, _) = stage.ana.attach(&stage.group, None).await;
    ana.post("m2", "@Echo hi").await;
    let run = socket.event("run.started").await;
    assert_eq!(act(&mut socket, "run.claim", &run, json!({})).await["type"], "ok");
    stage.put_in(&stage.group, false).await;
    assert_eq!(ana.event("run.finished").await["code"], "agent_removed");
    while socket.next().await.is_ok() {}
    assert!(open(&node.url, &stage.group, &token).await.is_err());
    // Of an agent with a model there are no tokens.
    let (_, agents) = stage.ana.get(&format!("/api/orgs/{}/agents", stage.org)).await;
    let guide = agents.as_array().unwrap().iter().find(|agent| agent["name"] == "Guide").unwrap();
    let path =
        format!("/api/orgs/{}/agents/{}/tokens", stage.org, guide["agent_id"].as_str().unwrap());
    let (status, problem) = stage.ana.send("POST", &path, Some(&json!({"name": "x"}))).await;
    assert_eq!((status, &problem["code"]), (422, &json!("validation_failed")));
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn between_processes_a_run_survives_the_loss_of_its_app_and_is_answered_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Plan::new(env!("CARGO_BIN_EXE_convene"), dir.path()).start().await;
    let stage = Stage::new(&cluster.app_url(0)).await;
    let (_, token) = stage.token().await;
    let (mut ana, _) = stage.ana.attach(&stage.group, None).await;
    let (mut lost, _) = stage.attach(&cluster.app_url(1), &stage.group, &token).await;
    ana.post("m1", "@Echo hi").await;
    let run = lost.event("run.started").await;
    assert_eq!(act(&mut lost, "run.claim", &run, json!({})).await["type"], "ok");
    cluster.kill(Member::App(1)).await;
    let started = |frame: &Value| frame["kind"] == "run.started" && frame["attempt"] == 2;
    let again = ana.until(started).await;
    assert_eq!((&again["run_id"], &again["attempt"]), (&run["run_id"], &json!(2)));
    let (mut socket, attached) = stage.attach(&cluster.app_url(0), &stage.group, &token).await;
    assert_eq!(attached["state"]["runs"][0]["attempt"], 2, "{attached}");
    let late = act(&mut socket, "run.claim", &run, json!({})).await;
    assert_eq!(late["code"], "conflict", "{late}");
    assert_eq!(act(&mut socket, "run.claim", &again, json!({})).await["type"], "ok");
    let text = json!({"offset": 0, "text": "here again"});
    assert_eq!(act(&mut socket, "run.text", &again, text.clone()).await["type"], "ok");
    assert_eq!(act(&mut socket, "run.text", &again, text).await["code"], "conflict");
    let outcome = json!({"outcome": {"status": "completed"}});
    let ended = act(&mut socket, "run.end", &again, outcome.clone()).await;
    assert_eq!(ended["type"], "ok", "{ended}");
    assert_eq!(act(&mut socket, "run.end", &again, outcome).await["code"], "run_not_found");
    assert_eq!(ana.event("message.posted").await["text"], "here again");
    assert_eq!(ana.event("run.finished").await["status"], "completed");
    cluster.shut_down().await;
}

#[tokio::test]
async fn of_two_processes_one_has_a_run_and_what_neither_was_there_for_is_answered_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = convene(dir.path()).start().await;
    let stage = Stage::new(&node.url).await;
    let (_, token) = stage.token().await;
    let (_, second) = stage.token().await;
    let (mut ana, _) = stage.ana.attach(&stage.group, None).await;
    let (mut one, _) = stage.attach(&node.url, &stage.group, &token).await;
    let (mut two, _) = stage.attach(&node.url, &stage.group, &second).await;
    ana.post("m1", "@Echo hi").await;
    let run = one.event("run.started").await;
    two.event("run.started").await;
    let claims = tokio::join!(
        act(&mut one, "run.claim", &run, json!({})),
        act(&mut two, "run.claim", &run, json!({})),
    );
    let said = [&claims.0, &claims.1].map(|answer| answer["type"].as_str().unwrap().to_owned());
    let (winner, loser) = match said.each_ref().map(String::as_str) {
        ["ok", "error"] => (&mut one, &mut two),
        ["error", "ok"] => (&mut two, &mut one),
        other => panic!("exactly one has it: {other:?}"),
    };
    let text = json!({"offset": 0, "text": "x".repeat(MAX_TEXT_BYTES + 1)});
    assert_eq!(act(winner, "run.text", &run, text).await["code"], "too_large");
    let text = json!({"offset": 0, "text": "mine"});
    assert_eq!(act(loser, "run.text", &run, text.clone()).await["code"], "conflict");
    assert_eq!(act(winner, "run.text", &run, text.clone()).await["type"], "ok");
    let outcome = json!({"outcome": {"status": "completed"}});
    assert_eq!(act(winner, "run.end", &run, outcome.clone()).await["type"], "ok");
    for late in [("run.text", text.clone()), ("run.end", outcome.clone())] {
        assert_eq!(act(winner, late.0, &run, late.1).await["code"], "run_not_found");
    }
    assert_eq!(ana.event("message.posted").await["message_id"], "m1");
    assert_eq!(ana.event("message.posted").await["text"], "mine");
    ana.event("run.finished").await;
    drop((one, two));

    // Nobody is there in time: the run fails and says so, and whoever comes has it anew, once,
    // also in a process that knows of it from the journal alone.
    ana.post("m2", "@Echo are you there?").await;
    let missed = ana.event("run.finished").await;
    assert_eq!(missed["code"], "agent_not_connected", "{missed}");
    node.kill().await;
    let node = convene(dir.path()).start().await;
    let here = stage.ana.at(&node.url);
    let (mut ana, _) = here.attach(&stage.group, None).await;
    let (mut one, attached) = stage.attach(&node.url, &stage.group, &token).await;
    assert_eq!(attached["type"], "attached", "{attached}");
    let run = attached["state"]["runs"][0].clone();
    assert_eq!((&run["trigger"], &run["attempt"]), (&json!("m2"), &json!(1)));
    let (mut two, _) = stage.attach(&node.url, &stage.group, &second).await;
    assert_eq!(act(&mut one, "run.claim", &run, json!({})).await["type"], "ok");
    assert_eq!(act(&mut one, "run.text", &run, text).await["type"], "ok");
    assert_eq!(act(&mut one, "run.end", &run, outcome).await["type"], "ok");
    assert_eq!(ana.event("run.finished").await["status"], "completed");
    drop((one, two.next()));
    let (_again, attached) = stage.attach(&node.url, &stage.group, &token).await;
    assert_eq!(attached["state"]["runs"], json!([]), "{attached}");
    let replies = here.all_messages(&stage.group).await;
    let answers = replies.iter().filter(|message| message["author"]["kind"] == "agent");
    assert_eq!(answers.count(), 2, "one for each mention");
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn a_process_that_floods_is_slowed_down_and_disturbs_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let node = convene(dir.path()).start().await;
    let stage = Stage::new(&node.url).await;
    let (_, token) = stage.token().await;
    let (mut ana, _) = stage.ana.attach(&stage.group, None).await;
    let (mut echo, _) = stage.attach(&node.url, &stage.group, &token).await;
    let claim = json!({"type": "run.claim", "ref": "c", "run_id": "r1-0", "attempt": 1});
    let mut refused = None;
    for _ in 0..u64::from(OUTSIDE_FRAMES_PER_MINUTE) / 50 {
        for _ in 0..100 {
            echo.send(&claim).await;
        }
        for _ in 0..100 {
            let answer = echo.answer("c").await;
            match answer["code"].as_str().unwrap() {
                "run_not_found" => {}
                _ => refused = Some(answer),
            }
        }
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("it is slowed down");
    assert_eq!(refused["code"], "rate_limited", "{refused}");
    assert!(refused["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{refused}");
    ana.post("m1", "undisturbed").await;
    assert_eq!(ana.answer("m1").await["type"], "ok");
    assert_eq!(node.stop().await, Some(0));
}
