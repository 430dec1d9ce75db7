//! `convene secrets`: the keys behind stored secrets, for an operator at the machine.
//!
//! Works on the workspace's database, whether a process serves from it or not. No value is shown
//! here: that is an action in the workspace, on record.

use std::sync::Arc;

use clap::{Args, Subcommand};
use convene_app::secrets::{self, Settled, master_key_id};
use convene_db::Db;
use convene_storage::SqliteDatabase;

use crate::{
    cli::{CliError, DataArgs},
    clock,
    master_keys::MasterKeyFiles,
};

/// What can be done to the keys.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// Make another master key and wrap every data key with it; a running App follows.
    RotateMaster(RotateMaster),
}

/// `convene secrets rotate-master`.
#[derive(Debug, Args)]
pub(crate) struct RotateMaster {
    #[command(flatten)]
    data: DataArgs,
    /// Remove the former keys when nothing needs them any more; backups made before still do
    #[arg(long)]
    forget_former: bool,
}

/// Runs one of them.
pub(crate) fn run(command: SecretsCommand) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        SecretsCommand::RotateMaster(args) => runtime.block_on(rotate_master(args)),
    }
}

async fn rotate_master(args: RotateMaster) -> Result<(), CliError> {
    let config = args.data.load()?;
    let path = config.data_dir.join("workspace.db");
    if !path.is_file() {
        let shown = path.display();
        return Err(format!("there is no {shown}; say where the data is with --data-dir").into());
    }
    let files = MasterKeyFiles::of(&config);
    let db: Db = Arc::new(SqliteDatabase::open(path)?);
    let keys = files.replace()?;
    let Settled { adopted, rewrapped, resealed: _, unreadable } =
        secrets::settle(&db, &keys, clock::now()).await?;
    eprintln!("The master key in use is {}.", master_key_id(&keys.current));
    eprintln!("Data keys wrapped anew: {rewrapped}, values carried over: {adopted}.");
    if unreadable > 0 {
        return Err(format!(
            "{unreadable} rows open with no key that is there; the former keys are kept"
        )
        .into());
    }
    if args.forget_former {
        eprintln!("Former keys removed: {}.", files.forget_retired()?);
    } else {
        eprintln!("The former keys lie in keys/retired; backups made before need them.");
    }
    Ok(())
}
