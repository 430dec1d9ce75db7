//! `cargo xtask openapi`: writes the OpenAPI documents that the binary prints, or checks that they
//! are written.

use std::path::Path;

use crate::process::{self, Context, Failure, Result};
use crate::steps::Steps;
use crate::test;
use crate::workspace::Workspace;

/// Each document: its name at the binary's command line, and its file.
const DOCUMENTS: &[(&str, &str)] =
    &[("app", "docs/api/openapi.json"), ("infra", "docs/api/openapi-infra.json")];

/// Builds the binary and writes what it prints.
pub(crate) fn run() -> Result<()> {
    let workspace = Workspace::load()?;
    let mut steps = Steps::default();
    let binary = steps.step("build", || test::build(&workspace))?;
    for (api, file) in DOCUMENTS {
        let path = workspace.root.join(file);
        std::fs::write(&path, printed(&binary, api)?).context(path.display())?;
        eprintln!("wrote {file}");
    }
    Ok(())
}

/// That the files are what the binary prints.
pub(crate) fn check(workspace: &Workspace, binary: &Path) -> Result<()> {
    for (api, file) in DOCUMENTS {
        let path = workspace.root.join(file);
        let written = std::fs::read_to_string(&path).context(path.display())?;
        if written != printed(binary, api)? {
            let why = format!("{file} is not what is served: run `cargo xtask openapi`");
            return Err(Failure::new(why));
        }
    }
    Ok(())
}

fn printed(binary: &Path, api: &str) -> Result<String> {
    process::output(process::command(binary).args(["openapi", api]))
}
