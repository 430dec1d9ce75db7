//! `cargo xtask ci`: every check, cheapest first, up to the whole test suite.

use crate::process::{self, Result};
use crate::steps::Steps;
use crate::workspace::Workspace;
use crate::{openapi, test, tidy, tools, wasm};

pub(crate) fn run() -> Result<()> {
    let workspace = Workspace::load()?;
    let mut steps = Steps::default();
    let cargo = |arguments: &[&str]| process::run(process::cargo(&workspace.root).args(arguments));

    steps.step("format", || cargo(&["fmt", "--all", "--check"]))?;
    steps.step("tidy", || tidy::check(&workspace))?;
    steps.step("clippy", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
    })?;
    steps.step("docs", || {
        let mut doc = process::cargo(&workspace.root);
        doc.env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--workspace", "--no-deps"]);
        process::run(&mut doc)
    })?;
    let path = steps.step("tool: cargo-deny", || tools::deny(&workspace))?;
    steps.step("licences, bans, sources", || {
        let mut deny = process::cargo(&workspace.root);
        deny.env("PATH", path).args(["deny", "check", "--hide-inclusion-graph"]);
        process::run(deny.args(["bans", "licenses", "sources"]))
    })?;
    steps.step("wasm", || wasm::check(&workspace))?;
    let surroundings = test::prepare(&workspace, &mut steps)?;
    steps.step("example configuration", || {
        tidy::example_configuration(&workspace, &surroundings.binary)
    })?;
    steps.step("API documents", || openapi::check(&workspace, &surroundings.binary))?;
    test::suite(&workspace, &surroundings, &mut steps)?;
    steps.summary();
    Ok(())
}
