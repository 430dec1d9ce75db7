//! `cargo xtask release`: the static binary, what goes with it, and a trial of both.
//!
//! Everything comes to lie in `target/dist`: an archive with its checksum, and `image/`, the files of
//! the container's image. What is not static, does not start or does not serve is a failure.

use crate::process::{self, Context, Failure, Result};
use crate::steps::Steps;
use crate::tools;
use crate::workspace::Workspace;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A download server that cannot be reached must not hold up a run.
const RUSTUP_SECONDS: &str = "60";
/// What goes into the archive beside the binary.
const COMPANIONS: &[&str] = &[
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "docs/convene.example.toml",
    "docs/operations.md",
    "packaging/convene.service",
];
/// The user of the container's image.
const IMAGE_USER: u32 = 65532;

pub(crate) fn run() -> Result<()> {
    let workspace = Workspace::load()?;
    let mut steps = Steps::default();
    let target = steps.step("target", || choose_target(&workspace))?;
    let binary = steps.step("build", || build(&workspace, &target))?;
    steps.step("static", || check_static(&binary))?;
    steps.step("systemd unit", || unit(&workspace))?;
    steps.step("trial", || trial(&workspace, &binary))?;
    let image = steps.step("image", || image(&workspace, &binary))?;
    steps.step("trial in the image alone", || trial_in(&image))?;
    steps.step("archive", || archive(&workspace, &binary, &target))?;
    steps.summary();
    Ok(())
}

/// The target that is built: musl where its standard library can be had, else glibc linked in.
fn choose_target(workspace: &Workspace) -> Result<String> {
    let host = host()?;
    let architecture = host.split('-').next().unwrap_or_default();
    let musl = format!("{architecture}-unknown-linux-musl");
    if installed(workspace, &musl)? || add(workspace, &musl) {
        if process::find("musl-gcc").is_none() {
            tools::debian(&["musl-tools"])?;
        }
        return Ok(musl);
    }
    eprintln!("rustup cannot add {musl}: linking the C library of this machine into the binary");
    Ok(format!("{architecture}-unknown-linux-gnu"))
}

fn host() -> Result<String> {
    let text = process::output(process::command("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failure::new("rustc does not say what it runs on"))
}

fn installed(workspace: &Workspace, target: &str) -> Result<bool> {
    let mut rustc = process::command("rustc");
    rustc.current_dir(&workspace.root).args(["--print", "target-libdir", "--target", target]);
    Ok(Path::new(process::output(&mut rustc)?.trim()).is_dir())
}

fn add(workspace: &Workspace, target: &str) -> bool {
    let mut rustup = process::command("timeout");
    rustup.current_dir(&workspace.root);
    rustup.args([RUSTUP_SECONDS, "rustup", "target", "add", target]);
    process::run(&mut rustup).is_ok()
}

fn build(workspace: &Workspace, target: &str) -> Result<PathBuf> {
    let variable = target.to_uppercase().replace('-', "_");
    let mut build = process::cargo(&workspace.root);
    build.args(["build", "--release", "--locked", "--bin", "convene", "--target", target]);
    // For the target alone: build scripts and macros run on this machine and are not static.
    build.env(format!("CARGO_TARGET_{variable}_RUSTFLAGS"), "-C target-feature=+crt-static");
    if target.ends_with("-musl") {
        build.env(format!("CC_{}", target.replace('-', "_")), "musl-gcc");
    }
    process::run(&mut build)?;
    Ok(workspace.target.join(target).join("release").join("convene"))
}

/// Refuses a binary that asks for a dynamic loader, and so for libraries of the machine it runs on.
fn check_static(binary: &Path) -> Result<()> {
    let bytes = std::fs::read(binary).context(binary.display())?;
    match interpreter(&bytes) {
        Some(false) => {}
        Some(true) => return Err(Failure::new(format!("{} is not static", binary.display()))),
        None => return Err(Failure::new(format!("{} is no 64-bit ELF", binary.display()))),
    }
    eprintln!("{} is static, {} MiB", binary.display(), bytes.len() >> 20);
    Ok(())
}

/// Whether an ELF file (64 bits, little-endian) names a loader; `None` when it is no such file.
fn interpreter(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, len: usize| {
        let bytes = elf.get(at..at + len)?;
        Some(bytes.iter().rev().fold(0_u64, |all, byte| (all << 8) | u64::from(*byte)))
    };
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let start = usize::try_from(number(32, 8)?).ok()?;
    let (size, count) = (number(54, 2)? as usize, number(56, 2)? as usize);
    let mut found = false;
    for place in 0..count {
        found |= number(start + place * size, 4)? == u64::from(PT_INTERP);
    }
    Some(found)
}

/// Has systemd read the unit, where it is there.
fn unit(workspace: &Workspace) -> Result<()> {
    if process::find("systemd-analyze").is_none() {
        eprintln!("systemd-analyze is not on this machine: the unit is not checked");
        return Ok(());
    }
    let source = workspace.root.join("packaging/convene.service");
    let unit = std::fs::read_to_string(&source).context(source.display())?;
    // It names the place of an installation, which need not exist here.
    let folder = workspace.target.join("dist").join("unit");
    std::fs::create_dir_all(&folder).context(folder.display())?;
    let copy = folder.join("convene.service");
    std::fs::write(&copy, unit.replace("/usr/local/bin/convene", "/bin/true"))
        .context(copy.display())?;
    process::run(process::command("systemd-analyze").arg("verify").arg(&copy))?;
    let mut security = process::command("systemd-analyze");
    security.args(["security", "--offline=true", "--threshold=20", "--no-pager"]);
    process::run(security.arg(&copy).stdout(Stdio::null()))
}

/// Starts the binary in an empty environment, has it serve, and stops it in order.
fn trial(workspace: &Workspace, binary: &Path) -> Result<()> {
    let folder = workspace.target.join("dist").join("trial");
    empty(&folder)?;
    let mut serve = Command::new(binary);
    serve.current_dir(&folder).args(["--data-dir", "data"]);
    serves(serve, || Command::new(binary))
}

/// The same with nothing on the disk but the image's files, as its user; needs root.
fn trial_in(image: &Path) -> Result<()> {
    let user = process::output(process::command("id").arg("-u"))?;
    if user.trim() != "0" {
        eprintln!("only root can try the image: that is left to whoever builds it");
        return Ok(());
    }
    // By its full path, for it is started in an empty environment.
    let chroot = [process::find("chroot"), Some(PathBuf::from("/usr/sbin/chroot"))];
    let chroot = chroot.into_iter().flatten().find(|file| file.is_file());
    let chroot = chroot.ok_or_else(|| Failure::new("there is no chroot on this machine"))?;
    let inside = || {
        let mut command = Command::new(&chroot);
        command.arg(format!("--userspec={IMAGE_USER}:{IMAGE_USER}")).arg(image);
        command.arg("/usr/bin/convene");
        command
    };
    let mut serve = inside();
    serve.args(["serve", "--data-dir", "/data/trial"]);
    serves(serve, inside)?;
    empty(&image.join("data"))?;
    own(&image.join("data"))
}

/// Whether `serve` serves, asked by `convene healthcheck`, and ends with success when it is told to.
fn serves(mut serve: Command, convene: impl Fn() -> Command) -> Result<()> {
    serve.env_clear().args(["--listen", "127.0.0.1:0"]).stdin(Stdio::null());
    let mut child = serve.stdout(Stdio::piped()).spawn().context("the binary does not start")?;
    let outcome = asked(&mut child, &convene);
    if outcome.is_err() {
        let _ = child.kill();
    }
    let stopped = process::command("kill").arg(child.id().to_string()).status();
    let status = child.wait().context("the binary's end")?;
    outcome?;
    if !stopped.is_ok_and(|stopped| stopped.success()) || !status.success() {
        return Err(Failure::new(format!("asked to stop, the binary ended with {status}")));
    }
    Ok(())
}

fn asked(child: &mut Child, convene: &impl Fn() -> Command) -> Result<()> {
    let out = child.stdout.take().ok_or_else(|| Failure::new("it has no output"))?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line).context("its output")?;
    let address = line
        .trim()
        .strip_prefix("Convene is ready at http://")
        .ok_or_else(|| Failure::new(format!("it said {line:?} and not where it serves")))?
        .trim_end_matches('/');
    for arguments in [&["healthcheck"][..], &["healthcheck", "--ready"]] {
        let mut ask = convene();
        ask.env_clear().args(arguments).args(["--address", address]);
        process::run(&mut ask)?;
    }
    let mut refused = convene();
    refused.env_clear().args(["healthcheck", "--address", "127.0.0.1:1"]);
    match process::succeeds(&mut refused) {
        false => Ok(()),
        true => Err(Failure::new("a health check that nobody answers succeeds")),
    }
}

/// The files of the container's image.
fn image(workspace: &Workspace, binary: &Path) -> Result<PathBuf> {
    let image = workspace.target.join("dist").join("image");
    empty(&image)?;
    let bin = image.join("usr/bin");
    for folder in [&bin, &image.join("data")] {
        std::fs::create_dir_all(folder).context(folder.display())?;
    }
    let copy = bin.join("convene");
    std::fs::copy(binary, &copy).context(copy.display())?;
    own(&image.join("data"))?;
    Ok(image)
}

/// Gives a folder to the image's user, where this user may; the image's recipe does it as well.
fn own(folder: &Path) -> Result<()> {
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(folder, private).context(folder.display())?;
    let _ = chown(folder, Some(IMAGE_USER), Some(IMAGE_USER));
    Ok(())
}

fn archive(workspace: &Workspace, binary: &Path, target: &str) -> Result<()> {
    let dist = workspace.target.join("dist");
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("convene-{version}-{target}");
    let folder = dist.join(&name);
    empty(&folder)?;
    let copy = |from: &Path| -> Result<()> {
        let file = from.file_name().ok_or_else(|| Failure::new("a file without a name"))?;
        std::fs::copy(from, folder.join(file)).map(drop).context(from.display())
    };
    copy(binary)?;
    for companion in COMPANIONS {
        copy(&workspace.root.join(companion))?;
    }
    let file = format!("{name}.tar.gz");
    let mut tar = process::command("tar");
    // The same files give the same archive.
    tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]);
    process::run(tar.arg("-C").arg(&dist).arg("-czf").arg(dist.join(&file)).arg(&name))?;
    let sum = process::output(process::command("sha256sum").current_dir(&dist).arg(&file))?;
    let sums = dist.join(format!("{file}.sha256"));
    std::fs::write(&sums, &sum).context(sums.display())?;
    eprintln!("{}", dist.join(&file).display());
    Ok(())
}

fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).context(folder.display())?;
    }
    std::fs::create_dir_all(folder).context(folder.display())
}

#[cfg(test)]
mod tests {
    use super::interpreter;

    /// An ELF file's head with program headers of these types.
    fn elf(types: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = types.len() as u8;
        for kind in types {
            let mut header = [0; 56];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            bytes.extend_from_slice(&header);
        }
        bytes
    }

    #[test]
    fn a_binary_that_names_a_loader_is_not_static() {
        assert_eq!(interpreter(&elf(&[1, 2])), Some(false));
        assert_eq!(interpreter(&elf(&[6, 3, 1])), Some(true));
        assert_eq!(interpreter(b"#!/bin/sh"), None);
        assert_eq!(interpreter(&elf(&[1, 3])[..100]), None);
        let own = std::fs::read("/proc/self/exe").expect("this test's own binary");
        assert!(interpreter(&own).is_some());
    }
}
