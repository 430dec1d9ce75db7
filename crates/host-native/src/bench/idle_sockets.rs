//! Bytes of user memory for a client's WebSocket that is attached to a group and has nothing to do:
//! what a process of its own grows by when thousands of them are opened.

use std::path::Path;

use super::{
    Figure,
    client::Client,
    server::{Server, World},
};
use crate::cli::CliError;

/// Sockets that are there before the first measurement: what the first ones cost once is theirs.
const BEFORE: usize = 1000;
/// The allocator gives back at once what is freed: else what the start used and freed would be
/// reused by the sockets, and they would seem to cost nothing.
const ALLOCATOR: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "0");
/// What a socket may cost.
const AIM: f64 = 8192.0;

/// Measures over so many sockets.
pub(super) fn measure(dir: &Path, sockets: usize) -> Result<Figure, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut server =
            Server::start(dir, "idle-sockets", vec![(ALLOCATOR.0, ALLOCATOR.1.to_owned())])?;
        let world = server.populate(1).await?;
        let mut open = Vec::with_capacity(BEFORE + sockets);
        attach(&server, &world, BEFORE, &mut open).await?;
        let before = server.anonymous_memory()?;
        attach(&server, &world, sockets, &mut open).await?;
        let after = server.anonymous_memory()?;
        let bytes = after.saturating_sub(before) as f64 / sockets as f64;
        let mut figure = Figure::from_slices("bytes", &[(bytes, AIM)]);
        figure.extra.insert("sockets", sockets as f64);
        Ok(figure)
    })
}

async fn attach(
    server: &Server,
    world: &World,
    count: usize,
    open: &mut Vec<Client>,
) -> Result<(), CliError> {
    let path = format!("/api/groups/{}/ws", world.group);
    for _ in 0..count {
        let mut client = Client::open(server.address, &path, &world.tokens[0]).await?;
        client.send(r#"{"type":"attach","ref":"a"}"#).await?;
        client.until(|frame| frame.starts_with(br#"{"type":"attached""#)).await?;
        open.push(client);
    }
    Ok(())
}
