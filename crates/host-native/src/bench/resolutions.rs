//! From a mention to the model's door, where the Agents Worker still knows who the agent is and has it
//! confirmed, and where it has to ask: agent, provider, key, tools and people, with the tokens of both sides.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{
    Figure,
    client::Client,
    relay::Relay,
    server::Server,
    streams::{Chain, Model, ends_a_run},
};
use crate::cli::CliError;

/// Questions of each kind for each second of a slice: a hundred with what a slice has by itself. With
/// the warm ones the cache's entry, which is kept for a minute, never gets old.
const ASKED_PER_SECOND: f64 = 50.0;

/// Measures `resolve_warm` and `resolve_cold`.
pub(super) fn measure(
    dir: &Path,
    slice: Duration,
    slices: usize,
) -> Result<Vec<(&'static str, Figure)>, CliError> {
    let runtime = crate::serve::runtime()?;
    let env = vec![("CONVENE_AGENTS__ALLOW_HOSTS", "127.0.0.1".to_owned())];
    let mut server = Server::start(dir, "resolutions", env)?;
    let asked = (slice.as_secs_f64() * ASKED_PER_SECOND).ceil() as usize;
    runtime.block_on(async {
        let (model, at_model, _serving) = Model::start().await?;
        let relay = Relay::start(at_model)?;
        // What is known of an agent is known for whoever asks: a person's own secrets may matter.
        let chain = Chain::open(&mut server, at_model, 1 + slices * asked).await?;
        let (owner, mut strangers) = match chain.tokens.split_first() {
            Some((owner, others)) => (owner, others.iter()),
            None => return Err("nobody is there to ask".into()),
        };
        let mut watcher = chain.watcher(&server).await?;
        let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
        let (mut warm, mut cold) = (Vec::new(), Vec::new());
        for _ in 0..slices {
            let mut bare = Histogram::<u64>::new(3)?;
            for _ in 0..asked {
                bare.record(through_relay(&client, &model, relay.address).await?)?;
            }
            // The first of them is not counted.
            to_model(&chain, &server, &model, &mut watcher, owner).await?;
            let (mut known, mut unknown) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
            for _ in 0..asked {
                known.record(to_model(&chain, &server, &model, &mut watcher, owner).await?)?;
            }
            for stranger in strangers.by_ref().take(asked) {
                unknown.record(to_model(&chain, &server, &model, &mut watcher, stranger).await?)?;
            }
            let p50 = |latency: &Histogram<u64>| latency.value_at_quantile(0.5) as f64;
            warm.push((p50(&known), p50(&bare)));
            cold.push((p50(&unknown), p50(&known)));
        }
        Ok(vec![
            ("resolve_warm", Figure::from_slices("µs", &warm)),
            ("resolve_cold", Figure::from_slices("µs", &cold)),
        ])
    })
}

/// Microseconds from a mention to the model; returns when its run has ended.
async fn to_model(
    chain: &Chain,
    server: &Server,
    model: &Model,
    watcher: &mut Client,
    token: &str,
) -> Result<u64, CliError> {
    model.writes(1, Duration::from_millis(1));
    let began = Instant::now();
    chain.ask(server, token).await?;
    watcher.until(ends_a_run).await?;
    let asked = model.asked().ok_or("the model was not asked")?;
    Ok(asked.saturating_duration_since(began).as_micros() as u64)
}

/// The same through a bare relay of two hops.
async fn through_relay(
    client: &reqwest::Client,
    model: &Model,
    relay: SocketAddr,
) -> Result<u64, CliError> {
    model.writes(1, Duration::from_millis(1));
    let began = Instant::now();
    let url = format!("http://{relay}/v1/chat/completions");
    client.post(url).body("{}").send().await?.error_for_status()?.bytes().await?;
    let asked = model.asked().ok_or("the model was not asked")?;
    Ok(asked.saturating_duration_since(began).as_micros() as u64)
}
