//! `convene bench`: figures of this machine beside the raw limits of the same machine, measured
//! interleaved in one run.

mod activations;
mod archives;
mod client;
mod fanout;
mod groups;
mod history;
mod idle_sockets;
mod infra;
mod memory;
mod posts;
mod raw_rows;
mod reconnect_storm;
mod relay;
mod resolutions;
mod server;
mod snapshots;
mod streams;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use serde::Serialize;

use crate::{cli::CliError, open_files};

/// How `convene bench` is called.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Write the figures as JSON to this file too: {name: {value, unit, limit, ratio}}
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure only the figures whose name begins with this
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Seconds for each slice; a figure takes several slices of its own and of its limit
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    slice: f64,
    /// Clients of the figures about many connections
    #[arg(long, value_name = "COUNT", default_value_t = 2000)]
    clients: usize,
    /// An empty PostgreSQL database, for the figures that are measured on both kinds
    #[arg(long, value_name = "URL", env = "CONVENE_TEST_POSTGRES_URL", hide_env_values = true)]
    postgres: Option<String>,
    /// The folder for the data of the measurement, on the disk to be measured
    #[arg(long, value_name = "DIR", default_value = "convene-bench")]
    dir: PathBuf,
    /// Be the bare relay before this model, for the figures about streams
    #[arg(long, value_name = "ADDRESS", hide = true)]
    relay_to: Option<SocketAddr>,
}

/// One figure beside its limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// The median of the slices.
    pub value: f64,
    /// What it counts.
    pub unit: &'static str,
    /// The median of the limit's slices.
    pub limit: f64,
    /// The median of the slices' ratios, each slice against the limit's slice next to it.
    pub ratio: f64,
    /// What else is worth knowing.
    #[serde(flatten, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<&'static str, f64>,
}

impl Figure {
    /// A figure from slices that were measured one beside the other: (figure, limit).
    #[must_use]
    pub fn from_slices(unit: &'static str, slices: &[(f64, f64)]) -> Self {
        Self {
            value: median(slices.iter().map(|(value, _)| *value)),
            unit,
            limit: median(slices.iter().map(|(_, limit)| *limit)),
            ratio: median(slices.iter().map(|(value, limit)| value / limit)),
            extra: BTreeMap::new(),
        }
    }
}

/// The middle of some numbers; of an even count the lower of the two.
fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// Bytes of each message's text.
const TEXT_BYTES: usize = 256;
/// The figures that are measured together.
const STREAMS: [&str; 4] =
    ["stream_first_token", "stream_token_p99", "stream_fsyncs", "stream_500_watchers"];
/// Slices of each figure.
const SLICES: usize = 3;

/// Measures, prints a table and writes the file.
///
/// # Errors
/// What kept a measurement from being made.
pub fn run(args: &BenchArgs) -> Result<(), CliError> {
    if let Some(model) = args.relay_to {
        return relay::run(model);
    }
    let slice = Duration::from_secs_f64(args.slice.clamp(0.1, 60.0));
    let wanted = |name: &str| args.only.as_deref().is_none_or(|only| name.starts_with(only));
    let mut figures = BTreeMap::new();
    println!("{:<22} {:>12} {:>12} {:>7}  unit", "figure", "value", "limit", "ratio");
    let mut report = |name: &'static str, figure: Figure| {
        let extra: Vec<String> =
            figure.extra.iter().map(|(key, value)| format!("{key} {value:.2}")).collect();
        println!(
            "{name:<22} {:>12.0} {:>12.0} {:>7.2}  {}  {}",
            figure.value,
            figure.limit,
            figure.ratio,
            figure.unit,
            extra.join(", ")
        );
        figures.insert(name, figure);
    };
    for (name, groups, in_flight) in [("posts_hot_group", 1, 64), ("posts_1000_groups", 1000, 64)] {
        if wanted(name) {
            report(name, posts::measure(&args.dir, groups, in_flight, slice, SLICES)?);
        }
    }
    if wanted("activations_sqlite") {
        let figure = activations::measure(&args.dir, None, slice, SLICES)?;
        report("activations_sqlite", figure);
    }
    if wanted("activations_postgres") {
        match &args.postgres {
            Some(url) => {
                let figure = activations::measure(&args.dir, Some(url), slice, SLICES)?;
                report("activations_postgres", figure);
            }
            None if args.only.as_deref() == Some("activations_postgres") => {
                return Err("activations_postgres needs an empty database: --postgres URL".into());
            }
            None => eprintln!("activations_postgres is not measured: it needs --postgres URL"),
        }
    }
    if wanted("history_page_p99") {
        report("history_page_p99", history::measure(&args.dir, slice, SLICES)?);
    }
    if wanted("snapshot_write") || wanted("snapshot_verify") {
        for (name, figure) in snapshots::measure(&args.dir, slice, SLICES)? {
            if wanted(name) {
                report(name, figure);
            }
        }
    }
    if wanted("archive_rate") || wanted("restore_rate") {
        for (name, figure) in archives::rates(&args.dir, slice, SLICES)? {
            if wanted(name) {
                report(name, figure);
            }
        }
    }
    if wanted("archive_neighbours_p99") {
        let figure = archives::neighbours(&args.dir, slice, SLICES)?;
        report("archive_neighbours_p99", figure);
    }
    if wanted("archive_memory") {
        let extras = ["messages", "plain_mb"];
        let figure = groups::in_own_process(&args.dir, "archive_memory", args.slice, &extras)?;
        let figure = match figure {
            Some(figure) => figure,
            None => archives::memory(&args.dir, slice)?,
        };
        report("archive_memory", figure);
    }
    for (name, sockets, in_flight) in
        [("fanout_100", 100, 1), ("fanout_500", 500, 1), ("fanout_500_burst", 500, 8)]
    {
        if wanted(name) {
            report(name, fanout::measure(sockets, in_flight, slice, SLICES)?);
        }
    }
    if wanted("ack_lone_p50") {
        report("ack_lone_p50", groups::lone_post(&args.dir, slice, SLICES)?);
    }
    if wanted("idle_group_bytes") {
        let figure =
            match groups::in_own_process(&args.dir, "idle_group_bytes", args.slice, &["groups"])? {
                Some(figure) => figure,
                None => groups::idle_bytes(&args.dir)?,
            };
        report("idle_group_bytes", figure);
    }
    if wanted("hibernated_group_bytes") {
        let figure = match groups::in_own_process(
            &args.dir,
            "hibernated_group_bytes",
            args.slice,
            &["groups"],
        )? {
            Some(figure) => figure,
            None => groups::hibernated_bytes(&args.dir)?,
        };
        report("hibernated_group_bytes", figure);
    }
    if wanted("wake_p50") || wanted("wake_p99") {
        for (name, figure) in groups::wake(&args.dir)? {
            if wanted(name) {
                report(name, figure);
            }
        }
    }
    if wanted("idle_socket_bytes") {
        open_files::raise_limit();
        report("idle_socket_bytes", idle_sockets::measure(&args.dir, args.clients)?);
    }
    if wanted("reconnect_storm") {
        open_files::raise_limit();
        let figure = reconnect_storm::measure(&args.dir, args.clients, SLICES)?;
        report("reconnect_storm", figure);
    }
    if STREAMS.iter().any(|name| wanted(name)) {
        open_files::raise_limit();
        for (name, figure) in streams::measure(&args.dir, slice, SLICES)? {
            if wanted(name) {
                report(name, figure);
            }
        }
    }
    if wanted("resolve_warm") || wanted("resolve_cold") {
        for (name, figure) in resolutions::measure(&args.dir, slice, SLICES)? {
            if wanted(name) {
                report(name, figure);
            }
        }
    }
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&figures)?)?;
    }
    Ok(())
}
