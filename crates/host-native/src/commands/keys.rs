//! `convene keys`: rotation of the services' signing keys, for an operator at the machine.
//!
//! Works on the key files, whether processes serve with them or not: running ones notice within
//! seconds and change over together at the time that the files name. Never touches the master key.

use std::{
    fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf, time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};
use convene_model::{Timestamp, claims::service, keys::SigningKey};
use indicatif::HumanDuration;
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    cli::{CliError, DataArgs},
    clock,
    config::{Config, Role},
    keys::ring::{KeyEntry, KeyFiles, KeyState},
    operator,
    services::key_files,
};

/// Seconds for which a new key is published before it signs, when none are given.
const DEFAULT_AFTER_SECS: u64 = 30;

/// Whose keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Owner {
    /// The App's.
    App,
    /// The Orchestrator's.
    Orchestrator,
    /// The controllers'.
    Controllers,
    /// The Agents Worker's.
    Agents,
    /// The operator's at this machine, of `convene groups` and `convene orgs`.
    Operator,
}

impl Owner {
    /// The services.
    const SERVICES: [Self; 4] = [Self::App, Self::Orchestrator, Self::Controllers, Self::Agents];

    fn files(self, config: &Config) -> KeyFiles {
        match self {
            Self::App => key_files(config, Role::App),
            Self::Orchestrator => key_files(config, Role::Orchestrator),
            Self::Controllers => key_files(config, Role::Controllers),
            Self::Agents => key_files(config, Role::Agents),
            Self::Operator => operator::key_files(config),
        }
    }
}

/// What can be done to signing keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// List each service's keys and what they are for at this moment.
    List(List),
    /// Publish a new key, which signs a moment later; the one that signs now goes on verifying.
    Rotate(Rotate),
    /// Refuse all tokens of former keys, and remove their secrets.
    Retire(Retire),
    /// Make a key of an app or operator elsewhere, and print what `[[orchestrator.apps]]` needs of it.
    New(New),
}

/// `convene keys new`.
#[derive(Debug, Args)]
pub(crate) struct New {
    /// The file to make, readable by its owner only
    file: PathBuf,
}

/// `convene keys list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Whose [default: those of all services that have keys here]
    service: Vec<Owner>,
    #[command(flatten)]
    data: DataArgs,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Print the published keys of one service as a JWKS document, for `jwks` of a configuration
    #[arg(long, conflicts_with = "json")]
    jwks: bool,
}

/// `convene keys rotate`.
#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// Whose [default: those of all services that have keys here]
    service: Vec<Owner>,
    #[command(flatten)]
    data: DataArgs,
    /// How long the new key is published before it signs, at least 10
    #[arg(long, value_name = "SECS", default_value_t = DEFAULT_AFTER_SECS)]
    after: u64,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// `convene keys retire`.
#[derive(Debug, Args)]
pub(crate) struct Retire {
    /// Whose key
    service: Owner,
    /// Which one [default: all that no longer sign]
    kid: Option<String>,
    #[command(flatten)]
    data: DataArgs,
    /// Also a key whose tokens may still be under way, because it has leaked
    #[arg(long)]
    force: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Runs one of them.
pub(crate) fn run(command: KeysCommand) -> Result<(), CliError> {
    match command {
        KeysCommand::List(args) => list(args),
        KeysCommand::Rotate(args) => rotate(args),
        KeysCommand::Retire(args) => retire(args),
        KeysCommand::New(args) => new(&args),
    }
}

fn list(args: List) -> Result<(), CliError> {
    let services = services(&args.data.load()?, &args.service)?;
    let now = clock::now();
    if args.jwks {
        let [files] = services.as_slice() else {
            return Err("--jwks prints the keys of one service; name it".into());
        };
        println!("{}", serde_json::to_string(&files.read()?.public().0)?);
        return Ok(());
    }
    for files in services {
        for (entry, state) in files.read()?.at(now) {
            if args.json {
                println!("{}", line(&files, entry, state));
            } else {
                println!("{}\t{}\t{}", files.service(), entry.kid, words(entry, state, now));
            }
        }
    }
    Ok(())
}

fn rotate(args: Rotate) -> Result<(), CliError> {
    let after = Duration::from_secs(args.after);
    // All or none: a service that cannot rotate now is found before another has.
    let services = services(&args.data.load()?, &args.service)?;
    for files in &services {
        files.read()?;
    }
    for files in services {
        let entry = files.rotate(clock::now(), after)?;
        if args.json {
            println!("{}", line(&files, &entry, KeyState::Next));
        } else {
            println!("{}\t{}\tpublished; signs in {} s", files.service(), entry.kid, args.after);
        }
    }
    if !args.json {
        eprintln!("Where other machines keep copies of these files, or a configuration names the");
        eprintln!("public keys (`jwks`), bring them up to date before the new keys sign.");
        eprintln!("Retire the former keys in half an hour: `convene keys retire SERVICE`.");
    }
    Ok(())
}

fn new(args: &New) -> Result<(), CliError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut())?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.file);
    let mut file =
        file.map_err(|error| format!("{} cannot be made: {error}", args.file.display()))?;
    file.write_all(seed.as_ref())?;
    file.sync_all()?;
    // The public half does not depend on the name under which it will be known.
    let key = SigningKey::from_seed(service::OPERATOR, &seed);
    println!("{}", serde_json::to_string(&key.jwks())?);
    Ok(())
}

fn retire(args: Retire) -> Result<(), CliError> {
    let services = services(&args.data.load()?, &[args.service])?;
    let mut none = true;
    for files in services {
        for entry in files.retire(clock::now(), args.kid.as_deref(), args.force)? {
            none = false;
            if args.json {
                println!("{}", line(&files, &entry, KeyState::Retired));
            } else {
                println!("{}\t{}\tretired", files.service(), entry.kid);
            }
        }
    }
    if none && !args.json {
        eprintln!("There is nothing to retire.");
    }
    Ok(())
}

/// The key files of the named services, or of all that have some.
fn services(config: &Config, named: &[Owner]) -> Result<Vec<KeyFiles>, CliError> {
    let owners = if named.is_empty() { &Owner::SERVICES[..] } else { named };
    let mut found = Vec::new();
    for owner in owners {
        let files = owner.files(config);
        if files.exist() {
            found.push(files);
        } else if !named.is_empty() {
            let dir = config.data_dir.display();
            let whose = files.service();
            return Err(format!("{whose} has no key in {dir}; see --data-dir").into());
        }
    }
    if found.is_empty() {
        let dir = config.data_dir.display();
        return Err(
            format!("there are no keys in {dir}; say where the data is with --data-dir").into()
        );
    }
    Ok(found)
}

fn line(files: &KeyFiles, entry: &KeyEntry, state: KeyState) -> serde_json::Value {
    json!({
        "service": files.service(), "kid": entry.kid, "state": state, "made_at": entry.made_at,
        "signs_from": entry.signs_from, "retired_at": entry.retired_at,
    })
}

fn words(entry: &KeyEntry, state: KeyState, now: Timestamp) -> String {
    let ago = |at: Timestamp| HumanDuration(now.since(at));
    match state {
        KeyState::Next => format!("signs in {} s", entry.signs_from.since(now).as_secs()),
        KeyState::Signing if entry.signs_from.millis() == 0 => "signs".to_owned(),
        KeyState::Signing => format!("signs, since {}", ago(entry.signs_from)),
        KeyState::Previous => "verifies what it signed before".to_owned(),
        KeyState::Retired => {
            format!("retired {} ago", ago(entry.retired_at.unwrap_or(entry.made_at)))
        }
    }
}
