//! How much memory a process takes for itself.

use crate::cli::CliError;

/// Bytes of a process's memory that no file stands behind.
pub(super) fn anonymous(pid: u32) -> Result<u64, CliError> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no RssAnon")?;
    Ok(kib.parse::<u64>()? * 1024)
}
