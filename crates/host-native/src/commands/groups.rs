//! `convene groups`: the groups of all organizations, for operators, beside a running Orchestrator.

use std::{
    io::{BufRead, IsTerminal, Write},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use convene_model::{
    GroupId, OrgId,
    infra::GroupStatus,
    tasks::{Archived, TaskStatus},
};
use http::Method;
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::infra::{Infra, InfraArgs, InfraError, ago, block_on, text};
use crate::cli::CliError;

/// How many tasks of a group `show` names.
const SHOWN_TASKS: usize = 5;

/// How many steps of a group's life `show` names, unless it is told otherwise.
const SHOWN_EVENTS: usize = 10;

/// What can be done with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupsCommand {
    /// List groups, in the order of their ids.
    List(ListArgs),
    /// Show a group, what was done to it last, and the steps of its life, the newest first; also of one that
    /// is gone.
    Show(ShowArgs),
    /// List tasks (archives, restores, deletes and what follows them), the newest first.
    Tasks(TasksArgs),
    /// Write a group's snapshot and take the group out of service.
    Archive(ArchiveArgs),
    /// Take a snapshot that came from elsewhere as a group's own: it is archived here then.
    Adopt(AdoptArgs),
    /// Bring an archived group back into service.
    Restore(WorkArgs),
    /// Remove a group for good: its state, its snapshots, its records.
    Delete(DeleteArgs),
    /// Void every token of a group and close its connections; people come back with new ones.
    RaiseEpoch(ReasonArgs),
}

/// `convene groups list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only this organization's
    #[arg(long, value_name = "ORG")]
    org: Option<OrgId>,
    /// Only those that stand so: active, idle, archiving, archived, restoring, deleting, deleted
    #[arg(long, value_parser = status)]
    status: Option<GroupStatus>,
    /// How many at most [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    infra: InfraArgs,
}

/// `convene groups show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The group
    group: GroupId,
    /// How many steps of its life at most
    #[arg(long, value_name = "N", default_value_t = SHOWN_EVENTS)]
    events: usize,
    #[command(flatten)]
    infra: InfraArgs,
}

/// `convene groups tasks`.
#[derive(Debug, Args)]
pub(crate) struct TasksArgs {
    /// Only this group's
    group: Option<GroupId>,
    /// Only those that stand so: running, done, failed
    #[arg(long, value_parser = task_status)]
    status: Option<TaskStatus>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    infra: InfraArgs,
}

/// `convene groups archive`.
#[derive(Debug, Args)]
pub(crate) struct ArchiveArgs {
    #[command(flatten)]
    work: WorkArgs,
    /// Why, for the audit
    #[arg(long, default_value = "by an operator")]
    reason: String,
}

/// `convene groups restore`, and the first half of `archive` and `delete`.
#[derive(Debug, Args)]
pub(crate) struct WorkArgs {
    /// The group
    group: GroupId,
    /// Do not wait for the end; print the task
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    infra: InfraArgs,
}

/// `convene groups adopt`.
#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// The group
    group: GroupId,
    /// Which snapshot, as `convene archive list --json` has its id [default: the latest in the store]
    #[arg(long, value_name = "ID")]
    snapshot: Option<String>,
    /// The public keys of the Orchestrator that made it, as a JWKS document [default: this one's own]
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// The app whose the group is from now on [default: Convene's own]
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    #[command(flatten)]
    infra: InfraArgs,
}

/// `convene groups delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    work: WorkArgs,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// `convene groups raise-epoch`.
#[derive(Debug, Args)]
pub(crate) struct ReasonArgs {
    /// The group
    group: GroupId,
    /// Why, for the log
    #[arg(long, default_value = "by an operator")]
    reason: String,
    #[command(flatten)]
    infra: InfraArgs,
}

fn status(name: &str) -> Result<GroupStatus, String> {
    GroupStatus::parse(name).ok_or_else(|| "it is no status of a group".to_owned())
}

fn task_status(name: &str) -> Result<TaskStatus, String> {
    TaskStatus::parse(name).ok_or_else(|| "it is running, done or failed".to_owned())
}

/// Runs one of them.
pub(crate) fn run(command: GroupsCommand) -> Result<(), CliError> {
    block_on(async {
        match command {
            GroupsCommand::List(args) => list(args).await,
            GroupsCommand::Show(args) => show(args).await,
            GroupsCommand::Tasks(args) => tasks(args).await,
            GroupsCommand::Archive(args) => archive(args).await,
            GroupsCommand::Adopt(args) => adopt(args).await,
            GroupsCommand::Restore(args) => restore(args).await,
            GroupsCommand::Delete(args) => delete(args).await,
            GroupsCommand::RaiseEpoch(args) => raise_epoch(args).await,
        }
    })
}

async fn list(args: ListArgs) -> Result<(), CliError> {
    let json = args.infra.json;
    let filters = [
        ("org_id", args.org.map(|org| org.to_string())),
        ("status", args.status.map(|status| status.as_str().to_owned())),
    ];
    let infra = args.infra.open()?;
    let most = args.limit.unwrap_or(usize::MAX);
    let groups = infra.all("/infra/groups", &filters, "groups", most).await?;
    for group in &groups {
        if json {
            println!("{group}");
        } else {
            println!("{}", words(group));
        }
    }
    if groups.is_empty() && !json {
        eprintln!("There is no such group.");
    }
    Ok(())
}

async fn show(args: ShowArgs) -> Result<(), CliError> {
    let json = args.infra.json;
    let infra = args.infra.open()?;
    let group = infra.get(&record(&args.group)).await?;
    let tasks = infra.all("/infra/tasks", &of_group(&args.group), "tasks", SHOWN_TASKS).await?;
    let life = format!("{}/events", record(&args.group));
    let events = infra.all(&life, &[], "events", args.events).await?;
    if json {
        println!("{}", json!({"group": group, "tasks": tasks, "events": events}));
        return Ok(());
    }
    println!("{}", words(&group));
    println!("controller\t{}", text(&group, "group_controller_id"));
    println!("history\t{}", text(&group, "history_mode"));
    if let Some(region) = group["region"].as_str() {
        println!("region\t{region}");
    }
    for task in &tasks {
        println!("task\t{}", task_words(task));
    }
    for event in &events {
        println!("event\t{}", event_words(event));
    }
    Ok(())
}

async fn tasks(args: TasksArgs) -> Result<(), CliError> {
    let json = args.infra.json;
    let infra = args.infra.open()?;
    let filters = [
        ("group_id", args.group.map(|group| group.to_string())),
        ("status", args.status.map(|status| status.as_str().to_owned())),
    ];
    let tasks = infra.all("/infra/tasks", &filters, "tasks", args.limit).await?;
    for task in &tasks {
        if json {
            println!("{task}");
        } else {
            println!("{}\t{}", text(task, "group_id"), task_words(task));
        }
    }
    if tasks.is_empty() && !json {
        eprintln!("There is no such task.");
    }
    Ok(())
}

async fn archive(args: ArchiveArgs) -> Result<(), CliError> {
    let WorkArgs { group, no_wait, infra } = args.work;
    let json = infra.json;
    let body = json!({"reason": args.reason});
    let target = format!("/infra/groups/{group}/archive");
    let infra = infra.open()?;
    let answer = infra.work(&Method::POST, &target, Some(&body), !no_wait).await?;
    if json || no_wait {
        return said(&answer, json);
    }
    let archived: Archived = serde_json::from_value(answer)?;
    println!(
        "Archived {group}: {} messages, {}, in {}.",
        archived.messages,
        HumanBytes(archived.bytes),
        archived.path
    );
    Ok(())
}

async fn adopt(args: AdoptArgs) -> Result<(), CliError> {
    let AdoptArgs { group, snapshot, jwks, owner, infra } = args;
    let json = infra.json;
    let mut body = json!({});
    if let Some(file) = &jwks {
        let text = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        body["jwks"] = serde_json::from_slice(&text)?;
    }
    if let Some(snapshot) = snapshot {
        body["snapshot_id"] = snapshot.into();
    }
    if let Some(owner) = owner {
        body["owner"] = owner.into();
    }
    let record = infra.open()?.post(&format!("/infra/groups/{group}/adopt"), &body).await?;
    if json {
        println!("{record}");
    } else {
        println!("{}", words(&record));
        println!(
            "It is read from its snapshot; `convene groups restore {group}` brings it to life."
        );
    }
    Ok(())
}

async fn restore(args: WorkArgs) -> Result<(), CliError> {
    let WorkArgs { group, no_wait, infra } = args;
    let json = infra.json;
    let target = format!("/infra/groups/{group}/restore");
    let answer = infra.open()?.work(&Method::POST, &target, None, !no_wait).await?;
    if json || no_wait {
        return said(&answer, json);
    }
    println!("Restored {group}: {}, epoch {}.", text(&answer, "status"), answer["epoch"]);
    Ok(())
}

async fn delete(args: DeleteArgs) -> Result<(), CliError> {
    let WorkArgs { group, no_wait, infra } = args.work;
    let json = infra.json;
    let infra = infra.open()?;
    if !args.yes {
        confirm(&infra, &group).await?;
    }
    let answer = infra.work(&Method::DELETE, &record(&group), None, !no_wait).await?;
    if no_wait && !answer.is_null() {
        return said(&answer, json);
    }
    if json {
        println!("{}", json!({"group_id": group, "group_status": "deleted"}));
    } else {
        println!("Deleted {group}. Its id is never used again.");
    }
    Ok(())
}

/// Asks at the terminal for the group's id.
async fn confirm(infra: &Infra, group: &GroupId) -> Result<(), CliError> {
    if !std::io::stdin().is_terminal() {
        let why = "a delete is for good: confirm it with --yes".to_owned();
        return Err(InfraError::Unconfirmed(why).into());
    }
    eprintln!("{}", words(&infra.get(&record(group)).await?));
    eprint!("This removes its messages and snapshots for good. Type its id to go on: ");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    if line.trim() == group.as_str() {
        return Ok(());
    }
    Err(InfraError::Unconfirmed("nothing was deleted".to_owned()).into())
}

async fn raise_epoch(args: ReasonArgs) -> Result<(), CliError> {
    let ReasonArgs { group, reason, infra } = args;
    let json = infra.json;
    let infra = infra.open()?;
    let found = infra.get(&record(&group)).await?;
    let body = json!({"from": found["epoch"], "reason": reason});
    let raised = infra.post(&format!("/infra/groups/{group}/epoch"), &body).await?;
    if json {
        println!("{raised}");
    } else {
        println!("{group} is at epoch {}; every token from before is void.", raised["epoch"]);
    }
    Ok(())
}

fn record(group: &GroupId) -> String {
    format!("/infra/groups/{group}")
}

fn of_group(group: &GroupId) -> [(&'static str, Option<String>); 1] {
    [("group_id", Some(group.to_string()))]
}

/// What a call answered that was not waited for, or that is asked for as it is.
fn said(answer: &Value, json: bool) -> Result<(), CliError> {
    if json {
        println!("{answer}");
    } else {
        println!("{}", task_words(answer));
    }
    Ok(())
}

fn words(group: &Value) -> String {
    format!(
        "{}\t{}\t{}\tepoch {}\tused {}",
        text(group, "group_id"),
        text(group, "org_id"),
        text(group, "group_status"),
        group["epoch"],
        ago(group, "last_active")
    )
}

fn task_words(task: &Value) -> String {
    let mut words = format!(
        "{}\t{}\t{}\t{} {}/{}\t{}",
        text(task, "task_id"),
        text(task, "kind"),
        text(task, "status"),
        text(task, "step"),
        task["done"],
        task["total"],
        ago(task, "updated_at")
    );
    if let Some(code) = task["problem"]["code"].as_str() {
        words.push('\t');
        words.push_str(code);
    }
    words
}

fn event_words(event: &Value) -> String {
    let mut words = format!(
        "{}\t{} > {}\tepoch {}\t{}\t{}",
        ago(event, "at"),
        event["from"].as_str().unwrap_or("inactive"),
        text(event, "to"),
        event["epoch"],
        text(event, "actor"),
        text(event, "reason")
    );
    if let Some(task_id) = event["task_id"].as_str() {
        words.push_str("\ttask ");
        words.push_str(task_id);
    }
    words
}
