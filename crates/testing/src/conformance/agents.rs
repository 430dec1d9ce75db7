//! Agents: woken by a mention, answering in a stream, ending exactly once.

use serde_json::{Value, json};

use super::Target;
use crate::client::Socket;

pub(super) async fn a_mention_is_answered_in_a_stream_that_ends_once(target: &Target) {
    let (ana, _, group) = target.founder("Ana").await;
    let (mut socket, attached) = ana.attach(&group, None).await;
    socket.post("m1", &format!("@{} what can you do?", agent(&attached))).await;
    let decided = socket.event("trigger.decided").await;
    assert_eq!(decided["candidates"][0]["outcome"], "accepted", "{decided}");
    let started = socket.event("run.started").await;
    let mut text = String::new();
    let reply = loop {
        let frame = socket.next().await.expect("the socket stays open");
        if frame["type"] == "delta" && frame["run_id"] == started["run_id"] {
            assert_eq!(frame["offset"].as_u64(), Some(text.len() as u64), "{frame}");
            text.push_str(frame["text"].as_str().expect("a text"));
        } else if frame["kind"] == "message.posted" && frame["author"]["kind"] == "agent" {
            break frame;
        }
    };
    assert_eq!(reply["text"].as_str(), Some(text.as_str()), "the reply is what was streamed");
    assert_eq!((&reply["root"], &reply["hop"]), (&json!("m1"), &json!(1)));
    let finished = socket.event("run.finished").await;
    assert_eq!(finished["status"], "completed", "{finished}");
    assert_eq!(finished["message_id"], reply["message_id"]);

    // Another message comes after it, and no second end before it.
    socket.post("m2", "Thank you").await;
    loop {
        let frame = socket.next().await.expect("the socket stays open");
        assert_ne!(frame["kind"], "run.finished", "{frame}");
        if frame["ref"] == "m2" {
            break;
        }
    }
    assert_eq!(ana.all_messages(&group).await.len(), 3);
}

pub(super) async fn a_run_is_stopped_by_a_person(target: &Target) {
    let (ana, _, group) = target.founder("Ana").await;
    let (mut socket, attached) = ana.attach(&group, None).await;
    socket.post("m1", &format!("@{} what can you do?", agent(&attached))).await;
    let started = socket.event("run.started").await;
    let run_id = started["run_id"].clone();
    socket.send(&json!({"type": "cancel", "ref": "stop", "run_id": run_id})).await;
    // A quick model may have finished before the word arrived; there is one end either way.
    let (answer, finished) = both(&mut socket, &run_id).await;
    match answer["type"].as_str() {
        Some("ok") => assert_eq!(finished["status"], "cancelled", "{finished}"),
        _ => {
            assert_eq!(answer["code"], "run_not_found", "{answer}");
            assert_eq!(finished["status"], "completed", "{finished}");
        }
    }
}

/// The answer to `stop` and the end of the run, in whichever order.
async fn both(socket: &mut Socket, run_id: &Value) -> (Value, Value) {
    let (mut answer, mut finished) = (Value::Null, Value::Null);
    while answer.is_null() || finished.is_null() {
        let frame = socket.next().await.expect("the socket stays open");
        if frame["ref"] == "stop" {
            answer = frame;
        } else if frame["kind"] == "run.finished" && frame["run_id"] == *run_id {
            assert!(finished.is_null(), "a run ends once: {frame}");
            finished = frame;
        }
    }
    (answer, finished)
}

fn agent(attached: &Value) -> String {
    attached["state"]["agents"][0]["name"].as_str().expect("a new group has an agent").to_owned()
}
