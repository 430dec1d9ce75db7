//! `cargo xtask …`: what the project does to itself: tests, checks, and the whole of CI.
//!
//! Everything that CI runs is a command here, so that it runs the same on a desk. Tools that are
//! missing are installed below the target folder, or through `apt-get`; nothing else on the
//! machine is changed.

mod ci;
mod javascript;
mod openapi;
mod process;
mod release;
mod steps;
mod test;
mod tidy;
mod tools;
mod wasm;
mod workspace;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tests and checks of the Convene workspace")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that must hold before a change lands: format, lints, docs, licences, wasm, tests
    Ci,
    /// All tests: Rust tests, doctests, types of the UI's modules. With arguments, only `cargo nextest run` with them
    Test {
        /// Passed on to `cargo nextest run`, for example `-p convene-model` or a part of a test's name
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        nextest: Vec<String>,
    },
    /// The heavy tests, whose names begin with `soak_`; arguments go to `cargo nextest run`
    Soak {
        /// Passed on to `cargo nextest run`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        nextest: Vec<String>,
    },
    /// Compile the crates that Cloudflare shares for `wasm32-unknown-unknown`
    Wasm,
    /// The static binary with an archive and the container's files in `target/dist`, built and tried
    Release,
    /// Write the OpenAPI documents of docs/api from the code
    Openapi,
    /// House rules: module headers, file sizes, the code map, the direction of dependencies
    Tidy,
}

fn main() -> std::process::ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Ci => ci::run(),
        Command::Test { nextest } => test::run(&nextest),
        Command::Soak { nextest } => test::soak(&nextest),
        Command::Wasm => wasm::run(),
        Command::Release => release::run(),
        Command::Openapi => openapi::run(),
        Command::Tidy => tidy::run(),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nxtask: FAILED: {failure}");
            std::process::ExitCode::FAILURE
        }
    }
}
