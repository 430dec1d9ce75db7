//! Clients that all come back at once after the server was killed, each with what it has seen: how
//! many a second are attached and have what they missed, against a bare loop that accepts as many
//! sockets, shakes hands and writes the same bytes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    task::JoinSet,
};

use super::{Figure, client::Client, server::Server};
use crate::cli::CliError;

/// Messages that every client has missed.
const MISSED: u64 = 20;
/// How long all of them may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures so many clients, each of another person, so many times in turn with the bare loop.
pub(super) fn measure(dir: &Path, clients: usize, slices: usize) -> Result<Figure, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut server = Server::start(dir, "reconnect-storm", Vec::new())?;
    let world = runtime.block_on(server.populate(clients))?;
    let path = format!("/api/groups/{}/ws", world.group);
    let (seen, history) = runtime.block_on(async {
        let mut owner = Client::open(server.address, &path, &world.tokens[0]).await?;
        owner.send(r#"{"type":"attach","ref":"a"}"#).await?;
        let attached = owner.until(|frame| frame.starts_with(br#"{"type":"attached""#)).await?;
        let attached: Value = serde_json::from_slice(&attached)?;
        for number in 0..MISSED {
            let body = json!({"message_id": format!("m{number}"), "text": "x".repeat(200)});
            let path = format!("/api/groups/{}/messages", world.group);
            server.post(&path, Some(&world.tokens[0]), &body).await?;
        }
        let seen = attached["seq"].as_u64().ok_or("no number in attached")?;
        let history = attached["history"].as_str().ok_or("no history in attached")?.to_owned();
        Ok::<_, CliError>((seen, history))
    })?;
    let attach = json!({"type": "attach", "ref": "a", "after": seen, "history": history});
    let attach = attach.to_string();
    let last = format!(r#"{{"type":"event","seq":{},"#, seen + MISSED);
    let mut measured = Vec::with_capacity(slices);
    for _ in 0..slices {
        let (bare, _task) = runtime.block_on(bare_server(&attach, &last))?;
        let limit = runtime.block_on(storm(bare, &path, &world.tokens, &attach, &last))?;
        server.restart()?;
        let value =
            runtime.block_on(storm(server.address, &path, &world.tokens, &attach, &last))?;
        measured.push((value, limit));
    }
    let mut figure = Figure::from_slices("clients/s", &measured);
    figure.extra.insert("clients", clients as f64);
    figure.extra.insert("all_ms", clients as f64 / figure.value * 1000.0);
    Ok(figure)
}

/// Lets every person connect at once. Returns how many a second had everything, by the last.
async fn storm(
    address: SocketAddr,
    path: &str,
    tokens: &[String],
    attach: &str,
    last: &str,
) -> Result<f64, CliError> {
    let mut clients = JoinSet::new();
    let started = Instant::now();
    for token in tokens {
        let (path, token) = (path.to_owned(), token.clone());
        let (attach, last) = (attach.to_owned(), last.to_owned());
        clients.spawn(async move {
            let mut client = Client::open(address, &path, &token).await?;
            client.send(&attach).await?;
            client.until(|frame| frame.starts_with(last.as_bytes())).await?;
            // Held until all are done, so that nobody's leaving is measured.
            Ok::<_, std::io::Error>(client)
        });
    }
    let mut open = Vec::with_capacity(tokens.len());
    let all = async {
        while let Some(client) = clients.join_next().await {
            open.push(client??);
        }
        Ok::<_, CliError>(started.elapsed())
    };
    let took = tokio::time::timeout(PATIENCE, all).await.map_err(|_| "the storm did not end")??;
    Ok(tokens.len() as f64 / took.as_secs_f64())
}

/// Accepts, shakes hands and writes as many bytes as a client has missed; ends with the task.
async fn bare_server(
    attach: &str,
    last: &str,
) -> Result<(SocketAddr, tokio_util::task::AbortOnDropHandle<()>), CliError> {
    let mut answer = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
    let request_len = attach.len();
    for number in 0..=MISSED {
        let start = if number == MISSED { last } else { r#"{"type":"event","# };
        let payload = format!("{start}{}", "x".repeat(450 - start.len()));
        answer.extend_from_slice(&[0x81, 126]);
        answer.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        answer.extend_from_slice(payload.as_bytes());
    }
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let listener: TcpListener = socket.listen(4096)?;
    let address = listener.local_addr()?;
    let accept = async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut read = Vec::new();
                let head = b"HTTP/1.1 101".len();
                while !read.ends_with(b"\r\n\r\n") && stream.read_buf(&mut read).await? > 0 {}
                let end = answer.iter().position(|b| *b == 0x81).unwrap_or(head);
                stream.write_all(&answer[..end]).await?;
                read.clear();
                while read.len() < request_len && stream.read_buf(&mut read).await? > 0 {}
                stream.write_all(&answer[end..]).await?;
                // Until the client goes.
                stream.read_buf(&mut read).await
            });
        }
    };
    Ok((address, tokio_util::task::AbortOnDropHandle::new(tokio::spawn(accept))))
}
