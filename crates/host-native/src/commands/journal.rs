//! `convene journal`: the groups' files from beside the process: checked, or adopted after a restore.
//!
//! Both need the data directory for themselves.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, Subcommand};
use convene_db::Db;
use convene_group_controller::Controller;
use convene_model::{
    GroupId, HistoryId,
    event::{Adopted, Event, EventKind},
    record::Record,
};
use convene_orchestrator::adoption;
use convene_storage::{
    Batch, GroupStore, LoadedGroup, SqliteDatabase, StoreError, StoreOptions, backup, check,
};
use uuid::Uuid;

use super::backup::progress_bar;
use crate::{
    cli::{CliError, DataArgs},
    clock,
    databases::{self, Database},
    lock::DataDirLock,
};

/// How far an adopted group's epoch is beyond what it was in the backup: further than any that it
/// can have had afterwards.
const EPOCH_STEP: u64 = 1_000_000;

/// What can be done to the groups' files.
#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// Verify every checksum and chain, and that the tables say what the journal says.
    Check(CheckArgs),
    /// Let a restored backup be served, under numbers that nobody takes for the lost ones.
    Adopt(AdoptArgs),
}

/// `convene journal check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    data: DataArgs,
}

/// `convene journal adopt`.
#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    #[command(flatten)]
    data: DataArgs,
    /// The Orchestrator's directory, where it is kept elsewhere [default: infra.db beside the groups, or PostgreSQL]
    #[arg(long, value_name = "FILE")]
    infra_db: Option<PathBuf>,
}

/// Runs one of them.
pub(crate) fn run(command: JournalCommand) -> Result<(), CliError> {
    match command {
        JournalCommand::Check(args) => check(args),
        JournalCommand::Adopt(args) => adopt(args),
    }
}

fn check(args: CheckArgs) -> Result<(), CliError> {
    let data_dir = args.data.load()?.data_dir;
    let groups = groups_of(&data_dir)?;
    let _lock = DataDirLock::acquire(&data_dir, None)?;
    let bar = progress_bar(0, "{spinner} {pos} chunks and rows checked");
    let report = check::check(&groups, &mut |count| bar.inc(count))?;
    bar.finish_and_clear();
    let rooms = [
        ("groups", report.groups),
        ("of them in quarantine", report.quarantined),
        ("events", report.events),
        ("in chunks", report.chunks),
        ("messages", report.messages),
        ("snapshots", report.snapshots),
        ("journal files", report.journal_files),
        ("journal rows", report.journal_rows),
        ("not carried over yet", report.unprojected_rows),
    ];
    for (what, count) in rooms {
        println!("{what:<24} {count:>12}");
    }
    if report.problem_count == 0 {
        println!("Everything is as it should be.");
        return Ok(());
    }
    for problem in &report.problems {
        println!("PROBLEM: {problem}");
    }
    Err(format!("{} problems were found", report.problem_count).into())
}

fn adopt(args: AdoptArgs) -> Result<(), CliError> {
    let config = args.data.load()?;
    let data_dir = config.data_dir.clone();
    let groups_dir = groups_of(&data_dir)?;
    let _lock = DataDirLock::acquire(&data_dir, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Its records must follow the groups.
    let db: Db = match args.infra_db {
        Some(file) if !file.is_file() => {
            return Err(format!("there is no {}", file.display()).into());
        }
        Some(file) => Arc::new(SqliteDatabase::open(file)?),
        None => databases::open_existing(&config, Database::Infra)
            .map_err(|error| format!("{error}; the Orchestrator's is also named by --infra-db"))?,
    };
    let store = GroupStore::open_to_adopt(&groups_dir, StoreOptions::default(), |why| {
        eprintln!("convene: {why}");
        std::process::exit(crate::serve::EXIT_OUTCOME_UNKNOWN);
    })?;
    let groups = store.groups()?;
    let bar = progress_bar(groups.len() as u64, "{wide_bar} {pos}/{len} groups");
    let (mut adopted, mut skipped) = (0_u64, 0_u64);
    for group_id in groups {
        let known = runtime.block_on(adoption::epoch(&*db, &group_id))?.unwrap_or(0);
        match adopt_group(&store, &group_id, known) {
            Ok(Some(epoch)) => {
                runtime.block_on(adoption::set_epoch(&*db, &group_id, epoch))?;
                adopted += 1;
            }
            Ok(None) => {}
            Err(AdoptError::Store(StoreError::Quarantined { detail, .. })) => {
                eprintln!("convene: group {group_id} stays in quarantine: {detail}");
                skipped += 1;
            }
            Err(error) => return Err(format!("group {group_id}: {error}").into()),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    store.close();
    // Last of all: an adoption that broke off is simply done again.
    backup::mark_adopted(&groups_dir)?;
    println!("Adopted {adopted} groups; clients will read their history anew.");
    if skipped > 0 {
        println!("Left {skipped} groups in quarantine as they are.");
    }
    Ok(())
}

/// Why a group cannot be adopted.
#[derive(Debug, thiserror::Error)]
enum AdoptError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("its events cannot be read: {0}")]
    Record(#[from] convene_model::record::RecordError),
    #[error("its snapshot cannot be read: {0}")]
    Snapshot(#[from] convene_group_controller::SnapshotError),
    #[error("the journal did not take it")]
    NotWritten,
}

/// Gives a group a numbering of its own and a higher epoch than `known`, which is returned; `None`
/// when there is nothing of the group yet.
fn adopt_group(
    store: &GroupStore,
    group_id: &GroupId,
    known: u64,
) -> Result<Option<u64>, AdoptError> {
    let key = group_id.key();
    let Some(loaded) = store.load(key)? else { return Ok(None) };
    let LoadedGroup { snapshot, records, last_seq, chain, wake_at } = loaded;
    let events = records.iter().map(Record::decode).collect::<Result<Vec<_>, _>>()?;
    let snapshot = snapshot.as_ref().map(|snapshot| snapshot.bytes.as_ref());
    let controller = Controller::rebuild(snapshot, events)?;
    let Some(state) = controller.state() else { return Ok(None) };
    let epoch = state.identity().epoch.max(known) + EPOCH_STEP;
    let history = HistoryId::new(Uuid::new_v4().simple().to_string())
        .expect("the digits of a UUID make an id");
    let kind = EventKind::GroupAdopted(Adopted { epoch, history });
    let seq = last_seq + 1;
    let record = Record::encode(&Event { seq, at: clock::now(), kind });
    let batch = Batch {
        group_id: group_id.clone(),
        key,
        first_seq: seq,
        chain: record.chain(&chain),
        records: vec![record],
        posts: Vec::new(),
        wake_at,
        snapshot: None,
    };
    let (told, hear) = std::sync::mpsc::channel();
    store
        .submit(batch, move |result| drop(told.send(result)))
        .map_err(|_| AdoptError::NotWritten)?;
    match hear.recv() {
        Ok(Ok(())) => Ok(Some(epoch)),
        Ok(Err(_)) | Err(_) => Err(AdoptError::NotWritten),
    }
}

/// The groups' files of a data directory.
fn groups_of(data_dir: &Path) -> Result<PathBuf, CliError> {
    let groups = data_dir.join("groups");
    if !groups.is_dir() {
        let shown = data_dir.display();
        return Err(format!("there are no groups in {shown}; name it with --data-dir").into());
    }
    Ok(groups)
}
