//! The crates that a Cloudflare host shares with the native one must compile for
//! `wasm32-unknown-unknown`.
//!
//! A check is enough: nothing is linked or run. The standard library of that target comes from
//! rustup; where rustup cannot be reached, it is compiled from Debian's sources with Debian's
//! compiler of the same version.

use crate::process::{self, Failure, Result};
use crate::tools;
use crate::workspace::Workspace;
use std::path::Path;
use std::process::Command;

/// The crates that both hosts use.
pub(crate) const CRATES: &[&str] =
    &["convene-model", "convene-group-controller", "convene-agents-worker"];

const TARGET: &str = "wasm32-unknown-unknown";
/// A download server that cannot be reached must not hold up a run.
const RUSTUP_SECONDS: &str = "60";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_RUSTDOC: &str = "/usr/bin/rustdoc";
/// Where Debian's compiler looks for the sources of its standard library.
const DEBIAN_SOURCES: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";
const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];

pub(crate) fn run() -> Result<()> {
    check(&Workspace::load()?)
}

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut check = if installed(workspace)? || add(workspace) {
        with_rustup(workspace)
    } else {
        eprintln!("rustup cannot add {TARGET}: compiling its standard library instead");
        with_debian(workspace)?
    };
    for name in CRATES {
        check.args(["--package", name]);
    }
    process::run(&mut check)
}

/// Whether the toolchain in use has the target's standard library.
fn installed(workspace: &Workspace) -> Result<bool> {
    let mut rustc = process::command("rustc");
    rustc.current_dir(&workspace.root).args(["--print", "target-libdir", "--target", TARGET]);
    let folder = process::output(&mut rustc)?;
    Ok(Path::new(folder.trim()).is_dir())
}

fn add(workspace: &Workspace) -> bool {
    let mut rustup = process::command("timeout");
    rustup.current_dir(&workspace.root);
    rustup.args([RUSTUP_SECONDS, "rustup", "target", "add", TARGET]);
    process::run(&mut rustup).is_ok()
}

fn with_rustup(workspace: &Workspace) -> Command {
    let mut check = process::cargo(&workspace.root);
    check.args(["check", "--target", TARGET]);
    check.arg("--target-dir").arg(workspace.target.join("wasm"));
    check
}

fn with_debian(workspace: &Workspace) -> Result<Command> {
    let present = || {
        [DEBIAN_CARGO, DEBIAN_RUSTC, DEBIAN_SOURCES].iter().all(|file| Path::new(file).is_file())
    };
    if !present() {
        tools::debian(DEBIAN_PACKAGES)?;
    }
    if !present() {
        return Err(Failure::new(format!("{DEBIAN_SOURCES} is missing after the installation")));
    }
    let mut check = process::command(DEBIAN_CARGO);
    check
        .current_dir(&workspace.root)
        .env("RUSTC", DEBIAN_RUSTC)
        .env("RUSTDOC", DEBIAN_RUSTDOC)
        // Building the standard library is an unstable feature of a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["check", "-Zbuild-std=std,panic_abort", "--target", TARGET])
        .arg("--target-dir")
        .arg(workspace.target.join("wasm-debian"));
    Ok(check)
}
