//! Messages: durable, in order, once; resumed, paged, and no longer for those who left.

use serde_json::{Value, json};

use super::Target;
use crate::client::{Person, Socket};

pub(super) async fn a_post_is_seen_by_everybody_and_acknowledged_once_it_is_durable(
    target: &Target,
) {
    let (ana, org, group) = target.founder("Ana").await;
    let ben = target.person("Ben").await;
    ana.invite(&org, &ben).await;
    let (mut to_ana, attached) = ana.attach(&group, None).await;
    let head = attached["seq"].as_u64().expect("a number");
    let (mut to_ben, _) = ben.attach(&group, None).await;

    to_ana.post("m1", "Good morning").await;
    let ok = to_ana.until(|frame| frame["type"] == "ok" && frame["ref"] == "m1").await;
    let seen = to_ben.event("message.posted").await;
    assert_eq!(seen["author"], json!({"kind": "user", "id": ana.user_id}));
    assert_eq!((&seen["text"], &seen["seq"]), (&json!("Good morning"), &ok["seq"]));
    assert!(ok["seq"].as_u64().expect("a number") > head);

    to_ben.post("m2", "Good morning to you").await;
    let answer = to_ana.event_of(&ben).await;
    assert!(answer["seq"].as_u64() > seen["seq"].as_u64());
    let texts: Vec<_> = ana.all_messages(&group).await;
    let texts: Vec<_> = texts.iter().map(|message| message["text"].clone()).collect();
    assert_eq!(texts, ["Good morning", "Good morning to you"]);
}

pub(super) async fn a_repeated_post_is_answered_with_its_first_number_over_socket_and_http(
    target: &Target,
) {
    let (ana, _, group) = target.founder("Ana").await;
    let path = format!("/api/groups/{group}/messages");
    let body = json!({"message_id": "m1", "text": "Once"});
    let first = ana.post(&path, body.clone()).await;
    assert_eq!(ana.post(&path, body).await["seq"], first["seq"]);

    let (mut socket, _) = ana.attach(&group, None).await;
    socket.post("m1", "Once").await;
    let ok = socket.until(|frame| frame["ref"] == "m1").await;
    assert_eq!((&ok["type"], &ok["seq"]), (&json!("ok"), &first["seq"]));
    socket.post("m1", "Another text").await;
    let refused = socket.until(|frame| frame["ref"] == "m1").await;
    assert_eq!(refused["code"], "message_id_reused");
    let other = json!({"message_id": "m1", "text": "Another text"});
    let (status, problem) = ana.send("POST", &path, Some(&other)).await;
    assert_eq!((status, &problem["code"]), (409, &json!("message_id_reused")));
    assert_eq!(ana.all_messages(&group).await.len(), 1);
}

pub(super) async fn a_client_that_returns_gets_exactly_what_it_missed(target: &Target) {
    let (ana, _, group) = target.founder("Ana").await;
    let (mut socket, _) = ana.attach(&group, None).await;
    let mut last = 0;
    for number in 0..3 {
        last = say(&mut socket, &format!("before-{number}")).await;
    }
    drop(socket);
    let path = format!("/api/groups/{group}/messages");
    for number in 0..5 {
        let body = json!({"message_id": format!("missed-{number}"), "text": "x"});
        ana.post(&path, body).await;
    }
    let (mut socket, attached) = ana.attach(&group, Some(last)).await;
    let head = attached["seq"].as_u64().expect("a number");
    assert!(head >= last + 5);
    for expected in last + 1..=head {
        let event = socket.until(|frame| frame["type"] == "event").await;
        assert_eq!(event["seq"].as_u64(), Some(expected));
    }

    // Beyond the head, or under another numbering, nothing is replayed.
    let mut returning = ana.connect(&group).await.expect("a socket");
    let beyond = json!({"type": "attach", "ref": "a", "after": head + 1000});
    returning.send(&beyond).await;
    let answer = returning.until(|frame| frame["ref"] == "a").await;
    assert_eq!(answer["type"], "reset", "{answer}");
    let other = json!({"type": "attach", "ref": "b", "after": last, "history": "another"});
    returning.send(&other).await;
    let answer = returning.until(|frame| frame["ref"] == "b").await;
    assert_eq!(answer["type"], "reset", "{answer}");
}

pub(super) async fn history_is_paged_in_both_directions(target: &Target) {
    let (ana, _, group) = target.founder("Ana").await;
    let (mut socket, _) = ana.attach(&group, None).await;
    let mut seqs = Vec::new();
    for number in 0..7 {
        seqs.push(say(&mut socket, &format!("m{number}")).await);
    }
    let page = |query: String| {
        let (ana, group) = (ana.clone(), group.clone());
        async move {
            let (status, page) = ana.get(&format!("/api/groups/{group}/messages?{query}")).await;
            assert_eq!(status, 200, "{page}");
            page
        }
    };
    let newest = page("limit=3".to_owned()).await;
    assert_eq!(numbers(&newest), seqs[4..]);
    assert!(newest["head"].as_u64() >= seqs.last().copied());
    assert_eq!(newest["more_before"], true);
    let older = page(format!("limit=3&before={}", seqs[4])).await;
    assert_eq!(numbers(&older), seqs[1..4]);
    let oldest = page(format!("limit=3&before={}", seqs[1])).await;
    assert_eq!((numbers(&oldest).as_slice(), &oldest["more_before"]), (&seqs[..1], &json!(false)));
    let after = page(format!("limit=2&after={}", seqs[1])).await;
    assert_eq!(numbers(&after), seqs[2..4]);
    for wrong in ["limit=0", "limit=201", "limit=x"] {
        let (status, _) = ana.get(&format!("/api/groups/{group}/messages?{wrong}")).await;
        assert!(status == 400 || status == 422, "{wrong}: {status}");
    }
}

pub(super) async fn a_removed_person_is_closed_out_at_once_and_stays_out(target: &Target) {
    let (ana, org, group) = target.founder("Ana").await;
    let ben = target.person("Ben").await;
    ana.invite(&org, &ben).await;
    let (mut to_ben, _) = ben.attach(&group, None).await;
    let (mut to_ana, _) = ana.attach(&group, None).await;
    let path = format!("/api/orgs/{org}/members/{}", ben.user_id);
    let (status, answer) = ana.send("DELETE", &path, None).await;
    assert!(status < 300, "{status} {answer}");
    let code = loop {
        if let Err(code) = to_ben.next().await {
            break code;
        }
    };
    assert_eq!(code, 4003);
    say(&mut to_ana, "among-ourselves").await;
    assert_eq!(ben.get(&format!("/api/groups/{group}/messages")).await.0, 404);
    assert!(ben.connect(&group).await.is_err());
}

/// Posts a text under its own id and returns its number.
async fn say(socket: &mut Socket, id: &str) -> u64 {
    socket.post(id, &format!("text of {id}")).await;
    let ok = socket.until(|frame| frame["ref"] == id).await;
    assert_eq!(ok["type"], "ok", "{ok}");
    ok["seq"].as_u64().expect("a number")
}

fn numbers(page: &Value) -> Vec<u64> {
    let messages = page["messages"].as_array().expect("messages");
    messages.iter().map(|message| message["seq"].as_u64().expect("a number")).collect()
}

impl Socket {
    /// The next message of a person.
    async fn event_of(&mut self, person: &Person) -> Value {
        let author = json!({"kind": "user", "id": person.user_id});
        self.until(|frame| frame["kind"] == "message.posted" && frame["author"] == author).await
    }
}
