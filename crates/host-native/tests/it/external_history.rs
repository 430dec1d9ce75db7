//! A history that the organization keeps itself, with the reference service as a process: slow, failing and
//! repeating at first, down for a while, and through a crash.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use convene_model::limits::MAX_REPLAY_EVENTS;
use convene_testing::{
    browser::free_port,
    client::{Person, http_client},
};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::{
    convene,
    examples::{example, python},
};

const SECRET: &str = "a-secret-of-the-history-service";

pub(crate) struct Service {
    port: u16,
    process: Child,
}

impl Service {
    pub(crate) fn start(dir: &Path, port: u16, faults: &[&str]) -> Self {
        let secret = dir.join("history.secret");
        std::fs::write(&secret, SECRET).unwrap();
        let process = Command::new(python())
            .arg(example("history_service.py"))
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .arg("--db")
            .arg(dir.join("history.db"))
            .arg("--secret-file")
            .arg(secret)
            .args(faults)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { port, process }
    }

    async fn stop(mut self) -> u16 {
        self.process.kill().await.unwrap();
        self.port
    }
}

/// The operator's word that a workspace keeps its history itself; the file.
pub(crate) fn configure(dir: &Path, org: &str, port: u16) -> PathBuf {
    let config = dir.join("convene.toml");
    let section = format!(
        "[[controllers.external_history]]\norg_id = \"{org}\"\nurl = \"http://127.0.0.1:{port}\"\nsecret = \"{SECRET}\"\n"
    );
    std::fs::write(&config, section).unwrap();
    config
}

/// The texts that the service has, in order.
fn kept(dir: &Path) -> Vec<String> {
    let Ok(db) = rusqlite::Connection::open(dir.join("history.db")) else { return Vec::new() };
    let Ok(mut rows) = db.prepare("SELECT body FROM messages ORDER BY seq") else {
        return Vec::new();
    };
    let bodies = rows.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let text = |body: Result<String, rusqlite::Error>| {
        let body: serde_json::Value = serde_json::from_str(&body.unwrap()).unwrap();
        body["text"].as_str().unwrap().to_owned()
    };
    bodies.map(text).collect()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(std::time::Duration::from_secs(60), async {
        while !holds() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what} never came"));
}

#[tokio::test]
async fn an_organization_keeps_its_history_itself_whatever_befalls_its_service() {
    let dir = tempfile::tempdir().unwrap();
    // The workspace has to be there before it can be named.
    let node = convene(dir.path()).start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    assert_eq!(node.stop().await, Some(0));

    let port = free_port();
    let config = configure(dir.path(), &org, port);
    let launch = convene(dir.path()).arg("--config").arg(config.to_str().unwrap());
    let node = launch.start().await;
    let ana = ana.at(&node.url);
    let group = ana.create_group(&org, "Plans").await;
    let (mut socket, _) = ana.attach(&group, None).await;

    // The service is down: everything goes on without it.
    for number in 1..=3 {
        socket.post(&format!("m{number}"), &format!("text {number}")).await;
        socket.answer(&format!("m{number}")).await;
    }
    socket.edit("m2", "another text").await;
    socket.event("message.edited").await;
    assert_eq!(ana.all_messages(&group).await.len(), 3);
    node.kill().await;

    // After a crash it is there, does what it is asked, and says that it failed.
    let service = Service::start(dir.path(), port, &["--fail-first", "2", "--slow", "0.1"]);
    let node = launch.start().await;
    let ana = ana.at(&node.url);
    let (mut socket, _) = ana.attach(&group, None).await;
    let expected = ["text 1", "another text", "text 3"];
    until("the outbox", || kept(dir.path()) == expected).await;
    socket.event("history.exported").await;

    // What has left comes back from the service, and only from there.
    for number in 0..MAX_REPLAY_EVENTS + 10 {
        socket.post(&format!("x{number}"), "later").await;
        if number % 50 == 0 {
            socket.answer(&format!("x{number}")).await;
        }
    }
    let last = format!("x{}", MAX_REPLAY_EVENTS + 9);
    socket.answer(&last).await;
    until("all of it", || kept(dir.path()).len() as u64 == MAX_REPLAY_EVENTS + 13).await;
    socket.event("history.exported").await;
    socket.delete("m3").await;
    socket.event("message.deleted").await;
    until("the deletion", || kept(dir.path())[2].is_empty()).await;
    let path = format!("/api/groups/{group}/messages?after=0&limit=3");
    let mut page = ana.get(&path).await.1;
    for _ in 0..100 {
        // The projection follows when nothing else waits.
        if !raw_has(dir.path(), "text 1") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    for _ in 0..2 {
        let texts: Vec<_> = page["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| message["text"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(texts, ["text 1", "another text", ""]);
        page = ana.get(&path).await.1;
    }

    let port = service.stop().await;
    let (status, refused) = ana.get(&path).await;
    assert_eq!((status, refused["code"].as_str()), (503, Some("history_service_unavailable")));
    let newest = format!("/api/groups/{group}/messages?limit=5");
    assert_eq!(ana.get(&newest).await.0, 200, "what is here is read without the service");
    let service = Service::start(dir.path(), port, &[]);
    until("the service", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    assert_eq!(ana.get(&path).await.0, 200);

    // A service that has lost what it had acknowledged is told again of what is still here.
    let port = service.stop().await;
    for file in ["history.db", "history.db-wal", "history.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join(file));
    }
    let service = Service::start(dir.path(), port, &[]);
    socket.post("after", "after the loss").await;
    socket.answer("after").await;
    until("what is left", || kept(dir.path()).last().is_some_and(|text| text == "after the loss"))
        .await;
    assert!(kept(dir.path()).len() as u64 >= MAX_REPLAY_EVENTS);

    // A deletion is complete when the service has erased the group too.
    let port = service.stop().await;
    let (status, _) = ana.send("DELETE", &format!("/api/groups/{group}"), None).await;
    assert!(matches!(status, 202 | 204 | 503), "{status}");
    assert!(!kept(dir.path()).is_empty());
    let _service = Service::start(dir.path(), port, &[]);
    until("the erasure", || kept(dir.path()).is_empty()).await;
    assert_eq!(node.stop().await, Some(0));
    assert!(!raw_has(dir.path(), "text 1"), "the text has left");
}

/// Runs `convene …` to a good end.
async fn run(dir: &Path, args: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convene"));
    let output = command.args(args).current_dir(dir).output().await.unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn an_adopted_backup_goes_on_at_the_service_where_it_was_and_what_was_lost_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let node = convene(dir.path()).start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    assert_eq!(node.stop().await, Some(0));
    let port = free_port();
    let config = dir.path().join("convene.toml");
    let section = format!(
        "[[controllers.external_history]]\norg_id = \"{org}\"\nurl = \"http://127.0.0.1:{port}\"\nsecret = \"{SECRET}\"\n"
    );
    std::fs::write(&config, section).unwrap();
    let _service = Service::start(dir.path(), port, &[]);
    let node = convene(dir.path()).arg("--config").arg(config.to_str().unwrap()).start().await;
    let ana = ana.at(&node.url);
    let group = ana.create_group(&org, "Plans").await;
    let say = async |ana: &Person, id: &str| {
        let body = json!({"message_id": id, "text": id});
        ana.post(&format!("/api/groups/{group}/messages"), body).await;
    };
    say(&ana, "one").await;
    say(&ana, "two").await;
    until("the first", || kept(dir.path()) == ["one", "two"]).await;
    run(dir.path(), &["backup", "--to", "copy", "--data-dir", "data"]).await;
    say(&ana, "lost").await;
    until("the rest", || kept(dir.path()) == ["one", "two", "lost"]).await;
    node.kill().await;

    let restored = tempfile::tempdir().unwrap();
    std::fs::rename(dir.path().join("copy"), restored.path().join("data")).unwrap();
    run(restored.path(), &["journal", "adopt", "--data-dir", "data"]).await;
    let launch = convene(restored.path()).arg("--config").arg(config.to_str().unwrap());
    let node = launch.start().await;
    let ana = ana.at(&node.url);
    say(&ana, "anew").await;
    let of_group = || -> Vec<String> {
        let db = rusqlite::Connection::open(dir.path().join("history.db")).unwrap();
        let sql = "SELECT body FROM messages WHERE group_id = ?1 ORDER BY seq";
        let mut rows = db.prepare(sql).unwrap();
        let bodies = rows.query_map([&group], |row| row.get::<_, String>(0)).unwrap();
        let text = |body: String| serde_json::from_str::<Value>(&body).unwrap()["text"].clone();
        bodies.map(|body| text(body.unwrap()).as_str().unwrap().to_owned()).collect()
    };
    until("what is new", || of_group() == ["one", "two", "anew"]).await;
    assert!(kept(dir.path()).contains(&"lost".to_owned()), "it is aside, not gone");
    let read = ana.all_messages(&group).await;
    let texts: Vec<_> = read.iter().map(|message| message["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["one", "two", "anew"]);
    assert_eq!(node.stop().await, Some(0));
}

/// Whether the tables that are read still have a text.
fn raw_has(dir: &Path, text: &str) -> bool {
    let bytes = std::fs::read(dir.join("data/groups/rooms.db")).unwrap();
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Asks the service itself, as Convene does.
async fn ask(port: u16, method: reqwest::Method, path: &str, body: Value) -> (u16, Value) {
    let request = http_client()
        .request(method, format!("http://127.0.0.1:{port}/groups/g1{path}"))
        .bearer_auth(SECRET)
        .json(&body);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn the_reference_service_takes_repeats_gaps_and_a_restored_backup_as_the_contract_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let _service = Service::start(dir.path(), port, &[]);
    until("the service", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    let entry = |seq: u64, text: &str| json!({"seq": seq, "at": 1, "kind": "message", "message_id": format!("m{seq}"), "text": text});
    let append = |history: &str, after: u64, upto: u64, entries: Value| json!({"org_id": "o1", "group_id": "g1", "history": history, "after": after, "upto": upto, "entries": entries});
    let post = |body: Value| ask(port, reqwest::Method::POST, "/entries", body);
    let first = append("h1", 0, 3, json!([entry(2, "one"), entry(3, "two")]));
    for _ in 0..2 {
        assert_eq!(post(first.clone()).await, (200, json!({"last": 3})));
    }
    assert_eq!(post(append("h1", 9, 10, json!([]))).await, (409, json!({"last": 3})));
    let other = append("h1", 1, 3, json!([entry(2, "changed"), entry(3, "changed")]));
    assert_eq!(post(other).await, (200, json!({"last": 3})), "repeats change nothing");
    assert_eq!(kept(dir.path()), ["one", "two"]);
    // Numbers are used again: what had them is set aside, and no page has it.
    let restored = append("h2", 2, 4, json!([entry(3, "another"), entry(4, "more")]));
    assert_eq!(post(restored).await, (200, json!({"last": 4})));
    let page = "/messages?after=0&before=100&limit=10";
    let (_, page) = ask(port, reqwest::Method::GET, page, json!({})).await;
    let texts = page["messages"].as_array().unwrap().iter().map(|one| one["text"].clone());
    assert_eq!(texts.collect::<Vec<_>>(), ["one", "another", "more"]);
    let foreign = json!({"org_id": "o2", "group_id": "g1", "history": "h2", "after": 4, "upto": 5, "entries": []});
    assert_eq!(post(foreign).await.0, 403);
    assert_eq!(ask(port, reqwest::Method::DELETE, "", json!({})).await.0, 200);
    assert_eq!(kept(dir.path()), [""; 0], "what was set aside is erased too");
}
