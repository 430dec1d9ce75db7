//! Running other programs: what is run is printed, and a failure names the program and its status.
//!
//! Owns the environment that children get. Never goes through a shell.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Why a step stopped, in one readable line or block.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Attaches what was being attempted to an error of the standard library.
pub(crate) trait Context<T> {
    fn context(self, attempted: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, attempted: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Failure::new(format!("{attempted}: {error}")))
    }
}

/// A command without the variables that `cargo run` added for this program. Build scripts that
/// watch them would otherwise run again each time `cargo` and `cargo xtask` take turns.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let added_by_cargo = name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_MANIFEST_")
            || matches!(
                &*name,
                "CARGO" | "CARGO_CRATE_NAME" | "CARGO_BIN_NAME" | "CARGO_PRIMARY_PACKAGE"
            );
        if added_by_cargo {
            command.env_remove(&*name);
        }
    }
    command
}

/// `cargo` of the toolchain that runs this program, started in the workspace's root.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = command("cargo");
    command.current_dir(root);
    command
}

/// The command as a person would type it, for messages.
pub(crate) fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| part.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs with the terminal as its output; anything but success is a failure.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", line(command));
    let status = command.status().context(format!("cannot start `{}`", line(command)))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("`{}` ended with {status}", line(command))))
}

/// Runs and returns the standard output; errors stay visible on the terminal.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context(format!("cannot start `{}`", line(command)))?;
    if !output.status.success() {
        return Err(Failure::new(format!("`{}` ended with {}", line(command), output.status)));
    }
    String::from_utf8(output.stdout).context(format!("output of `{}`", line(command)))
}

/// Whether it starts and succeeds, silently.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The full path of a program on `PATH`.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
