//! What becomes of a message: edited, deleted, reacted to, pinned. Who may is in `permissions`.

use convene_model::{
    Code,
    event::{EventKind, RunStatus, TriggerPolicy::Mention},
    frame::GroupFrame,
    limits::{MAX_EMOJI_BYTES, MAX_EMOJIS_PER_MESSAGE, MAX_PINS, MAX_TEXT_BYTES},
};

use crate::harness::{Out, Room, id, lost, on};

/// A room in which ann and bob are attached and ann wrote `m1`.
fn room() -> Room {
    let mut room = Room::with(&[]);
    room.attach("c2", "bob").accepted();
    room.post("c1", "m1", "helo").accepted();
    room
}

/// The command led to one event, and its sender was told the number.
#[track_caller]
fn one(out: Out, kind: &str) -> EventKind {
    let out = out.accepted();
    assert_eq!(out.kinds(), [kind]);
    let GroupFrame::Ok { seq, message_id, .. } = out.one_to(&on("c1")) else { panic!("{out:?}") };
    assert_eq!((seq, message_id), (Some(out.0.events[0].seq), Some(id("m1"))));
    out.0.events[0].kind.clone()
}

/// The command found what it wanted: success, and nothing happened.
#[track_caller]
fn nothing(out: Out) {
    let out = out.accepted();
    assert_eq!(out.kinds(), [""; 0]);
    let GroupFrame::Ok { seq, message_id, .. } = out.one_to(&on("c1")) else { panic!("{out:?}") };
    assert_eq!((seq, message_id), (None, Some(id("m1"))));
}

#[test]
fn an_edit_replaces_the_text_and_a_repeat_changes_nothing() {
    let mut room = room();
    let EventKind::MessageEdited(edited) = one(room.edit("c1", "m1", "hello"), "message.edited")
    else {
        panic!("an edit")
    };
    assert_eq!((edited.text.as_str(), edited.message_seq), ("hello", room.seq() - 1));
    nothing(room.edit("c1", "m1", "hello"));
    room.crash();
    room.attach("c1", "ann").accepted();
    nothing(room.edit("c1", "m1", "hello"));
}

#[test]
fn the_text_of_an_edit_has_the_limits_of_a_post() {
    let mut room = room();
    let to = on("c1");
    room.edit("c1", "m1", &"x".repeat(MAX_TEXT_BYTES + 1)).refused_to(&to, Code::TooLarge);
    room.edit("c1", "m1", " \n").refused_to(&to, Code::ValidationFailed);
    room.edit("c1", "m1", &"x".repeat(MAX_TEXT_BYTES)).accepted();
    room.edit("c1", "m1", "x").accepted();
}

#[test]
fn an_edit_wakes_no_agent_and_rewords_the_message_for_the_agents() {
    let mut room = Room::with(&[("guide", Mention)]);
    room.post("c1", "m1", "hi").accepted();
    let out = room.edit("c1", "m1", "@guide hi").accepted();
    assert_eq!((out.kinds(), out.called()), (vec!["message.edited".into()], vec![]));
    let shown = room.say("@guide now").invocations().remove(0).request.messages;
    assert_eq!(shown[0].text, "@guide hi");

    room.post("c1", "m2", "@guide queued").accepted();
    room.edit("c1", "m2", "@guide reworded").accepted();
    let run = room.controller.state().unwrap().runs()[0].run_id.clone();
    let shown = room.reply(&run, "done").invocations().remove(0).request.messages;
    assert_eq!(shown[2].text, "@guide reworded");
}

#[test]
fn a_deletion_is_recorded_once() {
    let mut room = room();
    one(room.delete("c1", "m1"), "message.deleted");
    nothing(room.delete("c1", "m1"));
    room.crash();
    room.attach("c1", "ann").accepted();
    nothing(room.delete("c1", "m1"));
}

#[test]
fn nothing_but_its_deletion_finds_a_deleted_message_and_nothing_finds_an_unknown_one() {
    let mut room = room();
    room.delete("c1", "m1").accepted();
    let (to, gone) = (on("c1"), Code::MessageNotFound);
    for message in ["m1", "m9"] {
        room.edit("c1", message, "hello").refused_to(&to, gone);
        for on in [true, false] {
            room.react("c1", message, "👍", on).refused_to(&to, gone);
            room.pin("c1", message, on).refused_to(&to, gone);
        }
    }
    room.delete("c1", "m9").refused_to(&to, gone);
}

#[test]
fn a_deleted_message_is_shown_to_no_agent_and_kept_in_no_snapshot() {
    let mut room = Room::with(&[("guide", Mention)]);
    room.post("c1", "m1", "the secret").accepted();
    room.edit("c1", "m1", "the changed secret").accepted();
    room.pin("c1", "m1", true).accepted();
    room.delete("c1", "m1").accepted();
    let shown = room.say("@guide hi").invocations().remove(0).request.messages;
    assert_eq!(shown.len(), 1);
    let snapshot = String::from_utf8(room.controller.snapshot().unwrap()).unwrap();
    assert!(!snapshot.contains("secret") && !snapshot.contains("\"m1\""), "{snapshot}");
}

#[test]
fn a_deletion_takes_the_pin_along() {
    let mut room = room();
    room.pin("c1", "m1", true).accepted();
    assert_eq!(room.delete("c1", "m1").kinds(), ["message.deleted"]);
    assert_eq!(room.controller.state().unwrap().pins(), []);
}

#[test]
fn a_run_that_has_not_begun_ends_with_the_message_that_woke_it() {
    let mut room = Room::with(&[("guide", Mention), ("scout", Mention)]);
    let working = room.wake("@guide one");
    room.post("c1", "m1", "@guide two").accepted();
    let out = room.delete("c1", "m1").accepted();
    assert_eq!(out.kinds(), ["message.deleted", "run.finished"]);
    let finished = out.one_finished();
    assert_eq!((finished.status, finished.attempt), (RunStatus::Cancelled, 0));
    assert_eq!(finished.trigger, id("m1"));
    assert_eq!(room.working_and_waiting(), (vec!["guide".into()], vec![]));
    assert_eq!(room.reply(&working, "done").called(), [""; 0]);
}

#[test]
fn a_run_that_has_begun_goes_on_without_the_message_that_woke_it() {
    let mut room = Room::with(&[("guide", Mention)]);
    room.post("c1", "m1", "@guide hi").accepted();
    let run = room.controller.state().unwrap().runs()[0].run_id.clone();
    assert_eq!(room.delete("c1", "m1").accepted().kinds(), ["message.deleted"]);
    let finished = room.reply(&run, "hello").one_finished();
    assert_eq!(finished.status, RunStatus::Completed);
}

#[test]
fn an_attempt_that_was_lost_is_not_driven_again_for_a_deleted_message() {
    for crash in [true, false] {
        let mut room = Room::with(&[("guide", Mention)]);
        room.post("c1", "m1", "@guide hi").accepted();
        let run = room.controller.state().unwrap().runs()[0].run_id.clone();
        room.delete("c1", "m1").accepted();
        let out = if crash { room.crash() } else { room.end(&run, 1, lost()) };
        let finished = out.one_finished();
        assert_eq!((finished.status, out.called()), (RunStatus::Cancelled, vec![]));
    }
}

#[test]
fn a_reaction_stands_once_for_each_user_and_emoji() {
    let mut room = room();
    one(room.react("c1", "m1", "👍", true), "reaction.added");
    nothing(room.react("c1", "m1", "👍", true));
    room.react("c2", "m1", "👍", true).accepted();
    one(room.react("c1", "m1", "👍🏽", true), "reaction.added");
    one(room.react("c1", "m1", "👍", false), "reaction.removed");
    nothing(room.react("c1", "m1", "👍", false));
    let standing = room.shelf.reactions(&id("m1"));
    let standing: Vec<_> = standing.iter().map(|s| (s.emoji.as_str(), s.authors.len())).collect();
    assert_eq!(standing, [("👍", 1), ("👍🏽", 1)], "bob's stays");
}

#[test]
fn what_looks_the_same_is_the_same_reaction() {
    let mut room = room();
    one(room.react("c1", "m1", "\u{2764}\u{fe0f}", true), "reaction.added");
    nothing(room.react("c1", "m1", "\u{2764}", true));
    one(room.react("c1", "m1", "\u{2764}", false), "reaction.removed");
}

#[test]
fn a_reaction_is_one_emoji() {
    let mut room = room();
    for other in ["", "a", "👍👍", ":+1:", &"👍".repeat(MAX_EMOJI_BYTES)] {
        for on in [true, false] {
            let out = room.react("c1", "m1", other, on);
            out.refused_to(&self::on("c1"), Code::ValidationFailed);
        }
    }
}

#[test]
fn a_message_has_so_many_different_reactions() {
    let mut room = room();
    let emojis: Vec<_> =
        emojis::iter().take(MAX_EMOJIS_PER_MESSAGE + 1).map(|emoji| emoji.as_str()).collect();
    let (one_more, most) = emojis.split_last().unwrap();
    for emoji in most {
        room.react("c1", "m1", emoji, true).accepted();
    }
    room.react("c1", "m1", one_more, true).refused_to(&on("c1"), Code::ValidationFailed);
    room.react("c2", "m1", most[0], true).accepted();
    room.react("c1", "m1", most[0], false).accepted();
    room.react("c1", "m1", one_more, true).refused_to(&on("c1"), Code::ValidationFailed);
    room.react("c2", "m1", most[0], false).accepted();
    room.react("c1", "m1", one_more, true).accepted();
}

#[test]
fn a_pin_stands_once_and_attached_shows_it() {
    let mut room = room();
    one(room.pin("c1", "m1", true), "message.pinned");
    nothing(room.pin("c1", "m1", true));
    room.crash();
    let GroupFrame::Attached { state, .. } = room.attach("c1", "ann").accepted().one_to(&on("c1"))
    else {
        panic!("attached")
    };
    let pins: Vec<_> = state.pins.iter().map(|pin| pin.message_id.as_str()).collect();
    assert_eq!((pins, state.pins[0].at), (vec!["m1"], room.now));
    one(room.pin("c1", "m1", false), "message.unpinned");
    nothing(room.pin("c1", "m1", false));
}

#[test]
fn a_group_has_so_many_pins() {
    let mut room = room();
    for index in 0..=MAX_PINS {
        room.post("c1", &format!("p{index}"), "pin me").accepted();
        let out = room.pin("c1", &format!("p{index}"), true);
        if index < MAX_PINS {
            out.accepted();
        } else {
            out.refused_to(&on("c1"), Code::ValidationFailed);
        }
    }
    assert_eq!(room.pin("c1", "p0", true).accepted().kinds(), [""; 0], "what stands is success");
    room.pin("c1", "p0", false).accepted();
    room.pin("c1", &format!("p{MAX_PINS}"), true).accepted();
}
