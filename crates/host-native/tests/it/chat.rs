//! `convene chat` in a real pseudo-terminal, as a person has it, and in a pipe.

use std::{path::Path, process::Stdio};

use convene_testing::{
    browser::free_port,
    client::{PASSWORD, Person},
    process::Launch,
    terminal::Terminal,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
};

use crate::convene;

const SIZE: (u16, u16) = (30, 90);
const ALT_ENTER: &str = "\x1b\r";
const UP: &str = "\x1b[A";
const PAGE_UP: &str = "\x1b[5~";
const END: &str = "\x1b[F";

fn chat(home: &Path, args: &[&str]) -> Terminal {
    let home = home.to_str().unwrap();
    let mut all = vec!["chat"];
    all.extend_from_slice(args);
    Terminal::start(
        Path::new(env!("CARGO_BIN_EXE_convene")),
        &all,
        &[("HOME", home), ("RUST_BACKTRACE", "0")],
        SIZE,
    )
}

/// Signs Ana in at the terminal, without an echo of the password.
fn sign_in(terminal: &mut Terminal) {
    terminal.shows("Mail address:");
    terminal.send("ana@example.org\r");
    terminal.shows("Password:");
    terminal.send(&format!("{PASSWORD}\r"));
}

/// Convene on a port that a restart finds again, Ana with a group, and Ben in it.
async fn world(dir: &Path) -> (Launch, convene_testing::process::Convene, Person, Person, String) {
    let launch = convene(dir).listen(format!("127.0.0.1:{}", free_port()));
    let node = launch.start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let ben = Person::sign_up(&node.url, "Ben").await;
    let org = ana.create_org("Lighthouse").await;
    ana.invite(&org, &ben).await;
    let group = ana.create_group(&org, "Plans").await;
    ana.create_group(&org, "Kitchen").await;
    (launch, node, ana, ben, group)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_chooses_a_group_and_talks_at_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let (_, node, _, ben, group) = world(dir.path()).await;
    let (mut to_ben, _) = ben.attach(&group, None).await;

    let mut terminal = chat(dir.path(), &["--url", &node.url]);
    sign_in(&mut terminal);
    terminal.shows("choose a group");
    terminal.send("pln");
    terminal.until(|screen| screen.contains("Plans") && !screen.contains("Kitchen"));
    terminal.send("\r");
    terminal.shows("● connected");

    terminal.send("Good **morning**");
    terminal.send(ALT_ENTER);
    terminal.send("and `welcome`\r");
    let seen = to_ben.event("message.posted").await;
    assert_eq!(seen["text"], "Good **morning**\nand `welcome`");
    terminal.until(|screen| screen.contains("Good morning") && screen.contains("and `welcome`"));

    to_ben.post("b1", "Hello \x1b[2J from Ben").await;
    let screen = terminal.shows("Hello [2J from Ben");
    assert!(screen.contains("Ana") && screen.contains("Good morning"), "{screen}");

    // The agent is completed by name, and replies word by word.
    terminal.send("@gu\t");
    terminal.shows("> @Guide");
    terminal.send("what can you do?\r");
    let screen = terminal.shows("Guide [agent]");
    assert!(screen.contains("@Guide what can you do?"), "{screen}");
    let finished = to_ben.event("run.finished").await;
    assert_eq!(finished["status"], "completed");
    terminal.until(|screen| !screen.contains("is writing") && !screen.contains("is thinking"));

    terminal.resize((20, 60));
    terminal.until(|screen| screen.lines().count() <= 20 && screen.contains("● connected"));

    // A wrong key loses no text at once; the second one leaves, and the terminal is as it was.
    terminal.send("draft");
    terminal.shows("> draft");
    terminal.send("\x03");
    terminal.shows("once more");
    terminal.send("\x03");
    assert!(terminal.ends());
    assert!(!terminal.is_full_screen());
    let raw = String::from_utf8_lossy(&terminal.raw()).into_owned();
    assert!(!raw.contains(PASSWORD), "the password was never echoed");

    // The next time nothing is asked, and after signing out again.
    let mut terminal = chat(dir.path(), &["--group", "plan"]);
    terminal.shows("what can you do?");
    terminal.send("\x04");
    assert!(terminal.ends());
    let mut out = chat(dir.path(), &["sign-out"]);
    out.shows("Signed out of");
    assert!(out.ends());
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_of_the_server_loses_nothing_that_was_written_at_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let (launch, node, ana, ben, group) = world(dir.path()).await;
    let mut terminal = chat(dir.path(), &["--url", &node.url, "--group", "Plans"]);
    sign_in(&mut terminal);
    terminal.shows("● connected");
    terminal.send("before\r");
    terminal.until(|screen| screen.contains("before") && !screen.contains("sending"));

    node.kill().await;
    terminal.shows("○ reconnecting");
    terminal.send("while it was away\r");
    terminal.shows("sending…");
    let node = launch.start().await;
    terminal.until(|screen| screen.contains("● connected") && !screen.contains("sending"));

    // What others wrote meanwhile comes as well, each once and in order.
    let (mut to_ben, _) = ben.attach(&group, None).await;
    to_ben.post("b1", "welcome back").await;
    let screen = terminal.shows("welcome back");
    let places: Vec<_> = ["before", "while it was away", "welcome back"]
        .map(|text| screen.matches(text).count())
        .to_vec();
    assert_eq!(places, [1, 1, 1], "{screen}");
    let stored = ana.all_messages(&group).await;
    assert_eq!(stored.len(), 3, "{stored:?}");
    terminal.send("\x03");
    assert!(terminal.ends());
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_reworded_answered_reacted_to_and_taken_back_by_commands() {
    let dir = tempfile::tempdir().unwrap();
    let (_, node, ana, ben, group) = world(dir.path()).await;
    let (mut to_ben, _) = ben.attach(&group, None).await;
    let mut terminal = chat(dir.path(), &["--url", &node.url, "--group", "Plans"]);
    sign_in(&mut terminal);
    terminal.shows("● connected");

    terminal.send("we met at noon\r");
    to_ben.event("message.posted").await;
    terminal.until(|screen| screen.contains("noon") && !screen.contains("sending"));
    // The last message comes back into the composer by the arrow, and goes out as it was changed.
    terminal.send(UP);
    terminal.shows("rewording your message");
    terminal.send("\x17one\r");
    assert_eq!(to_ben.event("message.edited").await["text"], "we met at one");
    terminal.shows("we met at one (edited)");

    to_ben.post("b1", "shall we go?").await;
    terminal.shows("shall we go?");
    terminal.send("/react :+1:\r");
    assert_eq!(to_ben.event("reaction.added").await["emoji"], "👍");
    terminal.shows("👍 1*");
    terminal.send("/reply yes, at two\r");
    let answer = to_ben.event("message.posted").await;
    assert_eq!(
        (answer["text"].as_str(), answer["reply_to"].as_str()),
        (Some("yes, at two"), Some("b1"))
    );
    terminal.shows("↪ Ben: shall we go?");

    terminal.send("/delete\r");
    terminal.shows("Take this message back?");
    terminal.send("n");
    terminal.until(|screen| !screen.contains("Take this message back?"));
    terminal.send("/delete\r");
    terminal.shows("Take this message back?");
    terminal.send("y");
    assert_eq!(to_ben.event("message.deleted").await["message_id"], answer["message_id"]);
    terminal.shows("(taken back)");

    terminal.send("/dance\r");
    terminal.shows("There is no /dance");
    terminal.send("\x15/help\r");
    terminal.shows("find messages");
    terminal.send("\x1b");
    terminal.until(|screen| !screen.contains("find messages"));
    terminal.send("\x03");
    assert!(terminal.ends());
    let stored = ana.all_messages(&group).await;
    assert_eq!(stored[0]["text"], "we met at one");
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn older_messages_come_by_scrolling_up() {
    let dir = tempfile::tempdir().unwrap();
    let (_, node, ana, _, group) = world(dir.path()).await;
    let (mut to_ana, _) = ana.attach(&group, None).await;
    for number in 1..=150 {
        to_ana.post(&format!("m{number}"), &format!("message number {number}.")).await;
        to_ana.until(|frame| frame["type"] == "ok").await;
    }
    let mut terminal = chat(dir.path(), &["--url", &node.url, "--group", "Plans"]);
    sign_in(&mut terminal);
    terminal.shows("message number 150.");
    let mut reached = false;
    for _ in 0..40 {
        terminal.send(PAGE_UP);
        std::thread::sleep(std::time::Duration::from_millis(60));
        let screen = terminal.screen();
        reached = screen.contains("where the conversation begins");
        if reached {
            assert!(screen.contains("message number 1."), "{screen}");
            break;
        }
    }
    assert!(reached, "{}", terminal.screen());
    terminal.send(END);
    terminal.shows("message number 150.");
    terminal.send("\x03");
    assert!(terminal.ends());
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_and_a_lost_terminal_leave_it_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (_, node, ..) = world(dir.path()).await;
    let mut terminal = chat(dir.path(), &["--url", &node.url, "--group", "Plans"]);
    sign_in(&mut terminal);
    terminal.shows("● connected");
    assert!(terminal.is_full_screen());
    let pid = terminal.pid().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert!(terminal.ends());
    assert!(!terminal.is_full_screen());
    assert_eq!(node.stop().await, Some(0));
}

/// `convene chat …` in a pipe, as Ana by her token.
fn piped(url: &str, ana: &Person, home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convene"));
    command
        .arg("chat")
        .args(args)
        .env_clear()
        .env("HOME", home)
        .env("TZ", "UTC")
        .env("CONVENE_URL", url)
        .env("CONVENE_TOKEN", &ana.token)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_script_posts_and_follows_a_group_through_pipes() {
    let dir = tempfile::tempdir().unwrap();
    let (launch, node, ana, ben, group) = world(dir.path()).await;

    let mut post = piped(&node.url, &ana, dir.path(), &["--group", "plan", "--post", "--json"]);
    let mut post = post.spawn().unwrap();
    let mut input = post.stdin.take().unwrap();
    input.write_all(b"the build is green, @Ben\n").await.unwrap();
    drop(input);
    let done = post.wait_with_output().await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let answer: Value = serde_json::from_slice(&done.stdout).unwrap();
    let stored = ana.all_messages(&group).await;
    assert_eq!(stored[0]["message_id"], answer["message_id"]);
    assert_eq!(stored[0]["text"], "the build is green, @Ben");
    assert_eq!(stored[0]["mentions"], serde_json::json!([ben.user_id]));

    let follow = |args: &[&str]| {
        let mut all = vec!["--group", group.as_str(), "--tail"];
        all.extend_from_slice(args);
        let mut child = piped(&node.url, &ana, dir.path(), &all).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    };
    let (_readable, mut lines) = follow(&[]);
    let (_json, mut events) = follow(&["--json"]);
    let first = lines.next_line().await.unwrap().unwrap();
    assert!(first.ends_with("Ana: the build is green, @Ben"), "{first}");
    let first: Value = serde_json::from_str(&events.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!((first["author_name"].as_str(), &first["seq"]), (Some("Ana"), &stored[0]["seq"]));

    // A restart in between is no gap and no repetition.
    node.kill().await;
    let node = launch.start().await;
    let (mut to_ben, _) = ben.attach(&group, None).await;
    to_ben.post("b1", "two\nlines").await;
    assert!(lines.next_line().await.unwrap().unwrap().ends_with("Ben: two"));
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "    lines");
    let event: Value = serde_json::from_str(&events.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!(
        (event["kind"].as_str(), event["text"].as_str()),
        (Some("message.posted"), Some("two\nlines"))
    );

    // Without a terminal and without being told what to do, it says what it needs.
    let lost = piped(&node.url, &ana, dir.path(), &["--group", "plan"]).output().await.unwrap();
    assert!(String::from_utf8_lossy(&lost.stderr).contains("--post or --tail"));
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_colours_nothing_is_coloured() {
    let dir = tempfile::tempdir().unwrap();
    let (_, node, ana, _, group) = world(dir.path()).await;
    let (mut to_ana, _) = ana.attach(&group, None).await;
    to_ana.post("m1", "Some `code` here").await;
    let coloured = |raw: &[u8]| {
        let text = String::from_utf8_lossy(raw).into_owned();
        text.contains("\x1b[33m") || text.contains("\x1b[38;")
    };
    for (no_color, expected) in [("", true), ("1", false)] {
        let mut terminal = Terminal::start(
            Path::new(env!("CARGO_BIN_EXE_convene")),
            &["chat", "--group", "Plans"],
            &[
                ("HOME", dir.path().to_str().unwrap()),
                ("NO_COLOR", no_color),
                ("CONVENE_URL", &node.url),
                ("CONVENE_TOKEN", &ana.token),
            ],
            SIZE,
        );
        terminal.until(|screen| screen.contains("Some `code` here") && screen.contains("●"));
        assert_eq!(coloured(&terminal.raw()), expected, "NO_COLOR={no_color:?}");
        terminal.send("\x03");
        assert!(terminal.ends());
    }
    assert_eq!(node.stop().await, Some(0));
}
