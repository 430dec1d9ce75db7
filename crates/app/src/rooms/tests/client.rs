//! A client with a WebSocket library that is not ours.

use std::{net::SocketAddr, time::Duration};

use convene_model::frame::SUBPROTOCOL;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, Limits, Message, WebSocketStream};

use super::world::PATIENCE;

/// What a client sees next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    Frame(Value),
    /// With the close code.
    Closed(u16),
    /// Without a close frame.
    Cut,
}

/// A client.
pub(super) struct Client {
    pub(super) socket: WebSocketStream<TcpStream>,
}

impl Client {
    /// Connects, or says with which status the handshake was refused.
    pub(super) async fn connect(address: SocketAddr, user: &str) -> Result<Self, u16> {
        let stream = TcpStream::connect(address).await.unwrap();
        let protocol = http::HeaderName::from_static("sec-websocket-protocol");
        let builder = ClientBuilder::new()
            .uri(&format!("ws://{address}/{user}"))
            .unwrap()
            .add_header(protocol, SUBPROTOCOL.parse().unwrap())
            .unwrap()
            .limits(Limits::unlimited());
        match builder.connect_on(stream).await {
            Ok((socket, response)) => {
                assert_eq!(response.headers()["sec-websocket-protocol"], SUBPROTOCOL);
                Ok(Self { socket })
            }
            Err(tokio_websockets::Error::Upgrade(
                tokio_websockets::upgrade::Error::DidNotSwitchProtocols(status),
            )) => Err(status),
            Err(error) => panic!("{error}"),
        }
    }

    pub(super) async fn send(&mut self, frame: Value) {
        self.send_raw(Message::text(frame.to_string())).await;
    }

    pub(super) async fn send_raw(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    pub(super) async fn seen(&mut self) -> Seen {
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(message)) if message.is_text() => {
                        let text = message.as_text().unwrap();
                        return Seen::Frame(serde_json::from_str(text).unwrap());
                    }
                    Some(Ok(message)) if message.is_close() => {
                        return Seen::Closed(message.as_close().map_or(1005, |(c, _)| c.into()));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Seen::Cut,
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("the client saw nothing more")
    }

    /// The next frame.
    pub(super) async fn frame(&mut self) -> Value {
        match self.seen().await {
            Seen::Frame(frame) => frame,
            end => panic!("a frame was expected, not {end:?}"),
        }
    }

    /// The number of the next frame, which is an event.
    pub(super) async fn event(&mut self) -> u64 {
        let frame = self.frame().await;
        assert_eq!(frame["type"], "event", "{frame}");
        frame["seq"].as_u64().unwrap()
    }

    /// The next events' numbers.
    pub(super) async fn events(&mut self, count: usize) -> Vec<u64> {
        let mut events = Vec::with_capacity(count);
        for _ in 0..count {
            events.push(self.event().await);
        }
        events
    }

    pub(super) async fn attach(&mut self) -> Value {
        self.attach_with(json!({})).await
    }

    /// Attaches with further members and returns the answer.
    pub(super) async fn attach_with(&mut self, members: Value) -> Value {
        let mut frame = json!({"type": "attach", "ref": "attach"});
        for (name, value) in members.as_object().unwrap() {
            frame[name] = value.clone();
        }
        self.send(frame).await;
        let answer = self.frame().await;
        assert_eq!(answer["ref"], "attach", "{answer}");
        answer
    }

    pub(super) async fn post(&mut self, id: &str, text: &str) {
        let r#ref = format!("ref-{id}");
        self.send(json!({"type": "post", "ref": r#ref, "message_id": id, "text": text})).await;
    }

    /// That nothing more comes, as far as can be said: what was sent before is there, since the
    /// answer to a frame of our own comes after it.
    pub(super) async fn nothing_more(&mut self) {
        self.send(json!({"type": "dance", "ref": "nothing-more"})).await;
        let answer = self.frame().await;
        assert_eq!(answer["ref"], "nothing-more", "{answer}");
    }

    /// Lets what is on its way arrive where nothing else can be waited for.
    pub(super) async fn settle() {
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}
