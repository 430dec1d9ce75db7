//! What a group is filled with before it is archived, restored or removed, and how its whole content is
//! compared with what it was before.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use convene_testing::{client::Socket, conformance::Portal};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

/// The lines of a snapshot by what they are.
type Sections = HashMap<String, Vec<Vec<u8>>>;

/// A word of the group's texts that no file has once the group is gone. Words lie in the index without what
/// they share with the one before, so it is only their end.
pub(crate) const SECRET: &str = "zzyqquux";

/// A group beside the one that it is about.
const OTHER: &str = "other";
/// The deadline of what should happen soon; it only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Activates a group and attaches somebody to it.
pub(crate) async fn enter(portal: &Portal, group: &str, org: &str) -> Socket {
    portal.activate(group, org).await;
    let token = portal.routing_token(group, "u1").await;
    let mut upstream = portal.upstream(group, &token).await.unwrap();
    upstream.send(&json!({"type": "attach", "ref": "a", "conn": "c1", "token": token})).await;
    let attached = upstream.until(|frame| frame["ref"] == "a").await;
    assert_eq!(attached["type"], "attached", "{attached}");
    upstream
}

/// Posts a text and waits until it is durable; its id is the text.
pub(crate) async fn say(upstream: &mut Socket, text: &str) {
    let message_id: String =
        text.chars().take(32).map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    does(upstream, json!({"type": "post", "message_id": message_id, "text": text})).await;
}

async fn does(upstream: &mut Socket, mut frame: Value) {
    frame["ref"] = json!("does");
    frame["conn"] = json!("c1");
    upstream.send(&frame).await;
    let ok = upstream.until(|frame| frame["ref"] == "does").await;
    assert_eq!(ok["type"], "ok", "{ok}");
}

/// Four messages: one edited, one with a reaction and an answer, one taken back, one pinned; another reaction and
/// another pin that came and went. `round` tells one time from another.
pub(crate) async fn lively(upstream: &mut Socket, round: &str) {
    let [one, two, three, four] =
        ["one", "two", "three", "four"].map(|text| format!("{text}{round}{SECRET}"));
    for text in [&one, &two, &three, &four] {
        say(upstream, text).await;
    }
    let answer = format!("answer{round}{SECRET}");
    for frame in [
        json!({"type": "edit", "message_id": two, "text": format!("zwei{SECRET}")}),
        json!({"type": "react", "message_id": three, "emoji": "👍", "on": true}),
        json!({"type": "react", "message_id": one, "emoji": "🎉", "on": true}),
        json!({"type": "react", "message_id": one, "emoji": "🎉", "on": false}),
        json!({"type": "pin", "message_id": three, "on": true}),
        json!({"type": "pin", "message_id": one, "on": true}),
        json!({"type": "pin", "message_id": one, "on": false}),
        json!({"type": "post", "message_id": answer, "text": answer, "reply_to": three}),
        json!({"type": "delete", "message_id": four}),
    ] {
        does(upstream, frame).await;
    }
}

/// Has an agent of the group asked for something: a run begins that the next archive ends at the latest.
pub(crate) async fn asks(portal: &Portal, group: &str, upstream: &mut Socket) {
    let agents = json!([{"agent_id": "a1", "name": "Guide", "trigger": "mention"}]);
    let config = json!({"version": 1, "agents": agents});
    portal.done("PUT", &format!("/infra/groups/{group}/config"), config).await;
    let text = format!("@Guide what is {SECRET}?");
    does(upstream, json!({"type": "post", "message_id": "asked", "text": text})).await;
}

/// Says that a snapshot holds what an earlier one did and no more: messages and runs byte for byte, pins and
/// agents, and the same events, followed by those of being archived and coming back alone.
#[track_caller]
pub(crate) fn same_content(before: &[u8], after: &[u8], when: &str) {
    goes_on_from(before, after, when);
    let (before, after) = (sections(before), sections(after));
    for kind in ["message", "run"] {
        assert_eq!(before[kind].len(), after[kind].len(), "{when}: each {kind} is one of before");
    }
    for line in &after["happened"][before["happened"].len()..] {
        let event: Value = serde_json::from_slice(line).unwrap();
        let kind = event["kind"].as_str().unwrap();
        let of_its_life = ["group.frozen", "group.thawed", "group.restored", "group.epoch_raised"];
        assert!(of_its_life.contains(&kind), "{when}: {event}");
    }
}

/// Says that a snapshot begins with what an earlier one had: messages, runs and events byte for byte. Pins and
/// agents are the same.
#[track_caller]
pub(crate) fn goes_on_from(before: &[u8], after: &[u8], when: &str) {
    let (before, after) = (sections(before), sections(after));
    for (kind, least) in [("message", 2), ("run", 1), ("happened", 2)] {
        assert!(before[kind].len() >= least, "{when}: there is something of {kind} to compare");
        assert!(after[kind].starts_with(&before[kind]), "{when}: each {kind} is as it was");
    }
    let shown = |sections: &Sections| {
        let line: Value = serde_json::from_slice(&sections["state"][0]).unwrap();
        let state = &line["state"]["state"];
        assert_eq!(state["pins"].as_array().map(Vec::len), Some(1), "{state}");
        assert!(state["config"]["agents"].is_array(), "{state}");
        [state["pins"].clone(), state["config"].clone()]
    };
    assert_eq!(shown(&before), shown(&after), "{when}");
}

/// That the lines of a snapshot have everything that [`lively`] and [`asks`] bring about.
#[track_caller]
pub(crate) fn has_everything(lines: &[u8]) {
    let sections = sections(lines);
    let happened: Vec<Value> =
        sections["happened"].iter().map(|line| serde_json::from_slice(line).unwrap()).collect();
    let kinds: Vec<_> = happened
        .iter()
        .map(|line| line["event"]["kind"].as_str().or_else(|| line["kind"].as_str()))
        .collect();
    for kind in [
        "message.posted",
        "message.edited",
        "message.deleted",
        "reaction.added",
        "reaction.removed",
        "message.pinned",
        "message.unpinned",
        "trigger.decided",
        "run.finished",
        "group.configured",
        "group.frozen",
    ] {
        assert!(kinds.contains(&Some(kind)), "{kind} is missing of {kinds:?}");
    }
}

/// The lines of a snapshot by what they are; events whose text was erased among the others.
fn sections(lines: &[u8]) -> Sections {
    let mut sections = Sections::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let parsed: Value = serde_json::from_slice(line).unwrap();
        let kind = match parsed["type"].as_str().unwrap() {
            "event" | "erased" => "happened",
            kind => kind,
        };
        sections.entry(kind.to_owned()).or_default().push(line.to_vec());
    }
    sections
}

/// Waits until the controllers' files have nothing of any group but one more, in which somebody writes: what is
/// only marked as gone goes then.
pub(crate) async fn until_gone(portal: &Portal, org: &str, data: &Path, when: &str) {
    say(&mut enter(portal, OTHER, org).await, "kept").await;
    let gone = async {
        while !(files_with(data, SECRET).is_empty() && rows_but_others(data).is_empty()) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = timeout(PATIENCE, gone).await;
    let left = || (files_with(data, SECRET), rows_but_others(data));
    assert!(waited.is_ok(), "{when}: {:?}", left());
}

/// All files of a data directory with a text somewhere in them.
pub(crate) fn files_with(dir: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        // The ballast has nothing but its size. Files come and go while a process runs.
        } else if path.file_name().is_some_and(|name| name != "ballast")
            && let Ok(bytes) = std::fs::read(&path)
            && bytes.windows(text.len()).any(|part| part.eq_ignore_ascii_case(text.as_bytes()))
        {
            found.push(path);
        }
    }
    found
}

/// What the tables that are read have of any group but the other one.
pub(crate) fn rows_but_others(data: &Path) -> Vec<String> {
    let rooms = rusqlite::Connection::open(data.join("groups/rooms.db")).unwrap();
    rooms.busy_timeout(PATIENCE).unwrap();
    let count = |sql: &str| rooms.query_row::<i64, _, _>(sql, [], |row| row.get(0)).unwrap();
    let tables = [
        "chunks",
        "message_ids",
        "message_changes",
        "snapshots",
        "reactions",
        "agent_events",
        "quarantined_rows",
        "search_groups",
    ];
    let with_key = tables.map(|table| {
        let other = format!("SELECT group_key FROM groups WHERE group_id = '{OTHER}'");
        format!("SELECT count(*) FROM {table} WHERE group_key NOT IN ({other})")
    });
    let named = ["groups", "wipes", "imports"]
        .map(|table| format!("SELECT count(*) FROM {table} WHERE group_id <> '{OTHER}'"));
    with_key.into_iter().chain(named).filter(|sql| count(sql) > 0).collect()
}
