//! A client's messages arrive whole however they are cut, and a silent client holds no buffer.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::rooms::outbound::Outbound;

/// A client's frame under a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..126 => out.push(0x80 | len as u8),
        len @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

const TEXT: u8 = 0x81;
const TEXT_BEGINS: u8 = 0x01;
const TEXT_ENDS: u8 = 0x80;
const PING: u8 = 0x89;

#[test]
fn a_boundary_is_after_whole_messages_only_wherever_they_are_cut() {
    let parts = [
        frame(TEXT, b"short"),
        frame(TEXT, &[b'x'; 200]),
        frame(TEXT, &vec![b'x'; 70_000]),
        [frame(TEXT_BEGINS, b"be"), frame(PING, b"p"), frame(TEXT_ENDS, b"gun")].concat(),
        frame(PING, b""),
    ];
    let ends: Vec<usize> = parts
        .iter()
        .scan(0, |end, part| {
            *end += part.len();
            Some(*end)
        })
        .collect();
    let bytes = parts.concat();
    for step in [1, 2, 3, 7, 1000, bytes.len()] {
        let (mut boundary, mut at) = (Boundary::default(), 0);
        for piece in bytes.chunks(step) {
            boundary.pass(piece);
            at += piece.len();
            assert_eq!(boundary.is_between_messages(), ends.contains(&at), "at {at} by {step}");
        }
    }
}

/// A client's stream and the inbox at its other end.
async fn pair() -> (TcpStream, Inbox) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.set_nodelay(true).unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let stream = Arc::new(stream);
    let reader = Reader::new(b"", Arc::clone(&stream), Outbound::new(stream));
    (client, Inbox::new(reader))
}

async fn text(inbox: &mut Inbox) -> String {
    loop {
        let message = inbox.next().await.unwrap().unwrap();
        if let Some(text) = message.as_text() {
            return text.to_owned();
        }
    }
}

/// Waits for a message that does not come.
async fn nothing(inbox: &mut Inbox) {
    assert!(tokio::time::timeout(Duration::from_millis(20), inbox.next()).await.is_err());
}

#[tokio::test]
async fn a_silent_client_holds_no_buffer_and_one_within_a_message_keeps_it() {
    let (mut client, mut inbox) = pair().await;
    nothing(&mut inbox).await;
    assert!(inbox.is_silent());

    let whole = frame(TEXT, b"one");
    client.write_all(&whole).await.unwrap();
    assert_eq!(text(&mut inbox).await, "one");
    nothing(&mut inbox).await;
    assert!(inbox.is_silent());

    for cut in 1..whole.len() {
        client.write_all(&whole[..cut]).await.unwrap();
        nothing(&mut inbox).await;
        assert!(!inbox.is_silent(), "cut after {cut} bytes");
        client.write_all(&whole[cut..]).await.unwrap();
        assert_eq!(text(&mut inbox).await, "one");
    }

    client.write_all(&frame(TEXT_BEGINS, b"tw")).await.unwrap();
    client.write_all(&frame(PING, b"?")).await.unwrap();
    assert!(inbox.next().await.unwrap().unwrap().is_ping());
    nothing(&mut inbox).await;
    assert!(!inbox.is_silent(), "the beginning of a message is kept");
    client.write_all(&[frame(TEXT_ENDS, b"o"), frame(TEXT, b"three")].concat()).await.unwrap();
    assert_eq!((text(&mut inbox).await, text(&mut inbox).await), ("two".into(), "three".into()));

    drop(client);
    assert!(inbox.next().await.is_none_or(|end| end.is_err()));
}
