//! Replies in flight: who joins or returns gets the text so far and goes on at its offset, and a crash
//! loses no more than the last piece.

use std::{path::Path, time::Duration};

use convene_model::limits::{CHECKPOINT_BYTES, COMPACT_MESSAGES};
use convene_testing::{
    client::{Person, Socket},
    model_server::{ModelServer, Script},
    process::{Convene, Launch},
};
use serde_json::json;

use crate::convene;

/// A workspace whose agent `teller` talks as a script says.
struct Stage {
    launch: Launch,
    models: ModelServer,
    ana: Person,
    group: String,
}

impl Stage {
    async fn open(dir: &Path) -> (Self, Convene) {
        let models = ModelServer::start().await.unwrap();
        let launch = convene(dir).env("CONVENE_AGENTS__ALLOW_HOSTS", "127.0.0.1");
        let node = launch.start().await;
        let ana = Person::sign_up(&node.url, "Ana").await;
        let org = ana.create_org("Lighthouse").await;
        let new = json!({"name": "Models", "base_url": models.base_url(), "api_key": "k"});
        let provider = ana.post(&format!("/api/orgs/{org}/providers"), new).await;
        let new = json!({
            "name": "teller", "provider_id": provider["provider_id"], "model": "teller"
        });
        let agent = ana.post(&format!("/api/orgs/{org}/agents"), new).await;
        let new = json!({"org_id": org, "title": "Tales", "agent_ids": [agent["agent_id"]]});
        let group = ana.post("/api/groups", new).await["group_id"].as_str().unwrap().to_owned();
        (Self { launch, models, ana, group }, node)
    }
}

/// Follows a reply from `text` on until it has so many bytes, or is posted where that is not said.
async fn follow(socket: &mut Socket, text: &mut String, upto: Option<usize>) {
    while upto.is_none_or(|upto| text.len() < upto) {
        let frame = socket.next().await.expect("the socket stays open");
        if frame["type"] == "delta" {
            assert_eq!(frame["offset"].as_u64().unwrap() as usize, text.len(), "without a gap");
            text.push_str(frame["text"].as_str().unwrap());
        } else if frame["kind"] == "message.posted" && frame["author"]["kind"] == "agent" {
            assert_eq!(frame["text"].as_str().unwrap(), text);
            return;
        }
    }
}

/// So many words, with a pause before each.
fn slowly(words: usize) -> Script {
    let chunks = (0..words).map(|word| format!("word{word} ")).collect();
    Script::Slow { chunks, pause: Duration::from_millis(20) }
}

#[tokio::test]
async fn who_joins_or_returns_in_mid_stream_gets_the_text_so_far_and_goes_on_at_its_offset() {
    let dir = tempfile::tempdir().unwrap();
    let (stage, node) = Stage::open(dir.path()).await;
    stage.models.always("teller", slowly(60));
    let (mut first, _) = stage.ana.attach(&stage.group, None).await;
    first.post("m1", "@teller go").await;
    let mut told = String::new();
    follow(&mut first, &mut told, Some(40)).await;

    // One joins.
    let (mut second, attached) = stage.ana.attach(&stage.group, None).await;
    assert_eq!(attached["state"]["runs"][0]["phase"], "writing");
    let mut heard = String::new();
    follow(&mut second, &mut heard, Some(100)).await;
    assert!(heard.starts_with(&told), "the text so far comes first");

    // The other loses its connection and returns with the last number that it has.
    drop(first);
    let (mut back, _) = stage.ana.attach(&stage.group, attached["seq"].as_u64()).await;
    let mut again = String::new();
    follow(&mut back, &mut again, None).await;
    follow(&mut second, &mut heard, None).await;
    assert_eq!(again, heard);
    assert_eq!(heard.split_whitespace().count(), 60);
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn a_crash_in_mid_stream_keeps_what_was_stored_of_a_long_reply() {
    let dir = tempfile::tempdir().unwrap();
    let (stage, node) = Stage::open(dir.path()).await;
    // The first piece is long enough to be stored; what comes after it leaves behind that.
    let long = "x".repeat(CHECKPOINT_BYTES);
    let chunks = vec![long.clone(), " and".into(), " so".into(), " on".into()];
    stage.models.next("teller", Script::SilentAfter(chunks));
    let (mut socket, _) = stage.ana.attach(&stage.group, None).await;
    socket.post("m1", "@teller go").await;
    let mut told = String::new();
    follow(&mut socket, &mut told, Some(CHECKPOINT_BYTES)).await;
    // Whatever is answered now was committed after the text was stored.
    socket.post("m2", "go on").await;
    socket.answer("m2").await;
    node.kill().await;

    let node = stage.launch.start().await;
    let ana = stage.ana.at(&node.url);
    let messages = ana.all_messages(&stage.group).await;
    let reply = messages.iter().find(|message| message["author"]["kind"] == "agent").unwrap();
    let text = reply["text"].as_str().unwrap();
    assert!(text.starts_with(&long), "{} bytes are left", text.len());
    let (_, why) = ana.get(&format!("/api/groups/{}/messages/m1/why", stage.group)).await;
    assert_eq!(why["agents"][0]["run"]["status"], "interrupted", "{why}");
    assert_eq!(why["agents"][0]["run"]["reply"], reply["message_id"]);

    // A text that is taken back is gone from what was stored of it, too.
    let path =
        format!("/api/groups/{}/messages/{}", stage.group, reply["message_id"].as_str().unwrap());
    let (status, _) = ana.send("DELETE", &path, None).await;
    assert_eq!(status, 200);
    assert_eq!(node.stop().await, Some(0));
    for entry in std::fs::read_dir(dir.path().join("data/groups")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name == "rooms.db") {
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(long.len()).any(|window| window == long.as_bytes());
            assert!(!found, "{} still has the text", path.display());
        }
    }
}

#[tokio::test]
async fn what_an_agent_is_no_longer_shown_its_model_has_summarized_and_a_deletion_is_heeded() {
    let dir = tempfile::tempdir().unwrap();
    let (stage, node) = Stage::open(dir.path()).await;
    stage.models.always("teller", Script::Say("Hello.".into()));
    let (mut socket, _) = stage.ana.attach(&stage.group, None).await;
    socket.post("m0", "@teller hello").await;
    socket.event("run.finished").await;

    stage.models.next("teller", Script::Say("Ana counted.".into()));
    for number in 1..COMPACT_MESSAGES {
        socket.post(&format!("m{number}"), &format!("fact {number}")).await;
    }
    let summary = socket.event("summary.recorded").await;
    assert_eq!(
        (summary["by"].as_str(), summary["text"].as_str()),
        (Some("model"), Some("Ana counted."))
    );
    let asked = stage.models.requests().pop().unwrap().messages();
    assert!(asked[1].1.contains("Ana: fact 1\n"), "{asked:?}");

    socket.post("m100", "@teller what happened?").await;
    socket.event("run.finished").await;
    let shown = stage.models.requests().pop().unwrap().messages();
    let prompt = shown.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n");
    assert!(prompt.contains("Ana counted."), "{prompt}");
    assert!(!prompt.contains("fact 1\n"), "the summary stands for it");

    stage.models.next("teller", Script::Say("Ana counted, but for one.".into()));
    socket.delete("m2").await;
    let anew = socket.event("summary.recorded").await;
    assert_eq!(anew["text"], "Ana counted, but for one.");
    assert_eq!(anew["to_seq"], summary["to_seq"]);
    let asked = stage.models.requests().pop().unwrap().messages();
    assert!(asked[1].1.contains("fact 1\n") && !asked[1].1.contains("fact 2\n"), "{asked:?}");
    assert_eq!(node.stop().await, Some(0));
}
