//! The backlog of one socket, without a room around it.

use std::io::Read;

use tokio::net::TcpListener;

use super::*;

async fn pair(max_bytes: usize, max_frames: usize) -> (Arc<Outbound>, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (Outbound::bounded(Arc::new(server), max_bytes, max_frames), client)
}

/// Sends until the socket takes no more, and returns how many frames were sent.
fn fill(outbound: &Arc<Outbound>, frame: &Bytes) -> usize {
    let mut sent = 0;
    while outbound.backlog().0 == 0 {
        assert_ne!(outbound.send(frame, 0, 1), Sent::Gone);
        sent += 1;
    }
    sent
}

fn read_to_end(mut client: std::net::TcpStream) -> tokio::task::JoinHandle<Vec<u8>> {
    tokio::task::spawn_blocking(move || {
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        all
    })
}

#[tokio::test]
async fn the_backlog_holds_as_many_frames_as_its_bound_and_one_more_closes() {
    let (outbound, client) = pair(usize::MAX, 10).await;
    let frame = ws::text(&[b'x'; 60_000]);
    let before = fill(&outbound, &frame);
    let cut = outbound.backlog().1;
    for _ in cut..10 {
        assert_eq!(outbound.send(&frame, 0, 1), Sent::Waiting);
    }
    assert_eq!(outbound.backlog().1, 10);
    assert_eq!(outbound.send(&frame, 0, 1), Sent::Gone);
    assert_eq!(outbound.send(&frame, 0, 1), Sent::Gone, "and nothing is taken after it");
    outbound.ended().await;
    let got = read_to_end(client).await.unwrap();
    let close = ws::close(CloseCode::TooSlow);
    assert!(got.ends_with(&close), "the close frame is the last");
    let frames = got.len() - close.len();
    assert_eq!(frames % frame.len(), 0, "behind whole frames");
    assert!(frames / frame.len() <= before);
}

#[tokio::test]
async fn the_backlog_holds_as_many_bytes_as_its_bound_and_one_more_closes() {
    let (outbound, client) = pair(100_000, usize::MAX).await;
    let frame = ws::text(&[b'x'; 60_000]);
    fill(&outbound, &frame);
    let room = 100_000 - outbound.backlog().0;
    let filler = Bytes::from(vec![0; room]);
    assert_eq!(outbound.send(&filler, 0, 1), Sent::Waiting);
    assert_eq!(outbound.backlog().0, 100_000);
    assert_eq!(outbound.ping(), Sent::Gone);
    assert!(read_to_end(client).await.unwrap().ends_with(&ws::close(CloseCode::TooSlow)));
}

#[tokio::test]
async fn a_backlog_is_written_when_the_client_reads_on_and_a_close_comes_after_it() {
    let (outbound, client) = pair(usize::MAX, usize::MAX).await;
    let frame = ws::text(&[b'x'; 60_000]);
    let sent = fill(&outbound, &frame) + 20;
    let joined = Bytes::from(frame.repeat(20));
    assert_eq!(outbound.send(&joined, 0, 20), Sent::Waiting);
    outbound.close(CloseCode::Revoked);
    assert_eq!(outbound.ping(), Sent::Gone);
    let mut expected = frame.repeat(sent);
    expected.extend_from_slice(&ws::close(CloseCode::Revoked));
    assert!(read_to_end(client).await.unwrap() == expected, "all of it, then the close frame");
    assert_eq!(outbound.backlog(), (0, 0));
}

#[tokio::test]
async fn an_aborted_socket_ends_whatever_waits() {
    let (outbound, client) = pair(usize::MAX, usize::MAX).await;
    fill(&outbound, &ws::text(&[b'x'; 60_000]));
    outbound.abort();
    outbound.ended().await;
    assert_eq!(outbound.ping(), Sent::Gone);
    read_to_end(client).await.unwrap();
}
