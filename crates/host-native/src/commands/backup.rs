//! `convene backup`: a copy of the whole data directory, whether a process serves from it or not.
//!
//! The groups come first, then the directory, then the workspace: what is newer in the copy may know
//! of groups that the older part does not have yet, which happens in daily life too, and never the
//! other way round. Keys and the configuration come along; nobody but the owner can read the copy.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use clap::Args;
use convene_storage::backup;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::{
    cli::{CliError, DataArgs},
    config::StoreKind,
};

/// `convene backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The directory to make; it must not exist yet
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    #[command(flatten)]
    data: DataArgs,
}

/// Makes the copy beside its name and renames it when it is complete.
pub(crate) fn run(args: BackupArgs) -> Result<(), CliError> {
    let config_file = args.data.config_file();
    let config = args.data.load()?;
    let from = &config.data_dir;
    if !from.is_dir() {
        let shown = from.display();
        return Err(format!("there is no {shown}; say where the data is with --data-dir").into());
    }
    let to = &args.to;
    if to.exists() {
        return Err(
            format!("{} exists already; a backup makes its own folder", to.display()).into()
        );
    }
    let name = to.file_name().ok_or("--to names no folder")?;
    let mut partial_name = name.to_owned();
    partial_name.push(".partial");
    let partial = to.with_file_name(partial_name);
    if partial.exists() {
        let shown = partial.display();
        return Err(format!("{shown} is left from a backup that broke off; remove it").into());
    }
    make_dir(&partial)?;
    let archives = from.join("archives");
    let has_archives = config.archives.store == StoreKind::Folder && config.archives.path.is_none();
    let archives = archives.is_dir().then_some(archives).filter(|_| has_archives);
    let copied = copy(from, archives.as_deref(), config_file.as_deref(), &partial);
    let bytes = match copied {
        Ok(bytes) => bytes,
        Err(error) => {
            // Half a backup is of no use, and it may be what filled the disk.
            if let Err(stays) = fs::remove_dir_all(&partial) {
                eprintln!("convene: {} stays: {stays}", partial.display());
            }
            return Err(error);
        }
    };
    fs::rename(&partial, to)?;
    sync_dir(to.parent().filter(|parent| !parent.as_os_str().is_empty()))?;
    println!("Backed up {} to {}.", HumanBytes(bytes), to.display());
    if !has_archives {
        println!(
            "Not in it, since they lie elsewhere: the snapshots of archived groups ([archives])."
        );
    }
    for (key, path) in config.key_files() {
        if !path.starts_with(from) {
            println!("Not in it, since it lies elsewhere: {} ({key}).", path.display());
        }
    }
    if let Some(postgres) = config.database.postgres()? {
        println!("Not in it: the schemas infra and workspace of {postgres}.");
        println!("Dump them now, after the groups: pg_dump --schema=infra --schema=workspace");
    }
    println!(
        "To restore it, copy it, run `convene journal adopt --data-dir COPY`, then serve from it."
    );
    Ok(())
}

/// Copies everything; returns how much it was.
fn copy(
    from: &Path,
    archives: Option<&Path>,
    config_file: Option<&Path>,
    to: &Path,
) -> Result<u64, CliError> {
    let groups = from.join("groups");
    let databases = ["infra.db", "workspace.db"].map(|name| (from.join(name), to.join(name)));
    let databases = databases.into_iter().filter(|(path, _)| path.is_file());
    let databases: Vec<_> = databases.collect();
    let mut size: u64 = databases.iter().map(|(path, _)| backup::size_of_database(path)).sum();
    if groups.is_dir() {
        size += backup::size_of_groups(&groups)?;
    }
    if let Some(archives) = archives {
        size += size_of(archives)?;
    }
    let bar = progress_bar(size, "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec}");
    let mut progress = |bytes| bar.inc(bytes);
    if groups.is_dir() {
        make_dir(&to.join("groups"))?;
        backup::copy_groups(&groups, &to.join("groups"), &mut progress)?;
    }
    for (source, target) in &databases {
        backup::copy_database(source, target, &mut progress)?;
    }
    // After the directory: a group that it calls archived has its snapshot by now.
    if let Some(archives) = archives {
        copy_snapshots(archives, &to.join("archives"), &mut progress)?;
    }
    let mut bytes = bar.position();
    bar.finish_and_clear();
    // Former master keys stay here: nothing in the copy needs them.
    for folder in ["keys", "keys/organizations"] {
        bytes += copy_files(&from.join(folder), &to.join(folder))?;
    }
    if let Some(file) = config_file {
        bytes += copy_file(file, &to.join("convene.toml"))?;
    }
    sync_dir(Some(to))?;
    Ok(bytes)
}

/// Copies the files of a folder, if there is one; their bytes.
fn copy_files(from: &Path, to: &Path) -> io::Result<u64> {
    if !from.is_dir() {
        return Ok(0);
    }
    make_dir(to)?;
    let mut bytes = 0;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            bytes += copy_file(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    sync_dir(Some(to))?;
    Ok(bytes)
}

fn size_of(dir: &Path) -> io::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        size += if kind.is_dir() { size_of(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(size)
}

/// Copies the folder of snapshots, which never change once they are there. One that goes while this
/// lasts (its group was deleted) is left out.
fn copy_snapshots(from: &Path, to: &Path, progress: &mut impl FnMut(u64)) -> io::Result<()> {
    make_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        // What has `#` in its name is an upload under way.
        if kind.is_file() && entry.file_name().to_string_lossy().contains('#') {
            continue;
        }
        let copied = if kind.is_dir() {
            copy_snapshots(&entry.path(), &target, progress)
        } else {
            copy_snapshot(&entry.path(), &target).map(&mut *progress)
        };
        match copied {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copied => copied?,
        }
    }
    sync_dir(Some(to))
}

fn copy_snapshot(from: &Path, to: &Path) -> io::Result<u64> {
    let mut source = File::open(from)?;
    let mut target = OpenOptions::new().create_new(true).write(true).mode(0o600).open(to)?;
    let bytes = io::copy(&mut source, &mut target)?;
    target.sync_all()?;
    Ok(bytes)
}

/// A bar on a terminal, and nothing elsewhere.
pub(super) fn progress_bar(size: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(size);
    // A template that cannot be read would show the plain bar.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn copy_file(from: &Path, to: &Path) -> io::Result<u64> {
    let bytes = fs::read(from)?;
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(to)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    Ok(bytes.len() as u64)
}

fn sync_dir(dir: Option<&Path>) -> io::Result<()> {
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}
