//! What an agent is shown of the conversation.

use convene_group_controller::Controller;
use convene_model::{
    agents::{ContextMessage, InvokeRequest, SummaryAuthor},
    event::TriggerPolicy::{Auto, Mention},
    limits::{
        COMPACT_MESSAGES, CONTEXT_MESSAGES, CONTEXT_TOKENS, KEEP_MESSAGES, MAX_REPLY_BYTES,
        MAX_TEXT_BYTES, MESSAGE_TOKENS,
    },
};
use proptest::prelude::*;

use crate::harness::Room;

fn shown(room: &mut Room) -> InvokeRequest {
    let mut calls = room.say("@guide hi").invocations();
    calls.remove(0).request
}

/// The estimate by its definition.
fn tokens(messages: &[ContextMessage]) -> usize {
    let one = |message: &ContextMessage| {
        let ascii = message.text.chars().filter(char::is_ascii).count();
        let others = message.text.chars().count() - ascii;
        (ascii + 4 * others).div_ceil(4) + MESSAGE_TOKENS
    };
    messages.iter().map(one).sum()
}

#[test]
fn an_agent_is_shown_the_newest_messages_oldest_first() {
    let mut room = Room::with(&[("guide", Mention)]);
    for number in 0..COMPACT_MESSAGES - 1 {
        room.say(&format!("number {number}"));
    }
    let shown = shown(&mut room);
    assert_eq!(shown.messages.len(), COMPACT_MESSAGES);
    assert_eq!(shown.messages[0].text, "number 0");
    assert_eq!(shown.messages.last().unwrap().text, "@guide hi");
    assert_eq!(shown.summary, None);
}

#[test]
fn what_falls_out_of_the_window_is_summarized_in_steps() {
    let mut room = Room::with(&[("guide", Mention)]);
    for number in 0..COMPACT_MESSAGES {
        assert_eq!(room.say(&format!("number {number}")).kinds(), ["message.posted"]);
    }
    // No agent has run yet, so that no model is asked.
    let out = room.say("one too many");
    assert_eq!(out.kinds(), ["message.posted", "summary.recorded"]);
    let shown = shown(&mut room);
    assert_eq!(shown.messages.len(), KEEP_MESSAGES + 1);
    let fallen = COMPACT_MESSAGES + 1 - KEEP_MESSAGES;
    assert_eq!(shown.messages[0].text, format!("number {fallen}"));
    let summary = shown.summary.unwrap();
    // The group's first two events are no messages.
    assert_eq!((summary.from_seq, summary.to_seq), (3, fallen as u64 + 2));
    assert_eq!(summary.by, SummaryAuthor::Extractive);
    assert!(
        summary.text.starts_with("@[u:ann]: number 0\n@[u:ann]: number 1\n"),
        "{}",
        summary.text
    );
    assert!(summary.text.ends_with(&format!("number {}", fallen - 1)));
}

#[test]
fn long_messages_fill_the_window_by_what_they_cost() {
    let mut room = Room::with(&[("guide", Mention)]);
    for _ in 0..3 {
        room.say(&"x".repeat(MAX_TEXT_BYTES / 2));
    }
    let shown = shown(&mut room);
    assert_eq!(shown.messages.len(), 2, "half a window is kept at most");
    assert!(shown.summary.unwrap().text.contains("xxx…"));
}

#[test]
fn a_longer_reply_is_shown_as_far_as_it_fits() {
    let mut room = Room::with(&[("guide", Mention), ("scout", Mention)]);
    let run = room.wake("@scout go");
    let long = format!("@guide {}", "€".repeat((MAX_REPLY_BYTES - 8) / 3));
    let calls = room.reply(&run, &long).invocations();
    let shown = &calls[0].request.messages;
    assert_eq!(shown.len(), 1);
    assert!(long.starts_with(&shown[0].text), "it is cut between characters");
    assert!((CONTEXT_TOKENS - 1..=CONTEXT_TOKENS).contains(&tokens(shown)), "{}", tokens(shown));
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
    assert!(request.messages.len() <= CONTEXT_MESSAGES);
    assert_eq!(request.messages[0].text, "@guide two");
    assert_eq!(request.messages[0].message_id, request.trigger);
    assert_eq!(request.messages.last().unwrap().text, "done");

    let awaited = |room: &Room| {
        let snapshot: serde_json::Value =
            serde_json::from_slice(&room.controller.snapshot().unwrap()).unwrap();
        snapshot["state"]["awaited"].as_array().unwrap().len()
    };
    assert_eq!(awaited(&room), 1);
    room.reply(&request.run_id, "done too");
    assert_eq!(awaited(&room), 0, "what no run needs is forgotten");
}

#[test]
fn a_group_without_agents_keeps_a_window_for_one_that_may_come() {
    let mut room = Room::new();
    room.attach("c1", "ann").accepted();
    for number in 0..2 * COMPACT_MESSAGES {
        assert_eq!(room.say(&format!("number {number}")).kinds(), ["message.posted"]);
    }
    room.configure(&[("guide", Mention)]);
    let shown = shown(&mut room);
    assert_eq!(shown.messages.last().unwrap().text, "@guide hi");
    assert!(shown.messages.len() >= KEEP_MESSAGES, "{}", shown.messages.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is written: the window is within its bounds, two calls in a row begin with the same
    /// messages unless a step of the window lies between, and no message is lost between summary and
    /// window.
    #[test]
    fn the_window_is_bounded_and_moves_in_steps(
        texts in prop::collection::vec((0..4_usize, prop_oneof![3 => 1..100_usize, 1 => 1..6_000_usize]), 20..160)
    ) {
        let mut room = Room::with(&[("guide", Auto)]);
        let mut before: Option<InvokeRequest> = None;
        for (kind, len) in texts {
            let text = ["x", "é", "€ ", "word "][kind].repeat(len);
            room.attach("c1", "ann").accepted();
            let calls = room.say(&text).invocations();
            let Some(call) = calls.into_iter().next() else { continue };
            let request = call.request;
            prop_assert!(request.messages.len() <= CONTEXT_MESSAGES);
            prop_assert!(tokens(&request.messages) <= CONTEXT_TOKENS);
            let ids = |request: &InvokeRequest| -> Vec<_> {
                request.messages.iter().map(|message| message.message_id.clone()).collect()
            };
            if let Some(before) = before.filter(|before| before.summary == request.summary) {
                prop_assert!(ids(&request).starts_with(&ids(&before)));
            }
            room.reply(&request.run_id, "yes");
            room.after(convene_model::limits::AGENT_COOLDOWN);
            before = Some(request);
        }
        let posted = room.log.iter().filter(|event| {
            matches!(event.kind, convene_model::event::EventKind::MessagePosted(_))
        });
        let upto = room.log.iter().rev().find_map(|event| match &event.kind {
            convene_model::event::EventKind::SummaryRecorded(summary) => Some(summary.to_seq),
            _ => None,
        });
        let kept = posted.filter(|event| Some(event.seq) > upto).count();
        let snapshot: serde_json::Value =
            serde_json::from_slice(&room.controller.snapshot().unwrap()).unwrap();
        prop_assert_eq!(snapshot["state"]["window"].as_array().unwrap().len(), kept);
    }
}
