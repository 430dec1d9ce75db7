//! `convene archive`: snapshots of groups from beside the service: listed, verified, printed, and
//! brought from one store to another.
//!
//! Works on the files of a store alone, whether a process serves or not. What is read is checked; a
//! snapshot is never changed, and none is removed.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, Subcommand, ValueEnum};
use convene_archive::{ArchiveError, Listed, copy, lines, list, read_manifest, verify};
use convene_model::{
    GroupId, Timestamp,
    archive::{LineKind, Manifest, Section, line::split},
    claims::service,
    keys::{Jwks, TrustedKeys},
};
use convene_storage::objects::{Leftovers, Store, open_folder};
use futures_util::TryStreamExt;
use indicatif::HumanBytes;
use serde_json::json;

use super::backup::progress_bar;
use crate::{
    cli::{CliError, DataArgs},
    config::{Config, Role},
    services::key_files,
    stores::{self, Opener},
};

/// What can be done with snapshots.
#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// List the snapshots of a store.
    List(ListArgs),
    /// Read snapshots back whole and check them: signature, every line, chain, counts, checksums.
    Verify(VerifyArgs),
    /// Print the lines of a snapshot, each checked before it is printed.
    Cat(CatArgs),
    /// Copy snapshots from the configured store into a folder.
    Export(ExportArgs),
    /// Copy snapshots from a folder into the configured store.
    Import(ImportArgs),
}

/// Which store.
#[derive(Debug, Args)]
struct StoreArgs {
    #[command(flatten)]
    data: DataArgs,
    /// A folder with snapshots, in place of the configured store
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Whose signatures hold.
#[derive(Debug, Args)]
struct KeyArgs {
    /// Public keys that may have signed, as a JWKS document [default: this Orchestrator's own,
    /// retired ones included]
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// Do not check signatures
    #[arg(long, conflicts_with = "jwks")]
    unsigned: bool,
}

/// `convene archive list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Only this group's
    group: Option<GroupId>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// `convene archive verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    keys: KeyArgs,
    /// A group, or a snapshot's manifest as `list` shows it [default: all]
    snapshot: Option<String>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// `convene archive cat`.
#[derive(Debug, Args)]
pub(crate) struct CatArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    keys: KeyArgs,
    /// A group (its latest snapshot), or a snapshot's manifest as `list` shows it
    snapshot: String,
    /// Only the lines of this section
    #[arg(long)]
    section: Option<SectionName>,
}

/// `convene archive export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    keys: KeyArgs,
    /// A group, or a snapshot's manifest as `list` shows it [default: all]
    snapshot: Option<String>,
    /// The folder; made where it is missing
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// `convene archive import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    keys: KeyArgs,
    /// A group, or a snapshot's manifest as `list` shows it [default: all]
    snapshot: Option<String>,
    /// The folder
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// A section of a snapshot's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SectionName {
    /// What the snapshot is of.
    Header,
    /// The controller's state.
    State,
    /// Messages and ended runs.
    Messages,
    /// Events.
    Events,
    /// The counts.
    Trailer,
}

impl SectionName {
    const fn section(self) -> Section {
        match self {
            Self::Header => Section::Header,
            Self::State => Section::State,
            Self::Messages => Section::Messages,
            Self::Events => Section::Events,
            Self::Trailer => Section::Trailer,
        }
    }
}

/// Runs one of them.
pub(crate) fn run(command: ArchiveCommand) -> Result<(), CliError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match command {
            ArchiveCommand::List(args) => list_all(args).await,
            ArchiveCommand::Verify(args) => verify_all(args).await,
            ArchiveCommand::Cat(args) => cat(args).await,
            ArchiveCommand::Export(args) => export(args).await,
            ArchiveCommand::Import(args) => import(args).await,
        }
    })
}

impl StoreArgs {
    fn open(self) -> Result<(Config, Store), CliError> {
        let config = self.data.load()?;
        let store = match &self.folder {
            Some(folder) => existing_folder(folder)?,
            None => stores::archives(&config, Opener::Command)?,
        };
        Ok((config, store))
    }
}

fn existing_folder(folder: &Path) -> Result<Store, CliError> {
    if !folder.is_dir() {
        return Err(format!("there is no folder {}", folder.display()).into());
    }
    Ok(open_folder(folder, Leftovers::Keep)?)
}

impl KeyArgs {
    /// `None` when signatures are not to be checked.
    fn load(&self, config: &Config) -> Result<Option<TrustedKeys>, CliError> {
        if self.unsigned {
            return Ok(None);
        }
        let jwks: Jwks = match &self.jwks {
            Some(path) => serde_json::from_slice(&std::fs::read(path)?)?,
            None => {
                let files = key_files(config, Role::Orchestrator);
                if !files.exist() {
                    let hint = "the Orchestrator's keys are not here; name public ones with --jwks, \
                                or skip signatures with --unsigned";
                    return Err(hint.into());
                }
                let (mut keys, retired) = files.read()?.public();
                keys.keys.extend(retired.keys);
                keys
            }
        };
        Ok(Some(TrustedKeys::of(service::ORCHESTRATOR, &jwks)?))
    }
}

/// The snapshots that were asked for, by group and then by time.
async fn chosen(store: &Store, snapshot: Option<&str>) -> Result<Vec<Listed>, CliError> {
    let group = match snapshot {
        None => None,
        Some(path) if path.contains('/') => {
            let group = path.strip_prefix("groups/").and_then(|rest| rest.split_once('/'));
            let group = group.and_then(|(group, _)| GroupId::new(group).ok());
            Some(group.ok_or_else(|| format!("{path} is not a manifest's path"))?)
        }
        Some(group) => Some(GroupId::new(group)?),
    };
    let mut found: Vec<Listed> = list(store.as_ref(), group.as_ref()).try_collect().await?;
    if let Some(path) = snapshot.filter(|path| path.contains('/')) {
        found.retain(|listed| listed.path == path);
    }
    if let (Some(asked), true) = (snapshot, found.is_empty()) {
        return Err(format!("the store has no snapshot of {asked}").into());
    }
    found.sort_by(|a, b| {
        (&a.group_id, a.stored_at, &a.path).cmp(&(&b.group_id, b.stored_at, &b.path))
    });
    Ok(found)
}

async fn list_all(args: ListArgs) -> Result<(), CliError> {
    let (_, store) = args.store.open()?;
    let group = args.group.as_ref().map(GroupId::as_str);
    let mut damaged = 0;
    for listed in chosen(&store, group).await? {
        match read_manifest(store.as_ref(), &listed.path, None).await {
            Ok(manifest) if args.json => println!("{}", object(&manifest, listed.stored_at)),
            Ok(manifest) => println!("{}", words(&manifest)),
            Err(error) => {
                damaged += 1;
                report(&listed.path, &error, args.json);
            }
        }
    }
    outcome(damaged, "cannot be read")
}

async fn verify_all(args: VerifyArgs) -> Result<(), CliError> {
    let (config, store) = args.store.open()?;
    let keys = args.keys.load(&config)?;
    let mut damaged = 0;
    for listed in chosen(&store, args.snapshot.as_deref()).await? {
        match verify_one(&store, &listed.path, keys.as_ref()).await {
            Ok(manifest) if args.json => println!("{}", object(&manifest, listed.stored_at)),
            Ok(manifest) => println!("{}\tsound", words(&manifest)),
            Err(error) => {
                damaged += 1;
                report(&listed.path, &error, args.json);
            }
        }
    }
    outcome(damaged, "failed the check")
}

async fn verify_one(
    store: &Store,
    path: &str,
    keys: Option<&TrustedKeys>,
) -> Result<Manifest, ArchiveError> {
    let size = read_manifest(store.as_ref(), path, keys).await?.bytes;
    let bar = progress_bar(size, "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec}");
    let verified = verify(Arc::clone(store), path, keys, |checked| bar.set_position(checked)).await;
    bar.finish_and_clear();
    verified
}

async fn cat(args: CatArgs) -> Result<(), CliError> {
    let (config, store) = args.store.open()?;
    let keys = args.keys.load(&config)?;
    let mut latest: Option<Manifest> = None;
    for listed in chosen(&store, Some(&args.snapshot)).await? {
        let manifest = read_manifest(store.as_ref(), &listed.path, keys.as_ref()).await?;
        if latest.as_ref().is_none_or(|latest| latest.epoch <= manifest.epoch) {
            latest = Some(manifest);
        }
    }
    let Some(manifest) = latest else { return Ok(()) };
    let mut bodies = lines(store, &manifest);
    let mut out = io::BufWriter::new(io::stdout().lock());
    while let Some(body) = bodies.try_next().await? {
        for line in split(&body)? {
            let section = LineKind::of(&line)?.section();
            if args.section.is_some_and(|wanted| wanted.section() != section) {
                continue;
            }
            match out.write_all(&line).and_then(|()| out.write_all(b"\n")) {
                Ok(()) => {}
                // Whoever reads the pipe has seen enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn export(args: ExportArgs) -> Result<(), CliError> {
    let config = args.data.load()?;
    let keys = args.keys.load(&config)?;
    let from = stores::archives(&config, Opener::Command)?;
    let to = open_folder(&args.to, Leftovers::Keep)?;
    copy_all(&from, &to, args.snapshot.as_deref(), keys.as_ref(), args.json).await
}

async fn import(args: ImportArgs) -> Result<(), CliError> {
    let config = args.data.load()?;
    let keys = args.keys.load(&config)?;
    let from = existing_folder(&args.from)?;
    let to = stores::archives(&config, Opener::Command)?;
    copy_all(&from, &to, args.snapshot.as_deref(), keys.as_ref(), args.json).await
}

/// Copies what was asked for; each snapshot is checked where it comes from and where it went.
async fn copy_all(
    from: &Store,
    to: &Store,
    snapshot: Option<&str>,
    keys: Option<&TrustedKeys>,
    json: bool,
) -> Result<(), CliError> {
    let mut damaged = 0;
    for listed in chosen(from, snapshot).await? {
        let done = async {
            let manifest = verify_one(from, &listed.path, keys).await?;
            let bar =
                progress_bar(manifest.bytes, "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec}");
            let progress = |copied| bar.set_position(copied);
            let copied = copy(Arc::clone(from), Arc::clone(to), &manifest, progress).await;
            bar.finish_and_clear();
            let copied = copied?;
            verify_one(to, &listed.path, keys).await?;
            Ok::<_, ArchiveError>((manifest, copied))
        };
        match done.await {
            Ok((manifest, copied)) if json => {
                let mut object = object(&manifest, listed.stored_at);
                object["copied"] = copied.into();
                println!("{object}");
            }
            Ok((manifest, true)) => println!("{}\tcopied", words(&manifest)),
            Ok((manifest, false)) => println!("{}\tthere already", words(&manifest)),
            Err(error) => {
                damaged += 1;
                report(&listed.path, &error, json);
            }
        }
    }
    outcome(damaged, "could not be copied")
}

fn outcome(damaged: u64, what: &str) -> Result<(), CliError> {
    match damaged {
        0 => Ok(()),
        1 => Err(format!("1 snapshot {what}").into()),
        more => Err(format!("{more} snapshots {what}").into()),
    }
}

fn words(manifest: &Manifest) -> String {
    format!(
        "{}\t{} messages\tepoch {}\t{}",
        manifest.path(),
        manifest.messages,
        manifest.epoch,
        HumanBytes(manifest.bytes)
    )
}

fn object(manifest: &Manifest, stored_at: Timestamp) -> serde_json::Value {
    json!({
        "path": manifest.path(),
        "group_id": manifest.group_id,
        "org_id": manifest.org_id,
        "archive_id": manifest.archive_id,
        "snapshot_id": manifest.snapshot_id,
        "epoch": manifest.epoch,
        "last_seq": manifest.last_seq,
        "messages": manifest.messages,
        "runs": manifest.runs,
        "events": manifest.events,
        "bytes": manifest.bytes,
        "plain_bytes": manifest.plain_bytes,
        "checksum": manifest.checksum,
        "signed_by": manifest.signed_by,
        "stored_at": stored_at,
    })
}

fn report(path: &str, error: &ArchiveError, json: bool) {
    if json {
        println!(
            "{}",
            json!({"path": path, "error": error.to_string(), "code": error.problem().code})
        );
    } else {
        eprintln!("{path}\t{error}");
    }
}
