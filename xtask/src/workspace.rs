//! Where things are, and what `cargo metadata` says of the workspace.

use crate::process::{self, Context, Failure, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The workspace as cargo sees it.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// Where everything is built; `CARGO_TARGET_DIR` decides.
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// A member of the workspace.
pub(crate) struct Package {
    pub(crate) name: String,
    /// Direct dependencies of the library or binary itself, those of its tests left out.
    pub(crate) dependencies: Vec<String>,
}

impl Workspace {
    pub(crate) fn load() -> Result<Self> {
        let root = root()?;
        let text = process::output(process::cargo(&root).args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
        ]))?;
        let metadata: Value = serde_json::from_str(&text).context("cargo metadata")?;
        let packages = array(&metadata, "packages")?.iter().map(Package::parse);
        Ok(Self {
            target: PathBuf::from(string(&metadata, "target_directory")?),
            packages: packages.collect::<Result<_>>()?,
            root,
        })
    }

    /// The folder of tools that are installed for this workspace only.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }
}

impl Package {
    fn parse(package: &Value) -> Result<Self> {
        let dependencies = array(package, "dependencies")?
            .iter()
            .filter(|dependency| dependency["kind"] != "dev")
            .map(|dependency| string(dependency, "name"));
        Ok(Self {
            name: string(package, "name")?,
            dependencies: dependencies.collect::<Result<_>>()?,
        })
    }
}

fn root() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest.parent().map(Path::to_path_buf);
    root.ok_or_else(|| Failure::new(format!("{} has no parent folder", manifest.display())))
}

fn array<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value[key].as_array().ok_or_else(|| Failure::new(format!("cargo metadata has no `{key}`")))
}

fn string(value: &Value, key: &str) -> Result<String> {
    let text = value[key].as_str().map(str::to_owned);
    text.ok_or_else(|| Failure::new(format!("cargo metadata has no `{key}`")))
}
