//! Messages: written once for each id, within limits, by who is attached.

use convene_group_controller::{Input, Post};
use convene_model::{
    Code, Role,
    event::{Author, TriggerPolicy::Mention, WakeReason},
    frame::GroupFrame,
    limits::{MAX_MENTIONS, MAX_TEXT_BYTES},
};

use crate::harness::{Out, Room, Verdict, id, on};

fn post(room: &mut Room, conn: &str, message_id: &str, text: &str) -> Out {
    room.post(conn, message_id, text)
}

#[test]
fn a_post_is_an_event_with_its_own_root_and_its_author_is_told_the_number() {
    let mut room = Room::with(&[]);
    let out = post(&mut room, "c1", "m1", "hi").accepted();
    let posted = &out.posted()[0];
    assert_eq!((posted.author.clone(), posted.text.as_str()), (Author::User(id("ann")), "hi"));
    assert_eq!((posted.root.as_str(), posted.hop, &posted.run_id), ("m1", 0, &None));
    let ok = GroupFrame::Ok { r#ref: id("po"), seq: Some(room.seq()), message_id: Some(id("m1")) };
    assert_eq!(out.one_to(&on("c1")), ok);
}

#[test]
fn a_repeat_of_the_same_content_returns_the_first_number_also_after_a_restart() {
    let mut room = Room::with(&[("guide", Mention)]);
    let first = post(&mut room, "c1", "m1", "@guide hi").accepted().ok_seq(&on("c1"));
    room.say("something else");
    let again = post(&mut room, "c1", "m1", "@guide hi").accepted();
    assert_eq!((again.ok_seq(&on("c1")), again.0.events.len()), (first, 0));
    room.crash();
    room.attach("c7", "ann").accepted();
    let again = post(&mut room, "c7", "m1", "@guide hi").accepted();
    assert_eq!((again.ok_seq(&on("c7")), again.0.events.len()), (first, 0));
}

#[test]
fn the_same_id_for_another_text_author_or_question_is_refused() {
    let mut room = Room::with(&[]);
    room.attach("c2", "bob").accepted();
    post(&mut room, "c1", "m0", "first").accepted();
    post(&mut room, "c1", "m1", "hi").accepted();
    post(&mut room, "c1", "m1", "hi!").refused_to(&on("c1"), Code::MessageIdReused);
    post(&mut room, "c2", "m1", "hi").refused_to(&on("c2"), Code::MessageIdReused);
    let answer = Post { reply_to: Some(id("m0")), ..room.post_of("c1", "m1", "hi") };
    room.step(Input::Post(answer)).refused_to(&on("c1"), Code::MessageIdReused);
}

#[test]
fn a_text_has_one_to_so_many_bytes() {
    let mut room = Room::with(&[]);
    post(&mut room, "c1", "m1", &"x".repeat(MAX_TEXT_BYTES + 1))
        .refused_to(&on("c1"), Code::TooLarge);
    post(&mut room, "c1", "m1", &"x".repeat(MAX_TEXT_BYTES)).accepted();
    for empty in ["", " \n\t"] {
        post(&mut room, "c1", "m2", empty).refused_to(&on("c1"), Code::ValidationFailed);
    }
    post(&mut room, "c1", "m2", "x").accepted();
}

#[test]
fn a_message_mentions_at_most_so_many() {
    let mut room = Room::with(&[]);
    let mentioning = |room: &Room, count: usize| {
        let mentions = Some((0..count).map(|index| id(format!("u{index}"))).collect());
        Input::Post(Post { mentions, ..room.post_of("c1", "m1", "hi") })
    };
    let input = mentioning(&room, MAX_MENTIONS + 1);
    room.step(input).refused_to(&on("c1"), Code::ValidationFailed);
    let input = mentioning(&room, MAX_MENTIONS);
    assert_eq!(room.step(input).accepted().posted()[0].mentions.len(), MAX_MENTIONS);
}

#[test]
fn matching_names_finds_at_most_as_many_as_may_be_mentioned() {
    let names: Vec<String> = (0..MAX_MENTIONS + 5).map(|index| format!("a{index}")).collect();
    let agents: Vec<_> = names.iter().map(|name| (name.as_str(), Mention)).collect();
    let mut room = Room::with(&agents);
    let text: Vec<String> = names.iter().map(|name| format!("@{name}")).collect();
    let posted = post(&mut room, "c1", "m1", &text.join(" ")).accepted().posted();
    assert_eq!(posted[0].mentions.len(), MAX_MENTIONS);
}

#[test]
fn ids_of_replies_belong_to_agents() {
    let mut room = Room::with(&[]);
    post(&mut room, "c1", "run_r3-0", "hi").refused_to(&on("c1"), Code::ValidationFailed);
    post(&mut room, "c1", "runner", "hi").accepted();
}

#[test]
fn an_answer_needs_a_message_that_exists() {
    let mut room = Room::with(&[]);
    let answer = |room: &Room| Input::Post(room.reply_of("c1", "m1", "yes", "m0"));
    room.step(answer(&room)).refused_to(&on("c1"), Code::MessageNotFound);
    room.post("c1", "m0", "is it?").accepted();
    let out = room.step(answer(&room)).accepted();
    assert_eq!(out.posted()[0].reply_to, Some(id("m0")));

    room.delete("c1", "m0").accepted();
    let out = room.step(answer(&room)).accepted();
    assert_eq!(out.0.events, [], "a repeat is a repeat, whatever became of the question");
    let late = room.reply_of("c1", "m2", "yes!", "m0");
    room.step(Input::Post(late)).refused_to(&on("c1"), Code::MessageNotFound);
}

#[test]
fn only_who_is_attached_posts() {
    let mut room = Room::with(&[]);
    post(&mut room, "c2", "m1", "hi").refused_to(&on("c2"), Code::NotAttached);
}

#[test]
fn a_program_in_the_role_of_an_agent_opens_no_root() {
    let mut room = Room::with(&[("guide", Mention)]);
    let mut access = room.access("bot");
    access.claims.role = Role::Agent;
    room.attach_with(on("c2"), access, None).accepted();
    post(&mut room, "c2", "m1", "@guide hi").refused_to(&on("c2"), Code::Forbidden);
}

#[test]
fn named_mentions_count_and_the_text_does_not() {
    let mut room = Room::with(&[("guide", Mention), ("scout", Mention)]);
    let named = Post {
        mentions: Some(vec![id("scout"), id("bob")]),
        ..room.post_of("c1", "m1", "@guide hi")
    };
    let out = room.step(Input::Post(named)).accepted();
    assert_eq!(out.posted()[0].mentions, [id("scout"), id("bob")]);
    assert_eq!(out.decided(), [("scout".into(), Verdict::Wakes(WakeReason::Mention))]);

    let nobody = Post { mentions: Some(vec![]), ..room.post_of("c1", "m2", "@guide hi") };
    assert_eq!(room.step(Input::Post(nobody)).accepted().decided(), []);

    let out = post(&mut room, "c1", "m3", "hi @Guide").accepted();
    assert_eq!(out.posted()[0].mentions, [id("guide")]);
    assert_eq!(out.decided(), [("guide".into(), Verdict::Wakes(WakeReason::Mention))]);
}
