//! What is too large, malformed, of the wrong kind or silent.

use std::time::Duration;

use convene_model::limits::MAX_FRAME_BYTES;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_websockets::Message;

use super::{
    client::{Client, Seen},
    world::World,
};
use crate::rooms::tuning::Tuning;

#[tokio::test]
async fn a_frame_of_exactly_the_limit_is_read() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    let frame = |padding: usize| {
        let text = "x".repeat(padding);
        json!({"type": "post", "ref": "r", "message_id": "m", "text": text}).to_string()
    };
    let padding = MAX_FRAME_BYTES - frame(0).len();
    client.send_raw(Message::text(frame(padding))).await;
    assert_eq!(client.event().await, 1);
}

#[tokio::test]
async fn a_frame_above_the_limit_is_answered_and_closed_with_1009() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    client.send_raw(Message::text("x".repeat(MAX_FRAME_BYTES + 1))).await;
    assert_eq!(client.frame().await["code"], "too_large");
    assert_eq!(client.seen().await, Seen::Closed(1009));
    world.group.until("the detach", |group| group.conns() == 0).await;
    assert_eq!(world.group.head(), 0);
}

#[tokio::test]
async fn a_frame_far_above_the_limit_does_not_lose_its_answer() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    client.send_raw(Message::text("x".repeat(4_000_000))).await;
    assert_eq!(client.frame().await["code"], "too_large");
    assert_eq!(client.seen().await, Seen::Closed(1009));
}

#[tokio::test]
async fn a_binary_message_is_closed_with_1003() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    client.send_raw(Message::binary(&b"{}"[..])).await;
    assert_eq!(client.seen().await, Seen::Closed(1003));
}

#[tokio::test]
async fn text_that_is_not_utf8_is_closed_with_1007() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    // A masked text frame of two bytes with the mask 0, past the library's own check.
    let raw = client.socket.get_mut();
    raw.write_all(&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe]).await.unwrap();
    assert_eq!(client.seen().await, Seen::Closed(1007));
    world.group.until("the detach", |group| group.conns() == 0).await;
}

#[tokio::test]
async fn an_unmasked_frame_is_closed_with_1002() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    client.socket.get_mut().write_all(&[0x81, 2, b'{', b'}']).await.unwrap();
    assert_eq!(client.seen().await, Seen::Closed(1002));
}

#[tokio::test]
async fn frames_that_are_not_understood_are_answered_with_their_ref_and_change_nothing() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    for (frame, r#ref, code) in [
        (r#"{"type":"dance","ref":"1"}"#, json!("1"), "unknown_type"),
        (r#"{"type":"post","ref":"2"}"#, json!("2"), "invalid_frame"),
        (
            r#"{"type":"post","ref":"3","message_id":"m","text":"x","conn":"c2"}"#,
            json!("3"),
            "invalid_frame",
        ),
        (r#"{"type":"attach","ref":"4","token":"t"}"#, json!("4"), "invalid_frame"),
        (
            r#"{"type":"attach","type":"post","ref":"5","message_id":"m","text":"x"}"#,
            json!("5"),
            "invalid_frame",
        ),
        (r#"{"type":"post","ref":"6","message_id":"a b","text":"x"}"#, json!("6"), "invalid_frame"),
        ("[]", json!(null), "invalid_frame"),
        ("{", json!(null), "invalid_frame"),
        ("", json!(null), "invalid_frame"),
    ] {
        client.send_raw(Message::text(frame.to_owned())).await;
        let error = client.frame().await;
        assert_eq!((&error["type"], &error["ref"]), (&json!("error"), &r#ref), "{frame}");
        assert_eq!(error["code"], code, "{frame}");
    }
    assert_eq!(world.group.head(), 0);
    client
        .send_raw(Message::text(
            " \n{\"type\":\"post\",\"ref\":\"7\",\"message_id\":\"m\",\"text\":\"x\"} ",
        ))
        .await;
    assert_eq!(client.event().await, 1, "white space around a frame is none of its faults");
}

#[tokio::test]
async fn a_message_in_pieces_is_one_message_and_a_ping_between_them_is_answered() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    let text = br#"{"type":"post","ref":"r","message_id":"m","text":"x"}"#;
    let (first, second) = text.split_at(20);
    let mut bytes = vec![0x01, 0x80 | first.len() as u8, 0, 0, 0, 0];
    bytes.extend_from_slice(first);
    bytes.extend_from_slice(&[0x89, 0x82, 0, 0, 0, 0, b'h', b'i']);
    bytes.extend_from_slice(&[0x80, 0x80 | second.len() as u8, 0, 0, 0, 0]);
    bytes.extend_from_slice(second);
    let raw = client.socket.get_mut();
    raw.write_all(&bytes).await.unwrap();
    let mut pong = [0; 4];
    raw.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong, [0x8a, 2, b'h', b'i']);
    assert_eq!(client.event().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pongs_and_broadcasts_never_interleave() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    let group = world.group.clone();
    let speaker = tokio::spawn(async move {
        for _ in 0..2000 {
            group.say(&"y".repeat(500));
            tokio::task::yield_now().await;
        }
    });
    // The library reads strictly, so that a torn frame is an error.
    for seq in 1..=2000 {
        if seq % 2 == 0 {
            client.send_raw(Message::ping(&b"0123456789"[..])).await;
        }
        assert_eq!(client.event().await, seq);
    }
    speaker.await.unwrap();
}

#[tokio::test]
async fn a_silent_client_is_pinged_and_counts_as_gone_when_nothing_comes() {
    let tuning = Tuning {
        ping_every: Duration::from_millis(200),
        silent_for: Duration::from_secs(2),
        ..World::quick()
    };
    let world = World::tuned(tuning).await;
    let mut alive = world.attached("u1").await;
    let mut dead = world.attached("u2").await;
    // The one that reads answers pings; the other does not even read.
    let alive = tokio::spawn(async move { alive.event().await });
    world.group.until("the drop", |group| group.conns() == 1).await;
    assert_eq!(dead.seen().await, Seen::Closed(1001));
    Client::settle().await;
    world.group.say("still there");
    assert_eq!(alive.await.unwrap(), 1);
}

#[tokio::test]
async fn a_request_that_is_no_handshake_is_refused() {
    let world = World::new().await;
    let mut stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let request = b"GET /u1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 426"), "{answer}");
    assert!(answer.contains("upgrade_required"), "{answer}");
}

#[tokio::test]
async fn a_frame_sent_together_with_the_handshake_is_not_lost() {
    let world = World::new().await;
    let mut stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let mut bytes = b"GET /u1 HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        sec-websocket-protocol: convene.v1\r\n\r\n"
        .to_vec();
    let frame = br#"{"type":"dance","ref":"early"}"#;
    bytes.extend_from_slice(&[0x81, 0x80 | frame.len() as u8, 0, 0, 0, 0]);
    bytes.extend_from_slice(frame);
    stream.write_all(&bytes).await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("early") {
        let mut buffer = [0; 1024];
        let len = stream.read(&mut buffer).await.unwrap();
        assert!(len > 0, "the stream ended: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..len]);
    }
    assert!(seen.starts_with(b"HTTP/1.1 101"));
}
