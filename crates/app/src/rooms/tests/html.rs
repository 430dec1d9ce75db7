//! Where `html` goes and where it does not.

use convene_model::history::RawHistoryPage;

use super::*;
use crate::rooms::WithHtml;

fn shout(text: &str) -> String {
    format!("<b>{}</b>", text.to_uppercase())
}

fn posted(seq: u64, text: &str) -> Bytes {
    let text = serde_json::to_string(text).unwrap();
    format!(
        r#"{{"type":"event","seq":{seq},"at":17,"kind":"message.posted","message_id":"m{seq}","text":{text}}}"#
    )
    .into()
}

#[test]
fn a_fragment_stands_behind_the_text_and_is_escaped() {
    let html = Fragments::new(shout).html(&posted(1, "a \"b\"\n{}"));
    let value: serde_json::Value = serde_json::from_slice(&html).unwrap();
    assert_eq!(value["text"], "a \"b\"\n{}");
    assert_eq!(value["html"], "<b>A \"B\"\n{}</b>");
}

#[test]
fn frames_without_a_text_pass_unchanged() {
    let mut fragments = Fragments::new(|_| panic!("there is nothing to render"));
    for frame in [
        r#"{"type":"event","seq":2,"at":1,"kind":"run.finished","text":"x"}"#,
        r#"{"type":"event","seq":2,"at":1,"kind":"message.deleted","message_id":"m"}"#,
        r#"{"type":"event","seq":2,"at":1,"kind":"message.posted_not","text":"x"}"#,
        r#"{"type":"delta","run_id":"r","text":"kind\":\"message.posted"}"#,
        r#"{"type":"event","seq":"#,
        "",
    ] {
        let frame = Bytes::from(frame);
        assert_eq!(fragments.html(&frame), frame);
    }
}

#[test]
fn an_edited_message_is_rendered_too() {
    let frame =
        r#"{"type":"event","seq":2,"at":1,"kind":"message.edited","message_id":"m","text":"x"}"#;
    let html = Fragments::new(shout).html(&frame.into());
    assert!(html.ends_with(br#""text":"x","html":"<b>X</b>"}"#));
}

#[test]
fn a_message_is_rendered_once_and_again_when_its_text_was_erased() {
    static RENDERED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let count = |text: &str| {
        RENDERED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        shout(text)
    };
    let mut fragments = Fragments::new(count);
    let first = fragments.html(&posted(1, "secret"));
    assert_eq!(fragments.html(&posted(1, "secret")), first);
    assert_eq!(RENDERED.load(std::sync::atomic::Ordering::Relaxed), 1);
    let erased = fragments.html(&posted(1, ""));
    assert!(!String::from_utf8_lossy(&erased).to_lowercase().contains("secret"));
}

#[test]
fn only_so_many_fragments_and_bytes_are_kept() {
    let mut fragments = Fragments::new(shout);
    for seq in 1..=MAX_FRAGMENTS as u64 {
        fragments.html(&posted(seq, "x"));
    }
    assert!(fragments.kept.contains_key(&1));
    fragments.html(&posted(MAX_FRAGMENTS as u64 + 1, "x"));
    assert_eq!(fragments.kept.len(), MAX_FRAGMENTS);
    assert!(!fragments.kept.contains_key(&1), "the oldest goes first");
    let mut fragments = Fragments::new(shout);
    for seq in 1..=100 {
        fragments.html(&posted(seq, &"x".repeat(10_000)));
        assert!(fragments.bytes <= MAX_FRAGMENT_BYTES);
    }
    let held: usize = fragments.kept.values().map(Kept::len).sum();
    assert_eq!(fragments.bytes, held);
    assert!(fragments.kept.len() > 10);
}

#[test]
fn a_deleted_message_of_a_page_gets_no_fragment() {
    let page = r#"{"messages":[{"seq":1,"text":"a"},{"seq":2,"text":"","deleted":true}],"runs":[],
        "more_before":false,"head":2,"history":"h"}"#;
    let page: RawHistoryPage = serde_json::from_str(page).unwrap();
    let page = page.with_html(shout);
    assert_eq!(page.messages[0].get(), r#"{"seq":1,"text":"a","html":"<b>A</b>"}"#);
    assert_eq!(page.messages[1].get(), r#"{"seq":2,"text":"","deleted":true}"#);
}
