//! `convene users`: accounts from beside the App, for an operator at the machine.
//!
//! Works on the workspace's database, whether a process serves from it or not. Whoever may read the
//! data directory, or knows how to sign in to its PostgreSQL, may do this; no other door leads here.

use std::io::{BufRead, IsTerminal};

use clap::{Args, Subcommand};
use convene_app::identity::recovery;
use convene_db::Db;
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    cli::{CliError, DataArgs},
    clock,
    databases::{self, Database},
};

/// What can be done to accounts.
#[derive(Debug, Subcommand)]
pub(crate) enum UsersCommand {
    /// List all accounts, with the workspaces that they belong to.
    List(List),
    /// Give an account a new password, and end all its sessions and bearer tokens.
    ResetPassword(ResetPassword),
}

/// `convene users list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    data: DataArgs,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// `convene users reset-password`.
#[derive(Debug, Args)]
pub(crate) struct ResetPassword {
    /// The account's mail address
    email: String,
    #[command(flatten)]
    data: DataArgs,
    /// Ask for the new password (or read it from standard input) instead of making one
    #[arg(long)]
    ask: bool,
}

/// Runs one of them.
pub(crate) fn run(command: UsersCommand) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        UsersCommand::List(args) => runtime.block_on(list(args)),
        UsersCommand::ResetPassword(args) => runtime.block_on(reset_password(args)),
    }
}

async fn list(args: List) -> Result<(), CliError> {
    let accounts = recovery::accounts(&*open(args.data)?).await?;
    for account in &accounts {
        if args.json {
            let orgs: Vec<_> = account
                .orgs
                .iter()
                .map(|(name, role)| json!({"name": name, "role": role}))
                .collect();
            let line = json!({
                "user_id": account.user_id, "email": account.email, "name": account.name,
                "created_at": account.created_at, "orgs": orgs,
            });
            println!("{line}");
        } else {
            let orgs: Vec<_> =
                account.orgs.iter().map(|(name, role)| format!("{role} of {name}")).collect();
            println!("{}\t{}\t{}", account.email, account.name, orgs.join(", "));
        }
    }
    if accounts.is_empty() && !args.json {
        eprintln!("There are no accounts yet.");
    }
    Ok(())
}

async fn reset_password(args: ResetPassword) -> Result<(), CliError> {
    let db = open(args.data)?;
    let password = if args.ask { ask()? } else { recovery::fresh_password()? };
    let reset = recovery::reset_password(&*db, &args.email, &password, clock::now()).await?;
    eprintln!(
        "The password is changed; sessions ended: {}, tokens deleted: {}.",
        reset.sessions, reset.tokens
    );
    eprintln!("What is still open with them is closed within seconds.");
    if !args.ask {
        eprintln!("The new password, shown this once:");
        println!("{}", *password);
    }
    Ok(())
}

/// The workspace's database, which an App has used before.
fn open(data: DataArgs) -> Result<Db, CliError> {
    databases::open_existing(&data.load()?, Database::Workspace)
}

/// A password typed twice without an echo, or one line of what is piped in.
fn ask() -> Result<Zeroizing<String>, CliError> {
    if !std::io::stdin().is_terminal() {
        let mut line = Zeroizing::new(String::new());
        std::io::stdin().lock().read_line(&mut line)?;
        return Ok(Zeroizing::new(line.trim_end_matches(['\n', '\r']).to_owned()));
    }
    let first = Zeroizing::new(rpassword::prompt_password("New password: ")?);
    let second = Zeroizing::new(rpassword::prompt_password("The same again: ")?);
    if *first != *second {
        return Err("the two are not the same; nothing was changed".into());
    }
    Ok(first)
}
