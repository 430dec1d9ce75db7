//! `cargo xtask tidy`: house rules that no compiler checks.
//!
//! Each rule returns what it found as lines that name a place; all findings are printed, so that
//! one run shows everything there is to do. No rule changes a file.

mod architecture;
mod dependencies;
mod sources;

use crate::process::{self, Context, Failure, Result};
use crate::workspace::Workspace;
use std::path::Path;

const EXAMPLE_CONFIGURATION: &str = "docs/convene.example.toml";

pub(crate) fn run() -> Result<()> {
    check(&Workspace::load()?)
}

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut findings = sources::check(workspace)?;
    findings.extend(architecture::check(workspace)?);
    findings.extend(dependencies::check(workspace));
    if findings.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("{} findings\n  {}", findings.len(), findings.join("\n  "))))
}

/// The documented example is exactly what `convene config example` prints.
pub(crate) fn example_configuration(workspace: &Workspace, binary: &Path) -> Result<()> {
    let file = workspace.root.join(EXAMPLE_CONFIGURATION);
    if !file.is_file() {
        eprintln!("{EXAMPLE_CONFIGURATION} does not exist, there is nothing to compare");
        return Ok(());
    }
    let written = std::fs::read_to_string(&file).context(file.display())?;
    let printed = process::output(process::command(binary).args(["config", "example"]))?;
    if written == printed {
        return Ok(());
    }
    let differs = written.lines().zip(printed.lines()).position(|(a, b)| a != b);
    let line = differs.unwrap_or_else(|| written.lines().count().min(printed.lines().count())) + 1;
    Err(Failure::new(format!(
        "{EXAMPLE_CONFIGURATION}:{line} is not what `convene config example` prints: \
         run `convene config example > {EXAMPLE_CONFIGURATION}`"
    )))
}
