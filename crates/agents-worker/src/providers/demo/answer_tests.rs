//! The demo model's answers, sentence by sentence.

use super::*;
use crate::conversation::Line;

fn person(name: &str, text: &str) -> Line {
    Line { speaker: Speaker::Person(name.to_owned()), text: text.to_owned() }
}

fn me(text: &str) -> Line {
    Line { speaker: Speaker::Me, text: text.to_owned() }
}

/// What is answered to the last of `lines`.
fn answer_to(lines: Vec<Line>) -> String {
    answer(&Conversation {
        me: "Aria".to_owned(),
        instructions: String::new(),
        people: vec!["Ana".to_owned(), "Ben".to_owned()],
        agents: vec!["Critic".to_owned()],
        task: crate::conversation::Task::Answer,
        summary: None,
        trigger: lines.len() - 1,
        lines,
        authors: Vec::new(),
    })
}

/// What Ana is answered when the agent has spoken before, so that it does not introduce itself.
fn to_ana(text: &str) -> String {
    answer_to(vec![person("Ben", "good day"), me("Good day."), person("Ana", text)])
}

#[test]
fn the_first_answer_says_that_it_is_a_demo_model_and_later_ones_do_not() {
    let first = answer_to(vec![person("Ana", "@Aria hello")]);
    assert!(first.starts_with("Hello Ana! I am Aria."), "{first}");
    assert!(first.ends_with(HONESTY), "{first}");
    assert!(!to_ana("@Aria 1 + 1").contains("demo model"));
}

#[test]
fn it_lists_what_it_can_do() {
    let help = to_ana("@Aria what can you do?");
    assert!(help.contains("demo model, Ana") && help.contains(ABILITIES), "{help}");
}

#[test]
fn it_summarises_the_last_messages_without_waking_anybody() {
    let lines = vec![
        person("Ana", "Let us meet\non Monday"),
        person("Ben", "@Critic what do you think?"),
        me("Hm."),
        person("Ana", "@Aria summarise"),
    ];
    assert_eq!(
        answer_to(lines.clone()),
        "The last 3 messages by Ana, Ben and Aria, in their own words:\n\n\
         - **Ana**: Let us meet on Monday\n\
         - **Ben**: Critic what do you think?\n\
         - **Aria**: Hm."
    );
    let mut shorter = lines;
    shorter[3].text = "@Aria summary of the last 1".to_owned();
    assert!(answer_to(shorter).starts_with("The last 1 message by Aria"));
}

#[test]
fn it_repeats_what_it_is_told_and_what_was_said() {
    assert_eq!(to_ana("@Aria say: Good night @Critic!"), "Good night Critic!");
    assert_eq!(to_ana("@Aria repeat after me two  words"), "two  words");
    assert_eq!(to_ana("@Aria repeat the last message"), "Ben said:\n\n> good day");
}

#[test]
fn it_remembers_what_was_asked() {
    let lines = |last: &str| {
        vec![
            person("Ana", "@Aria who is here?"),
            me("…"),
            person("Ben", "@Aria 1+1"),
            person("Ana", last),
        ]
    };
    assert_eq!(
        answer_to(lines("@Aria what did I ask you?")),
        "Yes, Ana. You asked me before, latest first:\n\n- “who is here?”"
    );
    assert_eq!(
        answer_to(lines("@Aria hi")),
        "Hello again, Ana! Last time you asked me “who is here?”. What next?"
    );
    let fallback = answer_to(lines("@Aria why is the sky blue?"));
    assert!(fallback.starts_with("I cannot answer that, Ana: I am a demo model"), "{fallback}");
    assert!(fallback.contains("You asked me before about “who is here?”."), "{fallback}");
    assert!(to_ana("@Aria do you remember?").contains("first thing that you ask me, Ana"));
}

#[test]
fn it_counts() {
    assert_eq!(to_ana("@Aria count to 5"), "1, 2, 3, 4, 5.");
    assert_eq!(to_ana("@Aria count from 3 to 1"), "3, 2, 1.");
    let far = to_ana("@Aria count to 1000000");
    assert!(far.contains(" 100 … and so on to 1000000"), "{far}");
    assert!(
        to_ana(&format!("@Aria count from {} to 0", usize::MAX)).ends_with("far enough for me.")
    );
    assert_eq!(
        to_ana("@Aria how many messages?"),
        "I can see 2 messages before yours, 1 of them mine."
    );
    assert_eq!(to_ana("@Aria how many words?"), "I count 4 words in what I can see.");
}

#[test]
fn it_knows_who_is_here() {
    assert_eq!(
        to_ana("@Aria who is here?"),
        "2 people are here:\n\n- Ana\n- Ben\n\nand 2 agents:\n\n- Aria (that is me)\n- Critic"
    );
}

#[test]
fn it_asks_another_agent_and_mentions_it() {
    assert_eq!(
        to_ana("@Aria ask Critic for a view"),
        "@Critic, Ana would like to hear from you: “ask Critic for a view”"
    );
    assert!(!to_ana("@Aria ask Nobody for a view").contains('@'));
}

#[test]
fn another_agent_is_answered_without_being_mentioned() {
    let critic = Line { speaker: Speaker::Agent("Critic".into()), text: "@Aria and you?".into() };
    let answer = answer_to(vec![person("Ana", "hi"), critic]);
    assert!(answer.starts_with("Thank you, Critic. I read: “Aria and you?”."), "{answer}");
    assert!(!answer.contains('@'), "{answer}");
}

#[test]
fn it_does_sums() {
    assert_eq!(to_ana("@Aria what is 12 * (3 + 4)?"), "`12 * (3 + 4)` = **84**");
    assert_eq!(to_ana("@Aria 1/0"), "`1/0` has no value that I could write down.");
    assert!(to_ana("@Aria we meet 2-4 pm at the office").starts_with("I have read"));
}

#[test]
fn it_formats() {
    assert!(to_ana("@Aria show me some Rust code").contains("```rust\nfn main() {"));
    assert!(to_ana("@Aria a table please").contains("| Aria | 1 | 2 |\n| Ben | 1 | 2 |"));
    assert_eq!(to_ana("@Aria markdown"), samples::MARKDOWN);
    assert!(to_ana("@Aria tell me a story").starts_with("**The room that remembered**"));
}

#[test]
fn it_is_polite() {
    assert!(to_ana("@Aria").starts_with("Hello Ana!"));
    assert_eq!(to_ana("thanks @Aria!"), "You are welcome, Ana.");
    assert_eq!(to_ana("@Aria bye"), "Goodbye, Ana. I will be here.");
}

#[test]
fn the_same_question_has_the_same_answer() {
    assert_eq!(to_ana("@Aria the budget is ready"), to_ana("@Aria the budget is ready"));
    assert!(
        to_ana("@Aria the budget is ready").starts_with("I have read “the budget is ready”, Ana.")
    );
}
