//! `cargo xtask test` and `cargo xtask soak`: everything a test needs is built, found or installed
//! first, and handed to the tests as environment variables.
//!
//! | variable | what |
//! |---|---|
//! | `CONVENE_BIN` | the binary `convene`, built with the dev profile |
//! | `CONVENE_CHROMIUM`, `CONVENE_CHROMEDRIVER` | the browser that tests drive |
//! | `CONVENE_TEST_PYTHON` | a Python with the packages of the examples |
//! | `CONVENE_TEST_FAKETIME` | the library that shifts a process' clock |
//! | `CONVENE_TEST_MCP_SERVER` | the script of the reference MCP server, for `node` |
//! | `CONVENE_TEST_LITELLM` | LiteLLM's proxy, for `soak` alone |
//! | `CONVENE_TEST_AXE` | the script of axe-core, which checks pages for accessibility |
//!
//! A full disk is tried on a small file system that the test mounts for itself; where neither root nor user
//! namespaces allow that, the test fails unless `CONVENE_TEST_SMALL_DISK` names one.
//!
//! PostgreSQL's server is installed; the first test that needs it starts one for the whole run
//! (`convene_testing::postgres`), unless `CONVENE_TEST_POSTGRES_URL` names another. The suites of the App
//! and the Orchestrator run a second time with `CONVENE_TEST_DATABASE=postgres`.

use crate::process::{self, Context, Failure, Result};
use crate::steps::Steps;
use crate::workspace::Workspace;
use crate::{javascript, tools};
use serde_json::Value;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;

/// What tests need beside their own code.
pub(crate) struct Surroundings {
    path: OsString,
    /// The binary `convene`.
    pub(crate) binary: PathBuf,
    browser: tools::Browser,
    python: PathBuf,
    faketime: PathBuf,
    axe: PathBuf,
    mcp_server: PathBuf,
    litellm: Option<PathBuf>,
}

/// All tests; with arguments, only `cargo nextest run` with these.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let workspace = Workspace::load()?;
    let mut steps = Steps::default();
    let surroundings = prepare(&workspace, &mut steps)?;
    if arguments.is_empty() {
        suite(&workspace, &surroundings, &mut steps)?;
    } else {
        steps.step("chosen tests", || nextest(&workspace, &surroundings, arguments))?;
        eprintln!("doctests and the types of the UI's modules run only without arguments");
    }
    steps.summary();
    Ok(())
}

/// The tests that are too heavy for the normal suite.
pub(crate) fn soak(arguments: &[String]) -> Result<()> {
    let workspace = Workspace::load()?;
    let mut steps = Steps::default();
    let mut surroundings = prepare(&workspace, &mut steps)?;
    surroundings.litellm = Some(steps.step("tool: litellm", || tools::litellm(&workspace))?);
    let mut all = vec!["--profile".to_owned(), "soak".to_owned()];
    all.extend_from_slice(arguments);
    steps.step("soak tests", || nextest(&workspace, &surroundings, &all))?;
    steps.summary();
    Ok(())
}

/// Finds or installs tools and builds what is tested.
pub(crate) fn prepare(workspace: &Workspace, steps: &mut Steps) -> Result<Surroundings> {
    let path = steps.step("tool: cargo-nextest", || tools::nextest(workspace))?;
    let browser = steps.step("tool: browser", tools::browser)?;
    let python = steps.step("tool: python", || tools::python(workspace))?;
    let faketime = steps.step("tool: faketime", tools::faketime)?;
    steps.step("tool: postgresql", tools::postgres)?;
    let axe = steps.step("tool: axe-core", || tools::axe(workspace))?;
    let mcp_server = steps.step("tool: mcp server", || tools::mcp_server(workspace))?;
    let binary = steps.step("build", || build(workspace))?;
    let litellm = None;
    Ok(Surroundings { path, binary, browser, python, faketime, axe, mcp_server, litellm })
}

/// The whole suite, after [`prepare`].
pub(crate) fn suite(
    workspace: &Workspace,
    surroundings: &Surroundings,
    steps: &mut Steps,
) -> Result<()> {
    steps.step("types of the UI's modules", || javascript::check(workspace))?;
    steps.step("tests", || nextest(workspace, surroundings, &[]))?;
    steps.step("tests on PostgreSQL", || on_postgres(workspace, surroundings))?;
    steps.step("doctests", || {
        process::run(process::cargo(&workspace.root).args(["test", "--doc", "--workspace"]))
    })
}

/// Builds the binary together with the tests. Apart from each other they would resolve to other
/// features of the same dependencies, and half of the tree would be compiled twice.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let mut build = process::cargo(&workspace.root);
    build.args(["build", "--workspace", "--bin", "convene", "--tests"]);
    build.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    eprintln!("$ {}", process::line(&build));
    let messages = process::output(&mut build)?;
    for message in messages.lines() {
        let message: Value = serde_json::from_str(message).context("a message of cargo build")?;
        let target = &message["target"];
        let is_binary = target["name"] == "convene" && target["kind"][0] == "bin";
        if let Some(file) = message["executable"].as_str()
            && is_binary
            && message["profile"]["test"] == false
        {
            return Ok(PathBuf::from(file));
        }
    }
    Err(Failure::new("cargo built no binary named `convene`"))
}

/// The integration suites of the services that have a database, whose worlds stand on SQLite by
/// default. What concerns PostgreSQL alone is among the other tests.
fn on_postgres(workspace: &Workspace, surroundings: &Surroundings) -> Result<()> {
    // Of the whole workspace: fewer packages have other features, and would be compiled once more.
    let of_both = "kind(test) & (package(convene-orchestrator) | package(convene-app))";
    let chosen = ["--workspace", "-E", of_both];
    let mut tests = command(workspace, surroundings);
    process::run(tests.env("CONVENE_TEST_DATABASE", "postgres").args(chosen))
}

fn nextest(workspace: &Workspace, surroundings: &Surroundings, arguments: &[String]) -> Result<()> {
    let mut tests = command(workspace, surroundings);
    if !arguments.iter().any(|argument| chooses_packages(argument)) {
        tests.arg("--workspace");
    }
    process::run(tests.args(arguments))
}

/// `cargo nextest run` with what tests need.
fn command(workspace: &Workspace, surroundings: &Surroundings) -> std::process::Command {
    let mut tests = process::cargo(&workspace.root);
    tests
        .env("PATH", &surroundings.path)
        .env("CONVENE_BIN", &surroundings.binary)
        .env("CONVENE_CHROMIUM", &surroundings.browser.chromium)
        .env("CONVENE_CHROMEDRIVER", &surroundings.browser.chromedriver)
        .env("CONVENE_TEST_PYTHON", &surroundings.python)
        .env("CONVENE_TEST_FAKETIME", &surroundings.faketime)
        .env("CONVENE_TEST_AXE", &surroundings.axe)
        .env("CONVENE_TEST_MCP_SERVER", &surroundings.mcp_server)
        .args(["nextest", "run"]);
    if let Some(litellm) = &surroundings.litellm {
        tests.env("CONVENE_TEST_LITELLM", litellm);
    }
    tests
}

fn chooses_packages(argument: &str) -> bool {
    let long = argument == "--package" || argument.starts_with("--package=");
    long || (argument.starts_with("-p") && !argument.starts_with("--"))
}

#[cfg(test)]
mod tests {
    use super::chooses_packages;

    #[test]
    fn only_package_options_narrow_the_workspace() {
        for argument in ["-p", "-pxtask", "--package", "--package=xtask"] {
            assert!(chooses_packages(argument), "{argument}");
        }
        for argument in ["--profile", "--no-fail-fast", "package", "a_test"] {
            assert!(!chooses_packages(argument), "{argument}");
        }
    }
}
