//! What a room makes of frames.

use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn room() -> Room {
    let mut room = Room::new(UserId::new("ana").unwrap(), None);
    room.learn_name(Author::User(UserId::new("ana").unwrap()), "Ana");
    room.learn_name(Author::User(UserId::new("ben").unwrap()), "Ben Noll");
    room
}

fn take(room: &mut Room, frame: &Value) -> Vec<Effect> {
    room.frame(&frame.to_string(), NOW)
}

fn attach(room: &mut Room, seq: u64) -> Vec<Effect> {
    let frame = json!({"type": "attached", "ref": "attach", "seq": seq, "epoch": 1, "history": "h1",
        "state": {"version": 1, "paused": false, "runs": [],
            "agents": [{"agent_id": "a1", "name": "Guide", "trigger": "mention"}]}});
    take(room, &frame)
}

fn posted(seq: u64, id: &str, author: &str, text: &str) -> Value {
    json!({"type": "event", "seq": seq, "at": 1_800_000_000_000_u64, "kind": "message.posted",
        "message_id": id, "author": {"kind": "user", "id": author}, "root": id, "hop": 0,
        "nth": seq, "text": text})
}

fn post(room: &mut Room, id: &str, text: &str) -> Effect {
    room.command(|r#ref| ClientFrame::Post {
        r#ref,
        message_id: MessageId::new(id).unwrap(),
        text: text.to_owned(),
        mentions: None,
        reply_to: None,
    })
}

fn texts(room: &Room) -> Vec<&str> {
    room.messages.values().map(|message| message.posted.text.as_str()).collect()
}

#[test]
fn what_is_not_acknowledged_goes_out_again_with_the_same_id_after_each_attach() {
    let mut room = room();
    assert_eq!(post(&mut room, "m1", "before"), Effect::Send(vec![]), "nothing is attached yet");
    let Effect::Send(frames) = attach(&mut room, 3).remove(0) else { panic!("frames") };
    assert!(matches!(&frames[..], [ClientFrame::Post { message_id, .. }]
        if message_id.as_str() == "m1"));
    let Effect::Send(now) = post(&mut room, "m2", "after") else { panic!("a frame") };
    assert_eq!(now.len(), 1);
    take(&mut room, &json!({"type": "ok", "ref": "t1", "seq": 4, "message_id": "m1"}));
    room.detached();
    let Effect::Send(frames) = attach(&mut room, 4).remove(0) else { panic!("frames") };
    assert!(matches!(&frames[..], [ClientFrame::Post { message_id, .. }]
        if message_id.as_str() == "m2"));
    // The event acknowledges as well as the answer does.
    take(&mut room, &posted(5, "m2", "ana", "after"));
    assert!(room.unacknowledged().is_empty());
}

#[test]
fn an_event_counts_once_and_an_attach_goes_on_after_the_last() {
    let mut room = room();
    attach(&mut room, 3);
    take(&mut room, &posted(4, "m1", "ben", "one"));
    take(&mut room, &posted(4, "m1", "ben", "one"));
    take(&mut room, &json!({"type": "event", "seq": 5, "at": 1, "kind": "something.new"}));
    assert_eq!(texts(&room), ["one"]);
    let ClientFrame::Attach { after, history, .. } = room.attach() else { panic!("an attach") };
    assert_eq!((after, history.unwrap().as_str()), (Some(5), "h1"));
}

#[test]
fn edits_deletions_and_reactions_change_the_message() {
    let mut room = room();
    attach(&mut room, 0);
    take(&mut room, &posted(1, "m1", "ben", "one"));
    let about = |seq: u64, kind: &str, more: Value| {
        let mut event = json!({"type": "event", "seq": seq, "at": 1_800_000_000_000_u64,
            "kind": kind, "message_id": "m1", "message_seq": 1,
            "author": {"kind": "user", "id": "ben"}});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    take(&mut room, &about(2, "message.edited", json!({"text": "two"})));
    take(&mut room, &about(3, "reaction.added", json!({"emoji": "👍"})));
    let message = &room.messages[&1];
    assert_eq!((message.posted.text.as_str(), message.edited_at.is_some()), ("two", true));
    assert_eq!((message.reactions[0].emoji.as_str(), message.reactions[0].count), ("👍", 1));
    take(&mut room, &about(4, "reaction.removed", json!({"emoji": "👍"})));
    assert!(room.messages[&1].reactions.is_empty());
    take(&mut room, &about(5, "message.deleted", json!({})));
    assert!(room.messages[&1].deleted && room.messages[&1].posted.text.is_empty());
}

#[test]
fn a_reply_streams_in_once_however_often_its_text_comes() {
    let mut room = room();
    attach(&mut room, 0);
    take(
        &mut room,
        &json!({"type": "event", "seq": 1, "at": 1, "kind": "run.started",
        "run_id": "r1", "attempt": 1, "agent_id": "a1", "trigger": "m1", "deadline": 9}),
    );
    let delta = |offset: u64, text: &str| {
        json!({"type": "delta", "run_id": "r1", "attempt": 1,
        "offset": offset, "text": text})
    };
    take(&mut room, &delta(0, "Grü"));
    take(&mut room, &delta(4, "ße"));
    assert_eq!(room.runs[0].text, "Grüße");
    take(&mut room, &delta(0, "Grüße aus"));
    assert_eq!(room.runs[0].text, "Grüße aus", "the text so far comes again after an attach");
    take(&mut room, &delta(40, "a gap"));
    assert_eq!(room.runs[0].text, "Grüße aus");
    let mut reply = posted(2, "m2", "ana", "Grüße aus Bremen");
    reply["author"] = json!({"kind": "agent", "id": "a1"});
    reply["run_id"] = json!("r1");
    take(&mut room, &reply);
    assert!(room.runs.is_empty());
    assert_eq!(texts(&room), ["Grüße aus Bremen"]);
}

#[test]
fn a_refusal_gives_the_text_back_and_an_overload_does_not() {
    let mut room = room();
    attach(&mut room, 0);
    post(&mut room, "m1", "kept");
    let busy = json!({"type": "error", "ref": "t1", "code": "overloaded", "retry_after_ms": 500});
    assert_eq!(take(&mut room, &busy), [Effect::ResendAfter(500)]);
    assert_eq!(room.unacknowledged().len(), 1);
    let refused = json!({"type": "error", "ref": "t1", "code": "too_large"});
    let effects = take(&mut room, &refused);
    assert_eq!(effects[1], Effect::GiveBack("kept".to_owned()));
    assert!(room.unacknowledged().is_empty());
}

#[test]
fn people_are_mentioned_by_id_and_agents_by_the_group_itself() {
    let mut room = room();
    attach(&mut room, 0);
    assert_eq!(room.mentions("@Guide what now?"), None);
    assert_eq!(room.mentions("write to ben noll@example.org"), None);
    let ids = room.mentions("@ben noll, ask @guide!").unwrap();
    assert_eq!(ids.iter().map(ParticipantId::as_str).collect::<Vec<_>>(), ["ben", "a1"]);
    assert_eq!(room.mentionable(), ["Guide", "Ben Noll"]);
}

#[test]
fn what_was_read_is_said_once() {
    let mut room = room();
    attach(&mut room, 0);
    assert!(room.read().is_none());
    take(&mut room, &posted(1, "m1", "ben", "one"));
    assert!(matches!(room.read(), Some(ClientFrame::Read { up_to: 1, .. })));
    assert!(room.read().is_none());
}
