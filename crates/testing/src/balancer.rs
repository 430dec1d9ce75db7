//! A balancer on TCP in front of several equal processes: each new connection goes to the next one
//! that can be reached.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinHandle},
};

/// A running balancer; ends when dropped.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    accepting: JoinHandle<()>,
    open: Arc<Mutex<HashMap<usize, AbortHandle>>>,
}

impl Balancer {
    /// Listens on a free port of loopback and passes connections on to `backends` in turn.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(backends: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let open: Arc<Mutex<HashMap<usize, AbortHandle>>> = Arc::default();
        let accepting = tokio::spawn(accept(listener, backends.into(), Arc::clone(&open)));
        Self { address, accepting, open }
    }

    /// Where it listens, as `http://host:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts all connections that are open now.
    pub fn cut_all(&self) {
        for (_, open) in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            open.abort();
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut_all();
    }
}

async fn accept(
    listener: TcpListener,
    backends: Arc<[String]>,
    open: Arc<Mutex<HashMap<usize, AbortHandle>>>,
) {
    let turn = Arc::new(AtomicUsize::new(0));
    for number in 0.. {
        let Ok((client, _)) = listener.accept().await else { return };
        let (backends, turn) = (Arc::clone(&backends), Arc::clone(&turn));
        let passing = {
            let open = Arc::clone(&open);
            tokio::spawn(async move {
                pass(client, &backends, &turn).await;
                open.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            })
        };
        if !passing.is_finished() {
            let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
            open.insert(number, passing.abort_handle());
        }
    }
}

async fn pass(mut client: TcpStream, backends: &[String], turn: &AtomicUsize) {
    for _ in backends {
        let backend = &backends[turn.fetch_add(1, Ordering::Relaxed) % backends.len()];
        let Ok(mut server) = TcpStream::connect(backend).await else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        // Either side may break; that ends both.
        let _ = copy_bidirectional(&mut client, &mut server).await;
        return;
    }
}
