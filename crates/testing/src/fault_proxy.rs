//! A line between two services that a test can break: a TCP proxy on loopback.
//!
//! It passes bytes and knows nothing of what they mean. What it does to them is set while
//! connections stand, and holds for those and for new ones alike.

use std::{io, net::SocketAddr, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

/// Bytes that are passed on at a time at most.
const CHUNK: usize = 16 * 1024;

/// What a line does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Everything passes.
    Open,
    /// Every connection is reset, and so is each new one.
    Refused,
    /// Nothing passes and nobody is told, as in a partition: connections stand half-open, and what
    /// is sent meanwhile arrives when the line opens again, if it is still waited for.
    Silent,
    /// Each piece of data arrives so much later.
    Slow(Duration),
    /// This many bytes still pass in each direction of a connection, then it is reset: most often
    /// in the middle of a frame.
    CutAfter(u64),
    /// A connection on which nothing passed for so long is dropped, as balancers do.
    DropIdle(Duration),
}

/// A running proxy; ends with all its connections when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
    opened: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl FaultProxy {
    /// Passes connections on to `target` (`host:port`), which need not be there yet.
    ///
    /// # Panics
    /// When loopback has no free port.
    pub async fn to(target: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (line, state) = watch::channel(Line::Open);
        let (count, opened) = watch::channel(0);
        let target = target.into();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((client, _)) = accepted else { continue };
                        count.send_modify(|count| *count += 1);
                        connections.spawn(serve(client, target.clone(), state.clone()));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self { address, line, opened, task }
    }

    /// `host:port` of the proxy.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The proxy as a base URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets what the line does from now on.
    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// Breaks every connection that stands, and lets new ones pass.
    pub async fn cut(&self) {
        self.set(Line::Refused);
        // Every connection's task sees the change before the line opens again.
        sleep(Duration::from_millis(50)).await;
        self.set(Line::Open);
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn opened(&self) -> u64 {
        *self.opened.borrow()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, target: String, mut line: watch::Receiver<Line>) {
    reset_on_drop(&client);
    // A line that is silent does not even let a connection through.
    if line.wait_for(|line| *line != Line::Silent).await.is_err() || *line.borrow() == Line::Refused
    {
        return;
    }
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    reset_on_drop(&server);
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    // Either direction keeps the connection busy.
    let last = Mutex::new(Instant::now());
    let _ = tokio::try_join!(
        pump(from_client, to_server, line.clone(), &last),
        pump(from_server, to_client, line, &last),
    );
}

/// Passes one direction on until it ends in order; an error ends both.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut line: watch::Receiver<Line>,
    last: &Mutex<Instant>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut passed = 0_u64;
    loop {
        let now = *line.borrow_and_update();
        let idle = match now {
            Line::Refused => return Err(io::ErrorKind::ConnectionReset.into()),
            Line::Silent => {
                if line.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            }
            Line::DropIdle(idle) => idle,
            Line::Open | Line::Slow(_) | Line::CutAfter(_) => Duration::MAX,
        };
        let read = tokio::select! {
            changed = line.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                passed = 0;
                continue;
            }
            () = sleep(idle) => {
                if last.lock().elapsed() >= idle {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                continue;
            }
            read = from.read(&mut buffer) => read?,
        };
        *last.lock() = Instant::now();
        if read == 0 {
            return to.shutdown().await;
        }
        let mut piece = &buffer[..read];
        match now {
            Line::Slow(delay) => sleep(delay).await,
            Line::CutAfter(bytes) => {
                let left = usize::try_from(bytes - passed).unwrap_or(usize::MAX);
                if left < piece.len() {
                    piece = &piece[..left];
                }
                passed += piece.len() as u64;
            }
            Line::Open | Line::Refused | Line::Silent | Line::DropIdle(_) => {}
        }
        to.write_all(piece).await?;
        if matches!(now, Line::CutAfter(bytes) if passed >= bytes) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
    }
}

/// A connection that is dropped is reset, as a machine that went away and came back would.
fn reset_on_drop(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// A server that sends back what it gets.
    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    async fn there_and_back(stream: &mut TcpStream, text: &str) -> io::Result<String> {
        stream.write_all(text.as_bytes()).await?;
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).await?;
        Ok(String::from_utf8(back).unwrap())
    }

    #[tokio::test]
    async fn an_open_line_passes_everything() {
        let proxy = FaultProxy::to(echo().await).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(there_and_back(&mut stream, "hello").await.unwrap(), "hello");
        assert_eq!(proxy.opened(), 1);
    }

    #[tokio::test]
    async fn a_cut_breaks_what_stands_and_lets_new_connections_pass() {
        let proxy = FaultProxy::to(echo().await).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        there_and_back(&mut stream, "a").await.unwrap();
        proxy.cut().await;
        assert!(there_and_back(&mut stream, "b").await.is_err());
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(there_and_back(&mut stream, "c").await.unwrap(), "c");
    }

    #[tokio::test]
    async fn a_silent_line_tells_nobody_and_delivers_later() {
        let proxy = FaultProxy::to(echo().await).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        there_and_back(&mut stream, "a").await.unwrap();
        proxy.set(Line::Silent);
        stream.write_all(b"later").await.unwrap();
        let mut back = [0; 5];
        let waited = timeout(Duration::from_millis(200), stream.read_exact(&mut back)).await;
        assert!(waited.is_err(), "nothing comes back");
        proxy.set(Line::Open);
        timeout(Duration::from_secs(10), stream.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(&back, b"later");
    }

    #[tokio::test]
    async fn a_line_is_cut_after_so_many_bytes() {
        let proxy = FaultProxy::to(echo().await).await;
        proxy.set(Line::CutAfter(3));
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut back = Vec::new();
        let ended = timeout(Duration::from_secs(10), stream.read_to_end(&mut back)).await.unwrap();
        assert!(ended.is_err() && back.len() <= 3, "{ended:?} {back:?}");
    }

    #[tokio::test]
    async fn an_idle_connection_is_dropped_and_a_busy_one_is_not() {
        let proxy = FaultProxy::to(echo().await).await;
        proxy.set(Line::DropIdle(Duration::from_millis(400)));
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        for _ in 0..6 {
            there_and_back(&mut stream, "busy").await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        let mut byte = [0];
        let ended = timeout(Duration::from_secs(10), stream.read(&mut byte)).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)));
    }
}
