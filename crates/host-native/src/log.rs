//! Structured logs on standard error.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{LogConfig, LogFormat};

/// Libraries that say more than an operator wants to read, or repeat what was said to a model; a
/// filter in the configuration that names them wins.
const QUIET: &str = "refinery_core=warn,rig_core=error";

/// Starts logging. A second start in one process changes nothing.
pub(crate) fn start(config: &LogConfig) {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.level))
        .unwrap_or_else(|_| EnvFilter::new(QUIET));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Starting twice happens only where a process embeds the host; the first start holds.
    let _ = match config.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
