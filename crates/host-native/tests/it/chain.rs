//! The whole chain in one process: people write, an agent replies word by word, nothing is lost.

use convene_testing::client::Person;
use serde_json::json;

use crate::convene;

#[tokio::test]
async fn two_people_and_an_agent_talk_and_everything_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let node = convene(dir.path()).start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let ben = Person::sign_up(&node.url, "Ben").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Plans").await;

    let (status, _) = ben.get(&format!("/api/groups/{group}")).await;
    assert_eq!(status, 404, "a group of another workspace is invisible");
    ana.invite(&org, &ben).await;

    let (mut to_ana, attached) = ana.attach(&group, None).await;
    assert_eq!(attached["state"]["agents"].as_array().unwrap().len(), 1);
    let agent = attached["state"]["agents"][0]["name"].as_str().unwrap().to_owned();
    let (mut to_ben, _) = ben.attach(&group, None).await;

    to_ana.post("m1", "Good morning").await;
    let ok = to_ana.until(|frame| frame["type"] == "ok").await;
    assert_eq!((ok["ref"].as_str(), ok["message_id"].as_str()), (Some("m1"), Some("m1")));
    let seen = to_ben.event("message.posted").await;
    assert_eq!(seen["text"], "Good morning");
    assert_eq!(seen["author"], json!({"kind": "user", "id": ana.user_id}));
    assert_eq!(seen["seq"], ok["seq"]);

    // A repeat is answered with the first number; another text under the same id is refused.
    to_ana.post("m1", "Good morning").await;
    let again = to_ana.until(|frame| frame["type"] == "ok").await;
    assert_eq!(again["seq"], ok["seq"]);
    to_ana.post("m1", "Good evening").await;
    let refused = to_ana.until(|frame| frame["type"] == "error").await;
    assert_eq!(refused["code"], "message_id_reused");

    to_ben.post("m2", &format!("@{agent} what can you do?")).await;
    let decided = to_ana.event("trigger.decided").await;
    assert_eq!(decided["candidates"][0]["outcome"], "accepted");
    let started = to_ana.event("run.started").await;
    let mut text = String::new();
    let mut deltas = 0;
    let reply = loop {
        let frame = to_ana.next().await.unwrap();
        if frame["type"] == "delta" {
            assert_eq!(frame["offset"].as_u64().unwrap() as usize, text.len());
            text.push_str(frame["text"].as_str().unwrap());
            deltas += 1;
        } else if frame["kind"] == "message.posted" && frame["run_id"] == started["run_id"] {
            break frame;
        }
    };
    assert!(deltas > 5, "the reply comes word by word, not in {deltas} pieces");
    assert_eq!(reply["text"], text);
    assert_eq!(reply["author"]["kind"], "agent");
    assert_eq!((reply["root"].as_str(), reply["hop"].as_u64()), (Some("m2"), Some(1)));
    let finished = to_ana.event("run.finished").await;
    assert_eq!(finished["status"], "completed");
    assert_eq!(finished["message_id"], reply["message_id"]);

    let before = ana.all_messages(&group).await;
    assert_eq!(before.len(), 3);
    node.kill().await;
    let node = convene(dir.path()).start().await;
    let ana = ana.at(&node.url);
    assert_eq!(ana.all_messages(&group).await, before);

    // A client that returns with its last number gets exactly what it missed.
    let ben = ben.at(&node.url);
    let (mut late, _) = ben.attach(&group, Some(finished["seq"].as_u64().unwrap() - 1)).await;
    let missed = late.next().await.unwrap();
    assert_eq!((missed["kind"].as_str(), &missed["seq"]), (Some("run.finished"), &finished["seq"]));
    let (mut to_ana, _) = ana.attach(&group, None).await;
    to_ana.post("m3", "still here").await;
    let next = late.event("message.posted").await;
    assert_eq!(next["seq"].as_u64().unwrap(), finished["seq"].as_u64().unwrap() + 1);
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn frames_that_make_no_sense_get_an_error_and_leave_the_group_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let node = convene(dir.path()).start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Plans").await;

    let mut socket = ana.connect(&group).await.unwrap();
    socket.post("early", "before attaching").await;
    assert_eq!(socket.next().await.unwrap()["code"], "not_attached");
    drop(socket);

    let (mut socket, attached) = ana.attach(&group, None).await;
    let head = attached["seq"].as_u64().unwrap();
    for (frame, code) in [
        (json!({"type": "dance", "ref": "r"}), "unknown_type"),
        (json!({"type": "post", "ref": "r", "message_id": "m"}), "invalid_frame"),
        (
            json!({"type": "post", "ref": "r", "message_id": "m", "text": "x", "conn": "c1"}),
            "invalid_frame",
        ),
        (
            json!({"type": "post", "ref": "r", "message_id": "m", "text": "x", "token": "t"}),
            "invalid_frame",
        ),
        (
            json!({"type": "post", "ref": "r", "message_id": "no spaces", "text": "x"}),
            "invalid_frame",
        ),
        (json!({"type": "post", "ref": "r", "message_id": "m", "text": " "}), "validation_failed"),
        (
            json!({"type": "post", "ref": "r", "message_id": "run_r1-0", "text": "x"}),
            "validation_failed",
        ),
        (
            json!({"type": "post", "ref": "r", "message_id": "m", "text": "x", "reply_to": "none"}),
            "message_not_found",
        ),
        (json!({"type": "cancel", "ref": "r", "run_id": "r99-0"}), "run_not_found"),
        (json!([1, 2]), "invalid_frame"),
    ] {
        socket.send(&frame).await;
        let answer = socket.until(|frame| frame["type"] != "presence").await;
        assert_eq!(
            (answer["type"].as_str(), answer["code"].as_str()),
            (Some("error"), Some(code)),
            "{frame}"
        );
    }
    socket.post("m1", "and still it works").await;
    let posted = socket.event("message.posted").await;
    assert_eq!(posted["seq"].as_u64().unwrap(), head + 1, "nothing else was recorded");

    // What is no text at all ends the connection, and nothing else.
    let limit = convene_model::limits::MAX_FRAME_BYTES;
    for (message, close) in [
        (tokio_websockets::Message::binary(vec![1, 2, 3]), 1003),
        (tokio_websockets::Message::text("x".repeat(limit + 1)), 1009),
    ] {
        let (mut other, _) = ana.attach(&group, None).await;
        other.send_message(message).await;
        let code = loop {
            if let Err(code) = other.next().await {
                break code;
            }
        };
        assert_eq!(code, close);
    }
    socket.post("m2", "others did not notice").await;
    socket.event("message.posted").await;
}

#[tokio::test]
async fn a_second_process_on_the_same_data_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = convene(dir.path()).start().await;
    let (code, errors) = convene(dir.path()).run_to_end().await;
    assert_eq!(code, Some(1));
    assert!(errors.contains("another process is using the data directory"), "{errors}");
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn a_wrong_configuration_is_said_by_its_key_and_nothing_starts() {
    let dir = tempfile::tempdir().unwrap();
    let launch = convene(dir.path()).env("CONVENE_APP__PUBLIC_URL", "https://example.org/path");
    let (code, errors) = launch.run_to_end().await;
    assert_eq!(code, Some(1));
    assert!(errors.contains("app.public_url"), "{errors}");
    assert!(!dir.path().join("data").exists());
}
