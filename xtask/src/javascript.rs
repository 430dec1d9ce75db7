//! Types of the UI's ES modules, checked by TypeScript from their JSDoc comments. Nothing is
//! emitted: browsers load the files as they are.

use crate::process::{self, Failure, Result};
use crate::tools;
use crate::workspace::Workspace;

/// Which modules there are, and how they are read.
const PROJECT: &str = "crates/app/assets/jsconfig.json";

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let project = workspace.root.join(PROJECT);
    if !project.is_file() {
        return Err(Failure::new(format!("there is no {PROJECT}, so nothing would be checked")));
    }
    let compiler = tools::typescript(workspace)?;
    let mut check = process::command(compiler);
    check.current_dir(&workspace.root).arg("--noEmit").arg("--project").arg(project);
    process::run(&mut check)
}
