//! `convene keys`: rotation of the services' signing keys, for an operator at the machine.
//!
//! Works on the key files, whether processes serve with them or not: running ones notice within
//! seconds and change over together at the time that the files name. Never touches the master key.

use std::time::Duration;

use clap::{Args, Subcommand};
use convene_model::Timestamp;
use indicatif::HumanDuration;
use serde_json::json;

use crate::{
    cli::{CliError, DataArgs},
    clock,
    config::{Config, Role},
    keys::ring::{KeyEntry, KeyFiles, KeyState},
    services::key_files,
};

/// Seconds for which a new key is published before it signs, when none are given.
const DEFAULT_AFTER_SECS: u64 = 30;

/// What can be done to signing keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// List each service's keys and what they are for at this moment.
    List(List),
    /// Publish a new key, which signs a moment later; the one that signs now goes on verifying.
    Rotate(Rotate),
    /// Refuse all tokens of former keys, and remove their secrets.
    Retire(Retire),
}

/// `convene keys list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Which services [default: all that have keys here]
    service: Vec<Role>,
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
    /// Which services [default: all that have keys here]
    service: Vec<Role>,
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
    service: Role,
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
fn services(config: &Config, named: &[Role]) -> Result<Vec<KeyFiles>, CliError> {
    let roles = if named.is_empty() { &Role::ALL[..] } else { named };
    let mut found = Vec::new();
    for role in roles {
        let files = key_files(config, *role);
        if files.exist() {
            found.push(files);
        } else if !named.is_empty() {
            let dir = config.data_dir.display();
            return Err(format!("{} has no key in {dir}; see --data-dir", role.name()).into());
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
