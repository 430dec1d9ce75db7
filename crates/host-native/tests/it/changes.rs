//! What people do to messages, through the whole chain: seen by everybody, and kept over `kill -9`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use convene_testing::{
    browser::free_port,
    client::{Person, Socket},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::convene;

#[tokio::test]
async fn two_people_change_messages_and_see_each_other_and_a_kill_takes_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = convene(dir.path()).start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let ben = Person::sign_up(&node.url, "Ben").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Plans").await;
    ana.invite(&org, &ben).await;
    let (mut to_ana, attached) = ana.attach(&group, None).await;
    assert_eq!(attached["state"]["present"], json!([ana.user_id]));
    let (mut to_ben, attached) = ben.attach(&group, None).await;
    assert_eq!(attached["state"]["present_count"], 2);
    let presence = to_ana.until(|frame| frame["joined"].to_string().contains(&ben.user_id)).await;
    assert_eq!(presence["count"], 2);

    for message in ["m1", "m2", "m3"] {
        to_ana.post(message, "a frist draft").await;
        to_ben.event("message.posted").await;
    }
    to_ana.edit("m1", "a first draft").await;
    assert_eq!(to_ben.event("message.edited").await["text"], "a first draft");
    to_ben.react("m1", "🎉", true).await;
    assert_eq!(to_ana.event("reaction.added").await["author"]["id"], ben.user_id.as_str());
    to_ben.pin("m3", true).await;
    assert_eq!(to_ana.event("message.pinned").await["message_id"], "m3");
    to_ben.delete("m2").await;
    let refused = to_ben.answer("delete-m2").await;
    assert_eq!(refused["code"], "forbidden", "Ben is a member: {refused}");
    to_ana.delete("m2").await;
    assert_eq!(to_ben.event("message.deleted").await["message_id"], "m2");
    to_ben.typing().await;
    let typing = to_ana.until(|frame| frame["type"] == "typing").await;
    assert_eq!(typing["user_id"], ben.user_id.as_str());

    let before = ana.all_messages(&group).await;
    let shown: Vec<_> =
        before.iter().map(|m| (m["text"].as_str().unwrap(), m["deleted"] == true)).collect();
    assert_eq!(shown, [("a first draft", false), ("", true), ("a frist draft", false)]);
    assert_eq!(before[0]["reactions"][0]["emoji"], "🎉");
    let (_, attached) = ana.attach(&group, None).await;
    node.kill().await;

    let node = convene(dir.path()).start().await;
    let (ana, ben) = (ana.at(&node.url), ben.at(&node.url));
    assert_eq!(ana.all_messages(&group).await, before);
    let (mut to_ana, again) = ana.attach(&group, None).await;
    assert_eq!(
        (&again["seq"], &again["state"]["pins"]),
        (&attached["seq"], &attached["state"]["pins"])
    );
    assert_eq!(again["state"]["pins"][0]["message_id"], "m3");

    // As if no answer had come before the kill: the same again is success and changes nothing.
    let (mut to_ben, _) = ben.attach(&group, None).await;
    to_ana.edit("m1", "a first draft").await;
    to_ana.delete("m2").await;
    to_ben.react("m1", "🎉", true).await;
    to_ben.pin("m3", true).await;
    for (socket, refs) in
        [(&mut to_ana, ["edit-m1", "delete-m2"]), (&mut to_ben, ["react-m1", "pin-m3"])]
    {
        for r#ref in refs {
            let ok = socket.answer(r#ref).await;
            assert_eq!((&ok["type"], ok.get("seq")), (&json!("ok"), None), "{ok}");
        }
    }
    let (_, last) = ana.attach(&group, None).await;
    assert_eq!(last["seq"], attached["seq"]);
    assert_eq!(node.stop().await, Some(0));
}

/// Writers, each with messages of its own.
const WRITERS: usize = 4;
const KILLS: usize = 5;

#[tokio::test]
async fn killing_the_process_amid_changes_loses_and_doubles_none() {
    let dir = tempfile::tempdir().unwrap();
    let launch = convene(dir.path()).listen(format!("127.0.0.1:{}", free_port()));
    let mut node = launch.start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    // Without agents, so that what people do is all that is written: nobody summarizes for them.
    let plans = json!({"org_id": org, "title": "Plans", "is_private": false, "agent_ids": []});
    let group = ana.post("/api/groups", plans).await["group_id"].as_str().unwrap().to_owned();
    let (_, attached) = ana.attach(&group, None).await;
    let first = attached["seq"].as_u64().unwrap();

    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|index| tokio::spawn(write(ana.clone(), group.clone(), index, Arc::clone(&done))))
        .collect();
    for kill in 0..KILLS {
        sleep(Duration::from_millis(150 + 97 * kill as u64)).await;
        node.kill().await;
        node = launch.start().await;
    }
    sleep(Duration::from_millis(500)).await;
    done.store(true, Ordering::Relaxed);

    let mut commands = 0;
    let mut expected = Vec::new();
    for writer in writers {
        let (count, messages) = writer.await.unwrap();
        commands += count;
        expected.extend(messages);
    }
    assert!(commands > 10 * KILLS as u64, "only {commands} changes: too little load");
    let (_, attached) = ana.attach(&group, None).await;
    let happened = attached["seq"].as_u64().unwrap() - first;
    assert_eq!(happened, commands, "each change happened once");
    let mut stored: Vec<_> = ana.all_messages(&group).await.iter().map(Form::of).collect();
    stored.sort();
    expected.sort();
    assert_eq!(stored, expected);
    assert_eq!(node.stop().await, Some(0));
}

/// What a message has become.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Form {
    message_id: String,
    text: String,
    deleted: bool,
    reacted: bool,
}

impl Form {
    fn of(message: &Value) -> Self {
        Self {
            message_id: message["message_id"].as_str().unwrap().to_owned(),
            text: message["text"].as_str().unwrap().to_owned(),
            deleted: message["deleted"] == true,
            reacted: message["reactions"][0]["count"] == 1,
        }
    }
}

/// Does one thing after the other, each again and again until it is acknowledged. Returns how many
/// things were done and what its messages have become.
async fn write(
    person: Person,
    group: String,
    index: usize,
    done: Arc<AtomicBool>,
) -> (u64, Vec<Form>) {
    let mut forms: Vec<Form> = Vec::new();
    let mut socket = None;
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        let message_id = format!("w{index}-{}", count / 5);
        let text = format!("text {count} of {message_id}");
        let (message_id, text) = (message_id.as_str(), text.as_str());
        let r#ref = loop {
            let Some(open) = connected(&person, &group, &mut socket).await else { continue };
            let r#ref = match count % 5 {
                0 => {
                    open.post(message_id, text).await;
                    message_id.to_owned()
                }
                1 | 3 => {
                    open.edit(message_id, text).await;
                    format!("edit-{message_id}")
                }
                2 => {
                    open.react(message_id, "👍", true).await;
                    format!("react-{message_id}")
                }
                _ if count % 2 == 0 => {
                    open.delete(message_id).await;
                    format!("delete-{message_id}")
                }
                _ => {
                    open.react(message_id, "👍", false).await;
                    format!("react-{message_id}")
                }
            };
            let acknowledged = timeout(Duration::from_secs(10), acknowledged(open, &r#ref)).await;
            if acknowledged == Ok(true) {
                break r#ref;
            }
            socket = None;
        };
        match (r#ref.split('-').next().unwrap(), forms.last_mut()) {
            ("edit", Some(form)) => form.text = text.to_owned(),
            ("react", Some(form)) => form.reacted = !form.reacted,
            ("delete", Some(form)) => {
                (form.text, form.deleted, form.reacted) = (String::new(), true, false);
            }
            _ => forms.push(Form {
                message_id: message_id.to_owned(),
                text: text.to_owned(),
                deleted: false,
                reacted: false,
            }),
        }
        count += 1;
    }
    (count, forms)
}

/// Whether a command was acknowledged, and not refused or cut off.
async fn acknowledged(socket: &mut Socket, r#ref: &str) -> bool {
    while let Ok(frame) = socket.next().await {
        if frame["ref"] == r#ref {
            return frame["type"] == "ok";
        }
    }
    false
}

/// A socket that is attached; `None` while the server is away.
async fn connected<'a>(
    person: &Person,
    group: &str,
    socket: &'a mut Option<Socket>,
) -> Option<&'a mut Socket> {
    if socket.is_none() {
        let opened = async {
            let mut socket = person.connect(group).await.ok()?;
            socket.send(&json!({"type": "attach", "ref": "attach"})).await;
            acknowledged_attach(&mut socket).await.then_some(socket)
        };
        *socket = opened.await;
        if socket.is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    }
    socket.as_mut()
}

async fn acknowledged_attach(socket: &mut Socket) -> bool {
    while let Ok(frame) = socket.next().await {
        if frame["ref"] == "attach" {
            return frame["type"] == "attached";
        }
    }
    false
}
