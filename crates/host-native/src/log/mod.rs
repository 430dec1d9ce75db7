//! Structured logs: on standard error, and what is worth keeping in the store of `[logs]`.

mod queue;
mod ship;

use std::{io::IsTerminal, sync::Arc};

use tracing_subscriber::{
    EnvFilter, Layer, filter::LevelFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::config::{LogConfig, LogFormat};

pub(crate) use queue::MAX_LINES;
pub(crate) use queue::Queue;
pub(crate) use ship::{Shipper, Target};

/// Libraries that say more than an operator wants to read; a
/// filter in the configuration that names them wins.
const QUIET: &str = "refinery_core=warn";

/// Starts logging; returns what waits to be shipped, where that is wanted. A second start in one
/// process changes nothing.
pub(crate) fn start(config: &LogConfig, ships: bool) -> Option<Arc<Queue>> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.level))
        .unwrap_or_else(|_| EnvFilter::new(QUIET));
    let layer = fmt::layer().with_writer(std::io::stderr);
    let lines = match config.format {
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let queue = ships.then(|| Arc::new(Queue::default()));
    let shipped = queue.clone().map(|queue| {
        let filter = tracing_subscriber::filter::filter_fn(queue::is_shipped)
            .with_max_level_hint(LevelFilter::DEBUG);
        queue::Shipped(queue).with_filter(filter)
    });
    // Starting twice happens only where a process embeds the host; the first start holds.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).with(shipped).try_init();
    queue
}
