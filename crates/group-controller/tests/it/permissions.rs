//! Who may do what to a message: role × own, another person's or an agent's × command.

use convene_model::{
    Code, Role,
    event::{EventKind, TriggerPolicy::Mention},
};

use crate::harness::{Out, Room, on};

const ROLES: [Role; 4] = [Role::Agent, Role::Member, Role::Admin, Role::Owner];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Whose {
    Own,
    Anothers,
    Agents,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Command {
    Edit,
    Delete,
    React,
    Unreact,
    Pin,
    Unpin,
}

/// What the rules say, written down apart from the code.
fn allowed(role: Role, whose: Whose, command: Command) -> bool {
    match command {
        Command::Edit => whose == Whose::Own,
        Command::Delete => whose == Whose::Own || matches!(role, Role::Owner | Role::Admin),
        Command::React | Command::Unreact | Command::Pin | Command::Unpin => role != Role::Agent,
    }
}

/// A room with a message of each kind, written by `me` on `c2`, by ann, and by an agent. What is to
/// be taken off stands.
fn room(role: Role) -> (Room, String) {
    let mut room = Room::with(&[("guide", Mention)]);
    room.attach("c2", "me").accepted();
    room.post("c1", "anns", "hi").accepted();
    room.post("c2", "mine", "hi").accepted();
    let run = room.wake("@guide hi");
    let reply = room.reply(&run, "hello").posted()[0].message_id.to_string();
    for message in ["anns", "mine", &reply] {
        room.react("c2", message, "👎", true).accepted();
        room.pin("c1", message, true).accepted();
    }
    room.attach_as("c2", "me", role).accepted();
    (room, reply)
}

fn command(room: &mut Room, message: &str, command: Command) -> Out {
    match command {
        Command::Edit => room.edit("c2", message, "something else"),
        Command::Delete => room.delete("c2", message),
        Command::React => room.react("c2", message, "👍", true),
        Command::Unreact => room.react("c2", message, "👎", false),
        Command::Pin => {
            room.pin("c1", message, false).accepted();
            room.pin("c2", message, true)
        }
        Command::Unpin => room.pin("c2", message, false),
    }
}

#[test]
fn every_command_is_allowed_or_forbidden_as_the_rules_say() {
    let mut cases = 0;
    for role in ROLES {
        for whose in [Whose::Own, Whose::Anothers, Whose::Agents] {
            for of in [
                Command::Edit,
                Command::Delete,
                Command::React,
                Command::Unreact,
                Command::Pin,
                Command::Unpin,
            ] {
                let (mut room, reply) = room(role);
                let message = match whose {
                    Whose::Own => "mine",
                    Whose::Anothers => "anns",
                    Whose::Agents => &reply,
                };
                let out = command(&mut room, message, of);
                match allowed(role, whose, of) {
                    true => assert_eq!(out.accepted().0.events.len(), 1, "{role} {whose:?} {of:?}"),
                    false => drop(out.refused_to(&on("c2"), Code::Forbidden)),
                }
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 72);
}

#[test]
fn a_repeat_does_not_say_that_somebody_elses_message_is_gone() {
    let (mut room, _) = room(Role::Member);
    room.delete("c1", "anns").accepted();
    room.delete("c2", "anns").refused_to(&on("c2"), Code::Forbidden);
}

#[test]
fn only_who_is_attached_may_anything() {
    let (mut room, _) = room(Role::Member);
    for of in [Command::Edit, Command::Delete, Command::React, Command::Unpin] {
        let out = match of {
            Command::Edit => room.edit("c3", "mine", "x"),
            Command::Delete => room.delete("c3", "mine"),
            Command::React | Command::Unreact => room.react("c3", "mine", "👍", true),
            Command::Pin | Command::Unpin => room.pin("c3", "mine", false),
        };
        out.refused_to(&on("c3"), Code::NotAttached);
    }
}

#[test]
fn a_change_of_role_holds_from_the_next_command_after_the_attach_that_brings_it() {
    let (mut room, reply) = room(Role::Member);
    room.delete("c2", &reply).refused_to(&on("c2"), Code::Forbidden);
    room.attach_as("c2", "me", Role::Admin).accepted();
    room.delete("c2", &reply).accepted();
    room.attach_as("c2", "me", Role::Agent).accepted();
    room.pin("c2", "anns", false).refused_to(&on("c2"), Code::Forbidden);
    room.post("c2", "m9", "hi").refused_to(&on("c2"), Code::Forbidden);
}

#[test]
fn who_did_it_is_recorded() {
    let (mut room, _) = room(Role::Owner);
    let out = room.delete("c2", "anns").accepted();
    let EventKind::MessageDeleted(deleted) = &out.0.events[0].kind else { panic!("{out:?}") };
    assert_eq!(serde_json::to_value(&deleted.author).unwrap()["id"], "me");
}
