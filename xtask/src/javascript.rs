//! Types of the UI's ES modules, checked by TypeScript from their JSDoc comments. Nothing is
//! emitted: browsers load the files as they are.

use crate::process::{self, Context, Result};
use crate::tools;
use crate::workspace::Workspace;
use std::path::{Path, PathBuf};

const MODULES: &str = "crates/app/assets/js";
const PROJECT: &str = "crates/app/assets/jsconfig.json";
/// How modules are read while [`PROJECT`] does not exist.
const OPTIONS: &[&str] = &[
    "--allowJs",
    "--checkJs",
    "--strict",
    "--target",
    "es2022",
    "--module",
    "esnext",
    "--moduleResolution",
    "bundler",
    "--lib",
    "es2023,dom,dom.iterable",
];

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let folder = workspace.root.join(MODULES);
    let project = workspace.root.join(PROJECT);
    let mut modules = Vec::new();
    if folder.is_dir() {
        collect(&folder, &mut modules)?;
    }
    if modules.is_empty() && !project.is_file() {
        eprintln!("no modules in {MODULES}");
        return Ok(());
    }
    let compiler = tools::typescript(workspace)?;
    let mut check = process::command(compiler);
    check.current_dir(&workspace.root).arg("--noEmit");
    if project.is_file() {
        check.arg("--project").arg(project);
    } else {
        check.args(OPTIONS).args(modules);
    }
    process::run(&mut check)
}

fn collect(folder: &Path, modules: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).context(folder.display())? {
        let path = entry.context(folder.display())?.path();
        if path.is_dir() {
            collect(&path, modules)?;
        } else if path.extension().is_some_and(|extension| extension == "js") {
            modules.push(path);
        }
    }
    Ok(())
}
