//! What an agent is shown of the conversation.

use convene_group_controller::Controller;
use convene_model::{
    agents::ContextMessage,
    event::TriggerPolicy::Mention,
    limits::{CONTEXT_BYTES, CONTEXT_MESSAGES, MAX_REPLY_BYTES, MAX_TEXT_BYTES},
};

use crate::harness::Room;

fn shown(room: &mut Room) -> Vec<ContextMessage> {
    let mut calls = room.say("@guide hi").invocations();
    calls.remove(0).request.messages
}

fn bytes(messages: &[ContextMessage]) -> usize {
    messages.iter().map(|message| message.text.len()).sum()
}

#[test]
fn an_agent_is_shown_the_newest_messages_oldest_first() {
    let mut room = Room::with(&[("guide", Mention)]);
    for number in 0..CONTEXT_MESSAGES + 5 {
        room.say(&format!("number {number}"));
    }
    let shown = shown(&mut room);
    assert_eq!(shown.len(), CONTEXT_MESSAGES);
    assert_eq!(shown[0].text, "number 6");
    assert_eq!(shown.last().unwrap().text, "@guide hi");
}

#[test]
fn an_agent_is_shown_at_most_so_many_bytes() {
    let mut room = Room::with(&[("guide", Mention)]);
    for _ in 0..3 {
        room.say(&"x".repeat(MAX_TEXT_BYTES / 2));
    }
    let shown = shown(&mut room);
    assert_eq!(shown.len(), 3, "the oldest of three halves and a greeting does not fit");
    assert!(bytes(&shown) <= CONTEXT_BYTES);
}

#[test]
fn a_longer_reply_is_shown_as_far_as_it_fits() {
    let mut room = Room::with(&[("guide", Mention), ("scout", Mention)]);
    let run = room.wake("@scout go");
    let long = format!("@guide {}", "€".repeat((MAX_REPLY_BYTES - 8) / 3));
    let calls = room.reply(&run, &long).invocations();
    let shown = &calls[0].request.messages;
    assert_eq!(shown.len(), 1);
    assert!(long.starts_with(&shown[0].text) && shown[0].text.len() > CONTEXT_BYTES - 3);
}

#[test]
fn the_message_that_woke_an_agent_is_shown_however_long_it_waited() {
    let mut room = Room::with(&[("guide", Mention)]);
    let first = room.wake("@guide one");
    room.say("@guide two");
    for number in 0..CONTEXT_MESSAGES + 5 {
        room.say(&format!("number {number}"));
    }
    let rebuilt = Controller::rebuild(room.controller.snapshot().as_deref(), []).unwrap();
    assert_eq!(rebuilt.state(), room.controller.state(), "it is in the snapshot too");
    let calls = room.reply(&first, "done").invocations();
    let request = &calls[0].request;
    assert_eq!(request.messages.len(), CONTEXT_MESSAGES);
    assert_eq!(request.messages[0].text, "@guide two");
    assert_eq!(request.messages[0].message_id, request.trigger);
    assert_eq!(request.messages.last().unwrap().text, "done");

    let kept = |room: &Room| {
        let snapshot = String::from_utf8(room.controller.snapshot().unwrap()).unwrap();
        snapshot.contains("@guide two")
    };
    assert!(kept(&room));
    room.reply(&request.run_id, "done too");
    assert!(!kept(&room), "what no run needs is forgotten");
}

#[test]
fn the_message_that_woke_an_agent_takes_its_share_of_the_bytes() {
    let mut room = Room::with(&[("guide", Mention)]);
    let first = room.wake("@guide one");
    room.say(&format!("@guide {}", "x".repeat(MAX_TEXT_BYTES - 7)));
    for _ in 0..6 {
        room.say(&"y".repeat(MAX_TEXT_BYTES / 4));
    }
    let calls = room.reply(&first, "done").invocations();
    let shown = &calls[0].request.messages;
    assert!(shown[0].text.starts_with("@guide x"));
    assert_eq!((shown.len(), shown.last().unwrap().text.as_str()), (3, "done"));
    assert!(bytes(shown) <= CONTEXT_BYTES);
}
