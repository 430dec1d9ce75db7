//! The limit of streams: two servers, each of which passes on what it is asked and what it is answered. As
//! Convene has all its hops in one process beside the measuring one, both are in a process of their own.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use axum::{
    Router,
    body::{Body, Bytes},
    response::Response,
    routing::post,
};
use http::StatusCode;
use tokio_util::task::AbortOnDropHandle;

use super::streams::serve;
use crate::cli::CliError;

/// The process of the relay; it ends with this.
pub(super) struct Relay {
    /// Where it is asked.
    pub(super) address: SocketAddr,
    child: Child,
}

impl Relay {
    /// Starts it before the model at this address.
    pub(super) fn start(model: SocketAddr) -> Result<Self, CliError> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench", "--relay-to", &model.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("the process has no output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let address = line.trim().parse().map_err(|_| "the relay did not start")?;
        Ok(Self { address, child })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process of the relay: tells where it listens, and serves until its input ends.
pub(super) fn run(model: SocketAddr) -> Result<(), CliError> {
    let runtime = crate::serve::runtime()?;
    // The first installation in this process holds, whoever makes it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    runtime.block_on(async {
        let (inner, _one) = relay(model).await?;
        let (outer, _two) = relay(inner).await?;
        println!("{outer}");
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        Ok(())
    })
}

async fn relay(to: SocketAddr) -> Result<(SocketAddr, AbortOnDropHandle<()>), CliError> {
    let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
    let pass = move |body: Bytes| {
        let asked = client.post(format!("http://{to}/v1/chat/completions")).body(body).send();
        async move {
            match asked.await {
                Ok(answer) => Response::new(Body::from_stream(answer.bytes_stream())),
                Err(_) => {
                    let mut failed = Response::new(Body::empty());
                    *failed.status_mut() = StatusCode::BAD_GATEWAY;
                    failed
                }
            }
        }
    };
    serve(Router::new().route("/v1/chat/completions", post(pass))).await
}
