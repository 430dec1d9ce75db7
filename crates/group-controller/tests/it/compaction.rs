//! Summaries: who writes them, and what becomes of them when a message of their range changes.

use std::time::Duration;

use convene_group_controller::{Effect, Input, Leave, Summarization};
use convene_model::{
    RunId, Timestamp,
    agents::{ContextMessage, InvokeRequest, SummaryAuthor, Usage},
    event::{Author, EventKind, SummaryRecorded, TriggerPolicy::Mention},
    limits::{
        COMPACT_MESSAGES, CONTEXT_MESSAGES, KEEP_MESSAGES, MAX_SUMMARY_TEXT_BYTES,
        SUMMARY_OUTPUT_TOKENS, SUMMARY_TOKENS,
    },
};

use crate::harness::{Out, Room, id};

impl Out {
    /// The summaries that a model is asked for.
    fn asked(&self) -> Vec<Summarization> {
        let asked = |effect: &Effect| match effect {
            Effect::Summarize(asked) => Some((**asked).clone()),
            _ => None,
        };
        self.0.effects.iter().filter_map(asked).collect()
    }

    /// The ranges that are to be looked up, each with the summary that it is for.
    fn recollections(&self) -> Vec<(u64, u64, u64)> {
        let wanted = |effect: &Effect| match effect {
            Effect::Recollect { id, from_seq, to_seq } => Some((*id, *from_seq, *to_seq)),
            _ => None,
        };
        self.0.effects.iter().filter_map(wanted).collect()
    }

    /// The summaries for which leave is asked.
    fn reserved(&self) -> Vec<RunId> {
        let reserved = self.0.effects.iter().filter_map(|effect| match effect {
            Effect::Reserve { run_id, tokens } => {
                assert!((SUMMARY_OUTPUT_TOKENS..=SUMMARY_TOKENS).contains(tokens));
                Some(run_id.clone())
            }
            _ => None,
        });
        reserved.collect()
    }

    #[track_caller]
    fn recorded(&self) -> SummaryRecorded {
        let recorded = self.0.events.iter().filter_map(|event| match &event.kind {
            EventKind::SummaryRecorded(summary) => Some(summary.clone()),
            _ => None,
        });
        let [one] = &recorded.collect::<Vec<_>>()[..] else { panic!("one summary: {self:?}") };
        one.clone()
    }
}

/// A room whose agent ran and whose window is about to be too large; and the summary asked for.
fn asking() -> (Room, Summarization) {
    let mut room = Room::with(&[("guide", Mention), ("scout", Mention)]);
    let run = room.wake("@guide hello");
    room.reply(&run, "hello ann");
    for number in 2..COMPACT_MESSAGES {
        assert_eq!(room.say(&format!("number {number}")).asked(), []);
    }
    let asked = room.say("one too many").asked();
    assert_eq!(asked.len(), 1);
    (room, asked[0].clone())
}

fn written(asked: &Summarization, text: &str) -> Input {
    let usage = Some(Usage { input_tokens: 9, output_tokens: 3, ..Usage::default() });
    let run_id = asked.request.run_id.clone();
    Input::Summarized { id: asked.id, run_id, text: Some(text.into()), usage }
}

fn failed(asked: &Summarization) -> Input {
    let run_id = asked.request.run_id.clone();
    Input::Summarized { id: asked.id, run_id, text: None, usage: None }
}

fn next_call(room: &mut Room) -> InvokeRequest {
    room.say("@scout hi").invocations().remove(0).request
}

/// A room with a summary by a model, and what the summary covers.
fn summarized() -> (Room, SummaryRecorded) {
    let (mut room, asked) = asking();
    let recorded = room.step(written(&asked, "They greeted each other.")).recorded();
    (room, recorded)
}

/// The id of the message that an event posted.
fn message_at(room: &Room, seq: u64) -> String {
    room.log[seq as usize - 1].kind.message_id().unwrap().to_string()
}

#[test]
fn the_model_of_the_agent_that_ran_last_is_asked_and_the_group_goes_on_meanwhile() {
    let (mut room, asked) = asking();
    assert_eq!((&asked.org_id, &asked.request.agent_id), (&id("o1"), &id("guide")));
    assert_eq!(asked.request.previous, None);
    let fallen = COMPACT_MESSAGES + 1 - KEEP_MESSAGES;
    assert_eq!(asked.request.messages.len(), fallen);
    assert_eq!(asked.request.messages[1].text, "hello ann");
    assert_eq!(next_call(&mut room).messages.len(), COMPACT_MESSAGES + 2);
    assert_eq!(room.say("no second call").asked(), []);

    let recorded = room.step(written(&asked, "They greeted each other.")).recorded();
    assert_eq!(recorded.by, SummaryAuthor::Model);
    assert_eq!(recorded.usage.unwrap().input_tokens, 9);
    assert_eq!(message_at(&room, recorded.from_seq), "m2");
    let last = asked.request.messages.last().unwrap();
    assert_eq!(message_at(&room, recorded.to_seq), last.message_id.to_string());
    let run = room.controller.state().unwrap().runs()[0].run_id.clone();
    room.reply(&run, "hi");
    let call = next_call(&mut room);
    assert_eq!(call.summary.unwrap().text, "They greeted each other.");
    assert_eq!(call.messages.len(), KEEP_MESSAGES + 4);
}

#[test]
fn where_the_model_fails_the_beginnings_of_the_messages_stand_in() {
    for known in [false, true] {
        let (mut room, asked) = asking();
        let fails = if known { written(&asked, " \n") } else { failed(&asked) };
        let recorded = room.step(fails).recorded();
        assert_eq!((recorded.by, recorded.usage.is_some()), (SummaryAuthor::Extractive, known));
        assert!(recorded.text.contains("@[a:guide]: hello ann\n@[u:ann]: number 2"));
    }
}

#[test]
fn a_window_that_cannot_wait_is_summarized_without_the_model() {
    let (mut room, asked) = asking();
    for number in COMPACT_MESSAGES + 1..CONTEXT_MESSAGES {
        let out = room.say(&format!("number {number}"));
        assert_eq!(out.kinds(), ["message.posted"]);
    }
    let recorded = room.say("the last straw").recorded();
    assert_eq!(recorded.by, SummaryAuthor::Extractive);
    let late = room.step(written(&asked, "late"));
    assert_eq!(late.0.events, [], "an answer that nobody waits for changes nothing");
}

#[test]
fn a_next_summary_begins_with_the_one_before_and_covers_both_ranges() {
    let (mut room, first) = summarized();
    room.after(Duration::from_secs(1));
    let run = room.wake("@scout go");
    room.reply(&run, "gone");
    let mut asked = Vec::new();
    while asked.is_empty() {
        asked = room.say("on and on").asked();
    }
    assert_eq!(asked[0].request.agent_id, id("scout"), "it ran last");
    assert_eq!(asked[0].request.previous.as_deref(), Some("They greeted each other."));
    let second = room.step(written(&asked[0], "They went on.")).recorded();
    assert_eq!(second.from_seq, first.from_seq);
    assert!(second.to_seq > first.to_seq);
}

#[test]
fn without_a_run_since_the_last_summary_no_model_is_paid_for_the_next() {
    let (mut room, _) = summarized();
    let mut out = room.say("on and on");
    while out.0.events.len() == 1 {
        assert_eq!(out.asked(), []);
        out = room.say("on and on");
    }
    assert_eq!(out.recorded().by, SummaryAuthor::Extractive);
    assert!(out.recorded().text.starts_with("They greeted each other.\n"));
}

#[test]
fn a_deleted_message_is_gone_from_the_summary_at_once_and_it_is_written_anew() {
    let (mut room, recorded) = summarized();
    room.after(Duration::from_secs(1));
    room.say("@guide hold on");
    let gone = message_at(&room, recorded.to_seq);
    let out = room.delete("c1", &gone).accepted();
    assert_eq!(out.recollections().len(), 1);
    let (number, from_seq, to_seq) = out.recollections()[0];
    assert_eq!((from_seq, to_seq), (recorded.from_seq, recorded.to_seq));
    let stored = String::from_utf8(room.controller.snapshot().unwrap()).unwrap();
    assert!(!stored.contains("They greeted"), "nothing of it is stored");
    assert_eq!(next_call(&mut room).summary, None);

    let author = Author::User(id("ann"));
    let kept = ContextMessage { message_id: id("m2"), author, text: "hello".into() };
    let out = room.step(Input::Recollected { id: number, messages: vec![(from_seq, kept)] });
    let asked = out.asked();
    assert_eq!((asked[0].request.previous.as_deref(), asked[0].request.messages.len()), (None, 1));
    let anew = room.step(written(&asked[0], "Ann said hello.")).recorded();
    assert_eq!((anew.from_seq, anew.to_seq), (from_seq, to_seq));
    assert_eq!(anew.text, "Ann said hello.");
}

#[test]
fn an_edit_in_the_range_has_the_summary_written_anew_and_one_outside_does_not() {
    let (mut room, recorded) = summarized();
    let inside = message_at(&room, recorded.to_seq);
    let outside = message_at(&room, room.seq() - 1);
    assert_eq!(room.edit("c1", &outside, "other").accepted().recollections(), []);
    assert_eq!(room.edit("c1", &inside, "other").accepted().recollections().len(), 1);
    let next = room.edit("c1", &inside, "yet another").accepted().recollections();
    assert_eq!(next.len(), 1, "what is looked up already may have the former text");
    let late = Input::Recollected { id: next[0].0 - 1, messages: Vec::new() };
    assert_eq!(room.step(late).0.events, []);
    let out = room.step(Input::Recollected { id: next[0].0, messages: Vec::new() });
    assert!(!out.recorded().text.is_empty(), "nothing is left of the range");
    assert_eq!(room.say("more").recollections(), []);
}

#[test]
fn a_change_while_the_model_writes_has_it_asked_again() {
    let (mut room, asked) = asking();
    let message_id = asked.request.messages[3].message_id.to_string();
    let out = room.edit("c1", &message_id, "changed").accepted();
    let again = out.asked();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].request.messages[3].text, "changed");
    assert_eq!(room.step(written(&asked, "of the former text")).0.events, []);
    assert_eq!(room.step(written(&again[0], "of the new text")).recorded().text, "of the new text");
}

#[test]
fn after_a_crash_what_was_under_way_is_asked_for_again() {
    let (mut room, _) = asking();
    assert_eq!(room.crash().asked().len(), 1);
    let (mut room, recorded) = summarized();
    let gone = message_at(&room, recorded.from_seq);
    room.delete("c1", &gone).accepted();
    assert_eq!(room.crash().recollections().len(), 1);
}

#[test]
fn in_a_group_that_stands_still_nothing_comes_of_a_summary() {
    let (mut room, asked) = asking();
    room.step(Input::Freeze { archive_id: id("a1"), epoch: 1 }).accepted();
    assert_eq!(room.step(written(&asked, "late")).0.events, []);
    let (mut room, recorded) = summarized();
    let gone = message_at(&room, recorded.from_seq);
    let (number, ..) = room.delete("c1", &gone).accepted().recollections()[0];
    room.step(Input::Freeze { archive_id: id("a1"), epoch: 1 }).accepted();
    let late = Input::Recollected { id: number, messages: Vec::new() };
    assert_eq!(room.step(late).0.events, []);
}

#[test]
fn a_summary_has_a_bound_whoever_writes_it() {
    let (mut room, asked) = asking();
    let long = "€".repeat(MAX_SUMMARY_TEXT_BYTES);
    let recorded = room.step(written(&asked, &long)).recorded();
    assert!((MAX_SUMMARY_TEXT_BYTES - 2..=MAX_SUMMARY_TEXT_BYTES).contains(&recorded.text.len()));

    let mut room = Room::with(&[("guide", Mention)]);
    let mut last = String::new();
    for number in 0..400 {
        let out = room.say(&format!("number {number} {}", "long and winding ".repeat(20)));
        if out.kinds().len() > 1 {
            last = out.recorded().text;
            assert!(last.len() <= MAX_SUMMARY_TEXT_BYTES);
            assert!(last.starts_with("@[u:ann]: number"), "it begins with a whole line: {last}");
        }
    }
    assert!(last.len() > MAX_SUMMARY_TEXT_BYTES / 2);
}

/// A room as [`asking`] has it whose organization may have a budget, and the name of the summary.
fn asking_leave() -> (Room, RunId) {
    let mut room = Room::with(&[("guide", Mention), ("scout", Mention)]);
    let run = room.wake("@guide hello");
    room.reply(&run, "hello ann");
    room.step(Input::Unlimited { until: Timestamp::ZERO }).accepted();
    for number in 2..COMPACT_MESSAGES {
        room.say(&format!("number {number}"));
    }
    let out = room.say("one too many");
    assert_eq!(out.asked(), [], "no model is asked without leave");
    let [name] = &out.reserved()[..] else { panic!("leave is asked for one: {out:?}") };
    (room, name.clone())
}

fn answer(room: &mut Room, name: &RunId, leave: Leave) -> Out {
    room.step(Input::Reserved { run_id: name.clone(), leave }).accepted()
}

#[test]
fn a_model_writes_with_leave_from_the_budget_and_what_it_used_is_in_the_event() {
    let (mut room, name) = asking_leave();
    assert_eq!(room.say("meanwhile").reserved(), [], "it is asked for once");
    let asked = answer(&mut room, &name, Leave::Granted).asked();
    assert_eq!(asked[0].request.run_id, name);
    let recorded = room.step(written(&asked[0], "They greeted each other.")).recorded();
    assert_eq!((recorded.by, recorded.run_id), (SummaryAuthor::Model, Some(name)));
    assert_eq!(recorded.usage.unwrap().input_tokens, 9);

    let (mut room, name) = asking_leave();
    let asked = answer(&mut room, &name, Leave::Granted).asked();
    let recorded = room.step(failed(&asked[0])).recorded();
    assert_eq!((recorded.by, recorded.run_id), (SummaryAuthor::Extractive, Some(name)));
    assert_eq!(recorded.usage, None, "nobody knows: it is settled in full");
}

#[test]
fn without_leave_the_beginnings_of_the_messages_stand_in_and_no_model_is_paid() {
    for leave in [Leave::Refused, Leave::Unknown] {
        let (mut room, name) = asking_leave();
        let out = answer(&mut room, &name, leave);
        assert_eq!(out.asked(), []);
        let recorded = out.recorded();
        assert_eq!((recorded.by, recorded.run_id), (SummaryAuthor::Extractive, None));
        assert!(recorded.text.contains("@[a:guide]: hello ann"));
        assert_eq!(answer(&mut room, &name, leave).0.events, [], "it is answered once");
    }
}

#[test]
fn a_budget_that_was_used_up_a_moment_ago_is_not_asked_for_a_summary() {
    let mut room = Room::with(&[("guide", Mention)]);
    let run = room.wake("@guide hello");
    room.reply(&run, "hello ann");
    room.step(Input::Unlimited { until: Timestamp::ZERO }).accepted();
    let out = room.say("@guide again");
    let asked = out.0.effects.iter().find_map(|effect| match effect {
        Effect::Reserve { run_id, .. } => Some(run_id.clone()),
        _ => None,
    });
    answer(&mut room, &asked.unwrap(), Leave::Refused);
    let mut out = room.say("on and on");
    while out.0.events.len() == 1 {
        assert_eq!(out.reserved(), []);
        out = room.say("on and on");
    }
    assert_eq!((out.reserved(), out.recorded().by), (vec![], SummaryAuthor::Extractive));
}

/// A message of a person that falls out of the window.
fn fallen(room: &Room) -> String {
    let mut said = room.log.iter().filter_map(|event| match &event.kind {
        EventKind::MessagePosted(posted) if matches!(posted.author, Author::User(_)) => {
            Some(posted.message_id.to_string())
        }
        _ => None,
    });
    said.nth(2).unwrap()
}

#[test]
fn leave_that_nobody_needs_any_more_is_given_back() {
    let unused = |out: &Out, name: &RunId| {
        assert_eq!(out.0.effects, [Effect::Unused { run_id: name.clone() }]);
        assert_eq!(out.0.events, []);
    };
    let (mut room, name) = asking_leave();
    let message = fallen(&room);
    let again = room.edit("c1", &message, "changed").accepted().reserved();
    assert_eq!(again.len(), 1);
    assert_ne!(again[0], name);
    unused(&answer(&mut room, &name, Leave::Granted), &name);
    assert_eq!(answer(&mut room, &again[0], Leave::Granted).asked().len(), 1);

    let (mut room, name) = asking_leave();
    room.step(Input::Freeze { archive_id: id("a1"), epoch: 1 }).accepted();
    unused(&answer(&mut room, &name, Leave::Granted), &name);
}

#[test]
fn what_a_summary_used_that_nobody_wants_any_more_is_told_all_the_same() {
    let (mut room, name) = asking_leave();
    let asked = answer(&mut room, &name, Leave::Granted).asked();
    let message = fallen(&room);
    room.edit("c1", &message, "changed").accepted();
    let out = room.step(written(&asked[0], "of the former text"));
    let usage = Some(Usage { input_tokens: 9, output_tokens: 3, ..Usage::default() });
    assert_eq!(out.0.effects, [Effect::Spent { run_id: name, usage }]);
}
