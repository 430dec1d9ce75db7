//! Which agents a message wakes: policy × mentioned × author × paused × cooldown × rounds.

use std::time::Duration;

use convene_group_controller::Input;
use convene_model::{
    event::{
        SuppressReason::{self, Cooldown, MaxRounds, Paused, Policy},
        TriggerPolicy::{self, Auto, Discussion, Mention, Off},
        WakeReason,
    },
    limits::{AGENT_COOLDOWN, MAX_ROUNDS},
};

use crate::harness::{
    Room,
    Verdict::{self, Not, Wakes},
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    Human,
    /// A human who answers a message of the agent in question.
    Answering,
    /// An agent's reply so many hops from the human message.
    Agent(u32),
}

#[derive(Debug, Clone, Copy)]
struct Case {
    policy: TriggerPolicy,
    mentioned: bool,
    by: By,
    paused: bool,
    cooling: bool,
}

/// What the rules of DESIGN.md say, written down apart from the code.
fn expected(case: Case) -> Option<Verdict> {
    let reason = match (case.by, case.mentioned, case.policy) {
        (By::Human | By::Answering, true, _) => WakeReason::Mention,
        (By::Answering, false, _) => WakeReason::Reply,
        (By::Human, false, Auto | Discussion) => WakeReason::Auto,
        (By::Agent(_), true, _) | (By::Agent(_), false, Discussion) => WakeReason::Discussion,
        (By::Human, false, Off | Mention) | (By::Agent(_), false, Off | Mention | Auto) => {
            return None;
        }
    };
    let not = |reason: SuppressReason| Some(Not(reason));
    if case.policy == Off {
        return not(Policy);
    }
    if case.paused {
        return not(Paused);
    }
    match (reason, case.by) {
        (WakeReason::Mention | WakeReason::Reply | WakeReason::Continue | WakeReason::Retry, _) => {
            Some(Wakes(reason))
        }
        (_, By::Agent(hop)) if hop >= MAX_ROUNDS => not(MaxRounds),
        (WakeReason::Auto | WakeReason::Discussion, _) if case.cooling => not(Cooldown),
        (WakeReason::Auto | WakeReason::Discussion, _) => Some(Wakes(reason)),
    }
}

/// Brings a room into the case's situation and says what the deciding message decides of `it`.
fn decided(case: Case) -> Option<Verdict> {
    // `it` is the agent in question, the others write; `chain` never wakes anybody by itself.
    let others = [("one", Mention), ("two", Mention)];
    let agents = |policy| -> Vec<_> { others.into_iter().chain([("it", policy)]).collect() };
    let mut room = Room::with(&agents(Mention));
    let it = if case.mentioned { "@it" } else { "it" };

    let answered = (case.by == By::Answering).then(|| {
        let run = room.wake("@it hello");
        room.reply(&run, "hello").posted()[0].message_id.to_string()
    });
    // The reply before the deciding one is as many hops away as it takes.
    let writer = match case.by {
        By::Human | By::Answering => None,
        By::Agent(1) => Some(room.wake("@one go")),
        By::Agent(2) => {
            let one = room.wake("@one go");
            let out = room.reply(&one, "@two go on");
            Some(out.invocations()[0].request.run_id.clone())
        }
        By::Agent(other) => panic!("no message is {other} hops away"),
    };
    if case.cooling {
        let run = room.wake("@it warm up");
        room.reply(&run, "done");
    } else {
        room.after(AGENT_COOLDOWN);
    }
    room.configure(&agents(case.policy));
    if case.paused {
        room.pause(true);
    }
    let text = format!("{it}, say something");
    let out = match (writer, answered) {
        (None, None) => room.say(&text),
        (None, Some(to)) => room.step(Input::Post(room.reply_of("c1", "last", &text, &to))),
        (Some(run), _) => room.reply(&run, &text),
    };
    let of_it = out.decided().into_iter().filter(|(agent, _)| agent == "it");
    let of_it: Vec<Verdict> = of_it.map(|(_, verdict)| verdict).collect();
    assert!(of_it.len() <= 1, "{of_it:?}");
    of_it.first().copied()
}

#[test]
fn every_case_is_decided_as_the_rules_say() {
    let mut cases = 0;
    for policy in TriggerPolicy::ALL {
        for by in [By::Human, By::Answering, By::Agent(1), By::Agent(2)] {
            for (mentioned, paused, cooling) in (0..8).map(|n| (n & 1 > 0, n & 2 > 0, n & 4 > 0)) {
                let case = Case { policy, mentioned, by, paused, cooling };
                assert_eq!(decided(case), expected(case), "{case:?}");
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 128);
}

#[test]
fn the_cooldown_ends_to_the_millisecond() {
    for (waited, verdict) in [
        (AGENT_COOLDOWN.saturating_sub(Duration::from_millis(1)), Not(Cooldown)),
        (AGENT_COOLDOWN, Wakes(WakeReason::Auto)),
    ] {
        let mut room = Room::with(&[("it", Auto)]);
        let run = room.wake("hello");
        room.reply(&run, "hi");
        let out = room.after(waited).say("hello again");
        assert_eq!(out.decided(), [("it".into(), verdict)]);
    }
}

#[test]
fn an_agent_that_mentions_itself_does_not_wake_itself() {
    let mut room = Room::with(&[("it", Auto)]);
    let run = room.wake("@it hello");
    let out = room.after(AGENT_COOLDOWN).reply(&run, "I am @it");
    assert_eq!(out.decided(), []);
}

#[test]
fn who_answers_one_agent_and_mentions_another_means_the_other() {
    let mut room = Room::with(&[("one", Mention), ("two", Mention)]);
    let run = room.wake("@one hello");
    let reply = room.reply(&run, "hello").posted()[0].message_id.to_string();
    for (text, expected) in [
        ("what do you think, @two?", ("two", WakeReason::Mention)),
        ("what do you think, @nobody?", ("one", WakeReason::Reply)),
        ("what do you think, @one?", ("one", WakeReason::Mention)),
    ] {
        let post = room.reply_of("c1", &format!("m{}", room.seq()), text, &reply);
        let out = room.step(Input::Post(post)).accepted();
        assert_eq!(out.decided(), [(expected.0.into(), Wakes(expected.1))], "{text}");
    }
}

#[test]
fn an_answer_to_a_person_wakes_nobody_by_itself() {
    let mut room = Room::with(&[("one", Mention)]);
    room.post("c1", "m1", "hello").accepted();
    let out = room.step(Input::Post(room.reply_of("c1", "m2", "hello yourself", "m1"))).accepted();
    assert_eq!(out.decided(), []);
}

#[test]
fn a_message_that_concerns_no_agent_leaves_no_decision() {
    let mut room = Room::with(&[("it", Mention), ("off", Off)]);
    assert_eq!(room.say("hello").kinds(), ["message.posted"]);
}

#[test]
fn one_decision_lists_each_agent_in_question_in_the_commit_of_the_message() {
    let mut room = Room::with(&[("a", Auto), ("b", Mention), ("c", Off), ("d", Mention)]);
    let out = room.say("@b and @c");
    assert_eq!(out.kinds(), ["message.posted", "trigger.decided", "run.started", "run.started"]);
    assert_eq!(
        out.decided(),
        [
            ("a".into(), Wakes(WakeReason::Auto)),
            ("b".into(), Wakes(WakeReason::Mention)),
            ("c".into(), Not(Policy)),
        ]
    );
}

#[test]
fn a_chain_keeps_its_root_and_ends_after_the_last_round() {
    let mut room = Room::with(&[("one", Mention), ("two", Mention), ("three", Mention)]);
    let one = room.wake("@one go");
    let root = room.log.iter().rev().find_map(|event| match &event.kind {
        convene_model::event::EventKind::MessagePosted(posted) => Some(posted.message_id.clone()),
        _ => None,
    });
    let out = room.reply(&one, "@two, over to you");
    assert_eq!((out.posted()[0].hop, Some(&out.posted()[0].root)), (1, root.as_ref()));
    let two = out.invocations()[0].request.run_id.clone();
    let out = room.reply(&two, "@three, your turn");
    assert_eq!((out.posted()[0].hop, Some(&out.posted()[0].root)), (MAX_ROUNDS, root.as_ref()));
    assert_eq!(out.decided(), [("three".into(), Not(MaxRounds))]);
    assert_eq!(out.called(), [""; 0]);
}

#[test]
fn what_was_cut_short_wakes_nobody() {
    let mut room = Room::with(&[("one", Mention), ("two", Mention)]);
    let one = room.wake("@one go");
    room.text(&one, 1, 0, "@two, could you");
    let out = room.cancel(&one).accepted();
    assert_eq!(out.posted()[0].text, "@two, could you");
    assert_eq!(out.decided(), []);
}
