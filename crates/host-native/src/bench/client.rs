//! A client's WebSocket in as few instructions as possible, so that what is measured is the server.

use std::{
    io::{Error, Result},
    net::SocketAddr,
};

use convene_model::frame::SUBPROTOCOL;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A client's socket.
pub(super) struct Client {
    stream: TcpStream,
    read: Vec<u8>,
    taken: usize,
}

impl Client {
    /// Connects and shakes hands.
    pub(super) async fn open(address: SocketAddr, path: &str, token: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
             connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             sec-websocket-protocol: {SUBPROTOCOL}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut client = Self { stream, read: Vec::new(), taken: 0 };
        loop {
            client.fill().await?;
            if let Some(end) = client.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                if !client.read.starts_with(b"HTTP/1.1 101") {
                    return Err(Error::other(String::from_utf8_lossy(&client.read).into_owned()));
                }
                client.taken = end + 4;
                return Ok(client);
            }
        }
    }

    /// Sends a text frame of less than 64 KiB, under a mask of zeros.
    pub(super) async fn send(&mut self, text: &str) -> Result<()> {
        let mut frame = vec![0x81];
        match u8::try_from(text.len()) {
            Ok(len @ 0..126) => frame.push(0x80 | len),
            Ok(_) | Err(_) => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(text.as_bytes());
        self.stream.write_all(&frame).await
    }

    /// Reads up to the first frame that `wanted` says yes to.
    pub(super) async fn until(&mut self, mut wanted: impl FnMut(&[u8]) -> bool) -> Result<Vec<u8>> {
        loop {
            while let Some((payload, end)) = self.frame() {
                let found = wanted(payload).then(|| payload.to_vec());
                self.taken = end;
                if let Some(found) = found {
                    return Ok(found);
                }
            }
            self.fill().await?;
        }
    }

    /// The payload of the frame that begins what is not taken yet, and where it ends.
    fn frame(&self) -> Option<(&[u8], usize)> {
        let bytes = &self.read[self.taken..];
        let number = |bytes: &[u8]| bytes.iter().fold(0, |all, b| (all << 8) | usize::from(*b));
        let (start, len) = match bytes.get(1)? {
            127 => (10, number(bytes.get(2..10)?)),
            126 => (4, number(bytes.get(2..4)?)),
            len => (2, usize::from(*len)),
        };
        let payload = bytes.get(start..start + len)?;
        Some((payload, self.taken + start + len))
    }

    async fn fill(&mut self) -> Result<()> {
        self.read.drain(..self.taken);
        self.taken = 0;
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(Error::other("the server closed the connection")),
            _ => Ok(()),
        }
    }
}
