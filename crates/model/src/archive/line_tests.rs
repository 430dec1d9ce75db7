//! What the lines of a snapshot read back as, and what is refused.

use super::*;
use crate::{
    MessageId, RunId, Timestamp, UserId,
    event::{Author, Event, EventKind, Posted, RunFinished, RunStatus},
    record::CHAIN_START,
};

fn posted(text: &str) -> Posted {
    let message_id = MessageId::new("m1").unwrap();
    Posted {
        root: message_id.clone(),
        message_id,
        author: Author::User(UserId::new("u1").unwrap()),
        hop: 0,
        nth: 1,
        reply_to: None,
        run_id: None,
        mentions: vec![],
        text: text.into(),
    }
}

fn record(text: &str) -> Record {
    let at = Timestamp::from_millis(1_732_100_000_000);
    Record::encode(&Event { seq: 7, at, kind: EventKind::MessagePosted(posted(text)) })
}

fn lines() -> Vec<(Line, LineKind)> {
    let at = Timestamp::from_millis(5);
    let header = Header {
        format: 1,
        group_id: GroupId::new("g1").unwrap(),
        org_id: OrgId::new("o1").unwrap(),
        archive_id: ArchiveId::new("a1").unwrap(),
        epoch: 2,
        history: HistoryId::new("h1").unwrap(),
        history_mode: HistoryMode::Internal,
        first_seq: 1,
        last_seq: 7,
        chain: Digest([1; 32]),
    };
    let message = MessageLine {
        seq: 7,
        message: Message {
            seq: 7,
            at,
            posted: posted("two\nlines, \"quoted\""),
            edited_at: Some(at),
            deleted: false,
            reactions: vec![],
        },
        answers: Some(Excerpt {
            message_id: MessageId::new("m0").unwrap(),
            seq: 3,
            author: Author::User(UserId::new("u2").unwrap()),
            text: "before".into(),
            deleted: false,
        }),
    };
    let finished = RunFinished {
        run_id: RunId::new("r1").unwrap(),
        attempt: 1,
        agent_id: crate::AgentId::new("ag1").unwrap(),
        trigger: MessageId::new("m1").unwrap(),
        status: RunStatus::Interrupted,
        message_id: None,
        code: None,
        detail: None,
        usage: None,
        reservation: None,
    };
    let trailer = Trailer { messages: 1, runs: 1, events: 7, chain: Digest([1; 32]) };
    let state = |bytes: &'static [u8]| Line::State(StateLine { seq: 7, bytes: bytes.into() });
    vec![
        (Line::Header(header), LineKind::Header),
        (state(br#"{"format":1,"state":{"a":[1,2]}}"#), LineKind::State(7)),
        (state(b"\x00\xffnot json"), LineKind::State(7)),
        (state(b"{\"a\":\n1}"), LineKind::State(7)),
        (state(b" {} "), LineKind::State(7)),
        (Line::Message(message), LineKind::Message(7)),
        (Line::Run(RunLine { seq: 9, run: FinishedRun::new(9, at, finished) }), LineKind::Run(9)),
        (Line::Event(record("hi")), LineKind::Event(7)),
        (Line::Event(record("secret").erase()), LineKind::Erased(7)),
        (Line::Trailer(trailer), LineKind::Trailer),
    ]
}

#[test]
fn each_line_reads_back_and_is_known_by_its_beginning() {
    for (line, kind) in lines() {
        let bytes = line.encode();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1, "{bytes:?}");
        assert_eq!(LineKind::of(&bytes), Ok(kind), "{bytes:?}");
        assert_eq!(Line::parse(&bytes).as_ref(), Ok(&line), "{bytes:?}");
        assert_eq!(Line::parse(&bytes).unwrap().encode(), bytes);
    }
}

#[test]
fn an_event_line_is_the_frame_that_is_stored() {
    let record = record("hi");
    let line = Line::Event(record.clone()).encode();
    assert_eq!(&line[..line.len() - 1], &record.body[..]);
}

#[test]
fn an_erased_event_keeps_its_place_in_the_chain() {
    let line = Line::Event(record("secret").erase()).encode();
    assert!(!String::from_utf8_lossy(&line).contains("secret"));
    let Line::Event(back) = Line::parse(&line).unwrap() else { panic!("an event comes back") };
    assert_eq!(back.chain(&CHAIN_START), record("secret").chain(&CHAIN_START));
}

#[test]
fn what_is_no_line_is_refused() {
    for bad in [
        "",
        "{}",
        "[]",
        r#"{"type":"other","seq":1}"#,
        r#"{"type":"event"}"#,
        r#"{"type":"event","seq":x}"#,
        r#"{"type":"state","seq":1}"#,
        r#"{"type":"state","seq":1,"state":{},"base64":""}"#,
        r#"{"type":"trailer","messages":1}"#,
        r#"{"type":"erased","digest":"ab","event":{}}"#,
        r#"{"type":"message","seq":1,"message":{}}"#,
    ] {
        assert!(Line::parse(&Bytes::from_static(bad.as_bytes())).is_err(), "{bad}");
    }
    let cut = Line::Event(record("secret").erase()).encode();
    assert!(Line::parse(&cut.slice(..cut.len() - 2)).is_err());
    let long = vec![b' '; MAX_ARCHIVE_LINE_BYTES + 1];
    assert_eq!(LineKind::of(&long), Err(LineError::TooLong(long.len())));
    assert_eq!(LineKind::of(&long[1..]), Err(LineError::Unknown));
}

#[test]
fn a_body_splits_into_whole_lines_only() {
    let split_of = |body: &'static [u8]| {
        split(&Bytes::from_static(body)).map(|lines| lines.collect::<Vec<_>>())
    };
    assert_eq!(split_of(b"").unwrap(), Vec::<Bytes>::new());
    assert_eq!(split_of(b"a\n\nbc\n").unwrap(), ["a", "", "bc"]);
    assert!(split_of(b"a\nb").is_err());
}
