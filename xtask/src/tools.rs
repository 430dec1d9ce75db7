//! Tools that checks and tests need: found, or installed.
//!
//! Cargo's and npm's and Python's packages go below the target folder, pinned to a version;
//! programs come from Debian through `apt-get`. What cannot be had is a failure that says what to
//! install, never a check that is left out.

use crate::process::{self, Context, Failure, Result};
use crate::workspace::Workspace;
use std::path::{Path, PathBuf};

const NEXTEST: CargoTool = CargoTool {
    package: "cargo-nextest",
    version: "0.9.143",
    // Without its self-updater, which would double what there is to compile.
    features: &["--no-default-features", "--features", "default-no-update"],
};
const DENY: CargoTool = CargoTool { package: "cargo-deny", version: "0.20.2", features: &[] };
const TYPESCRIPT: &str = "typescript@5.9.3";
/// Finds what keeps people from using a page.
const AXE: &str = "axe-core@4.11.4";
/// An MCP server that shows everything that the protocol has.
const MCP_SERVER: &str = "@modelcontextprotocol/server-everything@2026.8.31";
/// What the Python examples import, as their readers install it, what holds the APIs to their
/// documents, and an OpenAI-compatible proxy.
const PYTHON_REQUIREMENTS: [&str; 4] = [
    "examples/requirements.txt",
    "examples/requirements-contract.txt",
    "examples/requirements-gateway.txt",
    "examples/requirements-mcp.txt",
];

struct CargoTool {
    package: &'static str,
    version: &'static str,
    features: &'static [&'static str],
}

/// A `PATH` on which `cargo nextest` is found.
pub(crate) fn nextest(workspace: &Workspace) -> Result<std::ffi::OsString> {
    cargo_tool(workspace, &NEXTEST)
}

/// A `PATH` on which `cargo deny` is found.
pub(crate) fn deny(workspace: &Workspace) -> Result<std::ffi::OsString> {
    cargo_tool(workspace, &DENY)
}

fn cargo_tool(workspace: &Workspace, tool: &CargoTool) -> Result<std::ffi::OsString> {
    let root = workspace.tools();
    let mut folders = vec![root.join("bin")];
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let path = std::env::join_paths(folders).context("PATH")?;
    let mut version = process::cargo(&workspace.root);
    version.env("PATH", &path).arg(tool.package.trim_start_matches("cargo-")).arg("--version");
    if process::succeeds(&mut version) {
        return Ok(path);
    }
    let mut install = process::cargo(&workspace.root);
    // A tool that runs for seconds is not worth minutes of optimisation.
    install.args(["install", "--locked", "--debug", tool.package, "--version", tool.version]);
    install.args(tool.features).arg("--root").arg(&root);
    install.arg("--target-dir").arg(root.join("build")).env("CARGO_PROFILE_DEV_DEBUG", "0");
    process::run(&mut install)?;
    if !process::succeeds(&mut version) {
        return Err(Failure::new(format!("{} was installed but does not start", tool.package)));
    }
    Ok(path)
}

/// Installs packages with `apt-get`, after refreshing its lists.
pub(crate) fn debian(packages: &[&str]) -> Result<()> {
    let wanted = packages.join(" ");
    if process::find("apt-get").is_none() {
        return Err(Failure::new(format!(
            "this machine has no apt-get: install what Debian calls `{wanted}`"
        )));
    }
    for arguments in [&["update"][..], &["install", "-y", "--no-install-recommends"]] {
        let mut command = apt_get().context(format!("cannot install `{wanted}`"))?;
        command.args(arguments);
        if arguments[0] == "install" {
            command.args(packages);
        }
        process::run(&mut command).context(format!("cannot install `{wanted}`"))?;
    }
    Ok(())
}

fn apt_get() -> Result<std::process::Command> {
    let user = process::output(process::command("id").arg("-u"))?;
    if user.trim() == "0" {
        let mut command = process::command("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        return Ok(command);
    }
    if process::find("sudo").is_none() {
        return Err(Failure::new("apt-get needs root, and there is no sudo"));
    }
    let mut command = process::command("sudo");
    // Without a terminal a password cannot be asked for: better to fail than to wait.
    command.args(["--non-interactive", "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    Ok(command)
}

/// The browser that tests drive.
pub(crate) struct Browser {
    pub(crate) chromium: PathBuf,
    pub(crate) chromedriver: PathBuf,
}

/// `CONVENE_CHROMIUM` and `CONVENE_CHROMEDRIVER` where they are set, else Debian's packages.
pub(crate) fn browser() -> Result<Browser> {
    let find = || {
        let chromium = named("CONVENE_CHROMIUM").or_else(|| process::find("chromium"))?;
        let driver = named("CONVENE_CHROMEDRIVER").or_else(|| process::find("chromedriver"))?;
        Some(Browser { chromium, chromedriver: driver })
    };
    if let Some(browser) = find() {
        return Ok(browser);
    }
    debian(&["chromium", "chromium-driver"])?;
    find().ok_or_else(|| Failure::new("chromium and chromedriver are not on PATH"))
}

fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The library that shifts a process' clock, for tests of clocks that disagree:
/// `CONVENE_TEST_FAKETIME` where it is set, else Debian's package.
pub(crate) fn faketime() -> Result<PathBuf> {
    let find = || {
        named("CONVENE_TEST_FAKETIME").or_else(|| {
            let architecture = std::env::consts::ARCH;
            let library = PathBuf::from(format!(
                "/usr/lib/{architecture}-linux-gnu/faketime/libfaketimeMT.so.1"
            ));
            library.exists().then_some(library)
        })
    };
    if let Some(library) = find() {
        return Ok(library);
    }
    debian(&["libfaketime"])?;
    find().ok_or_else(|| Failure::new("libfaketimeMT.so.1 is not where Debian puts it"))
}

/// That tests can start a PostgreSQL server, or are given one: `CONVENE_TEST_POSTGRES_URL` or
/// `CONVENE_TEST_POSTGRES_BIN` where they are set, else Debian's package.
pub(crate) fn postgres() -> Result<()> {
    let given = ["CONVENE_TEST_POSTGRES_URL", "CONVENE_TEST_POSTGRES_BIN"];
    if given.iter().any(|variable| named(variable).is_some()) {
        return Ok(());
    }
    let there = || {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        versions.map(|version| version.path().join("bin/initdb")).any(|program| program.exists())
    };
    if there() {
        return Ok(());
    }
    // Debian's package starts a server of its own, which nobody here uses.
    debian(&["postgresql"])?;
    if there() {
        return Ok(());
    }
    Err(Failure::new("initdb is not where Debian puts it"))
}

/// A Python with the packages of the examples, in a virtual environment below the target folder.
pub(crate) fn python(workspace: &Workspace) -> Result<PathBuf> {
    virtual_environment(workspace, "python", &PYTHON_REQUIREMENTS)
}

/// LiteLLM's proxy, which soak tests put between agents and a model. It is too large for every run.
pub(crate) fn litellm(workspace: &Workspace) -> Result<PathBuf> {
    let python = virtual_environment(workspace, "litellm", &["examples/requirements-proxy.txt"])?;
    let program = python.with_file_name("litellm");
    if program.exists() {
        return Ok(program);
    }
    Err(Failure::new(format!("{} was not installed", program.display())))
}

/// The Python of a virtual environment with these requirements, made anew when they have changed.
fn virtual_environment(workspace: &Workspace, name: &str, files: &[&str]) -> Result<PathBuf> {
    let folder = workspace.tools().join(name);
    let python = folder.join("bin").join("python");
    let requirements: Vec<_> = files.iter().map(|file| workspace.root.join(file)).collect();
    let mut wanted = String::new();
    for file in &requirements {
        wanted.push_str(&read(file)?);
    }
    let installed = folder.join("installed-requirements.txt");
    if read(&installed).is_ok_and(|installed| installed == wanted)
        && process::succeeds(process::command(&python).arg("--version"))
    {
        return Ok(python);
    }
    let create = |program: &Path| {
        let mut command = process::command(program);
        command.args(["-m", "venv", "--clear"]).arg(&folder);
        command
    };
    let present = process::find("python3");
    if !present.is_some_and(|program| process::succeeds(&mut create(&program))) {
        debian(&["python3", "python3-venv"])?;
        process::run(&mut create(Path::new("/usr/bin/python3")))?;
    }
    let mut install = process::command(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    for file in &requirements {
        install.arg("-r").arg(file);
    }
    process::run(&mut install)?;
    std::fs::write(&installed, wanted).context(installed.display())?;
    Ok(python)
}

/// `tsc`, from npm, below the target folder.
pub(crate) fn typescript(workspace: &Workspace) -> Result<PathBuf> {
    if process::find("node").is_none() || process::find("npm").is_none() {
        debian(&["nodejs", "npm"])?;
    }
    npm_file(workspace, TYPESCRIPT, ".bin/tsc")
}

/// The script of axe-core, from npm, below the target folder.
pub(crate) fn axe(workspace: &Workspace) -> Result<PathBuf> {
    if process::find("npm").is_none() {
        debian(&["nodejs", "npm"])?;
    }
    npm_file(workspace, AXE, "axe-core/axe.min.js")
}

/// The script of the reference MCP server, from npm, below the target folder.
pub(crate) fn mcp_server(workspace: &Workspace) -> Result<PathBuf> {
    if process::find("node").is_none() || process::find("npm").is_none() {
        debian(&["nodejs", "npm"])?;
    }
    npm_file(workspace, MCP_SERVER, "@modelcontextprotocol/server-everything/dist/index.js")
}

/// A file of a package of npm, which is installed if it is not there.
fn npm_file(workspace: &Workspace, package: &str, file: &str) -> Result<PathBuf> {
    let folder = workspace.tools().join(package.trim_start_matches('@').replace(['@', '/'], "-"));
    let path = folder.join("node_modules").join(file);
    if path.is_file() {
        return Ok(path);
    }
    std::fs::create_dir_all(&folder).context(folder.display())?;
    let mut install = process::command("npm");
    install.args(["install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"]);
    process::run(install.arg("--prefix").arg(&folder).arg(package))?;
    if !path.is_file() {
        return Err(Failure::new(format!("{package} was installed without {file}")));
    }
    Ok(path)
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).context(file.display())
}
