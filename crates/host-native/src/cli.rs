//! The command line.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    bench,
    commands::{
        archive, backup, chat, groups, healthcheck, infra::InfraError, journal, keys, openapi,
        orgs, secrets, users,
    },
    config,
    config::{Config, Overrides, Role},
    serve,
};

/// Group chat in which people and AI agents work together, on your own infrastructure.
#[derive(Debug, Parser)]
#[command(name = "convene", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve everything (the same as no command at all).
    Serve(ServeArgs),
    /// Look at the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Read and write in a group at the terminal, of this Convene or any other.
    Chat(convene_chat::ChatArgs),
    /// Ask whether the process that the configuration describes answers.
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Accounts, for an operator at the machine.
    Users {
        #[command(subcommand)]
        command: users::UsersCommand,
    },
    /// Groups of all organizations, for operators, beside a running Orchestrator.
    Groups {
        #[command(subcommand)]
        command: groups::GroupsCommand,
    },
    /// Organizations: limits, usage and blocks, for operators, beside a running Orchestrator.
    Orgs {
        #[command(subcommand)]
        command: orgs::OrgsCommand,
    },
    /// The keys behind stored secrets.
    Secrets {
        #[command(subcommand)]
        command: secrets::SecretsCommand,
    },
    /// Snapshots of groups: list, verify, print, and bring from store to store.
    Archive {
        #[command(subcommand)]
        command: archive::ArchiveCommand,
    },
    /// Copy the whole data directory while it is in use.
    Backup(backup::BackupArgs),
    /// The services' signing keys: list, rotate, retire.
    Keys {
        #[command(subcommand)]
        command: keys::KeysCommand,
    },
    /// Print the OpenAPI document of an API.
    Openapi {
        /// Which API
        api: openapi::Described,
    },
    /// The groups' files: check them, or adopt a restored backup.
    Journal {
        #[command(subcommand)]
        command: journal::JournalCommand,
    },
    /// Measure posts and fan-out against the raw limits of this machine.
    Bench(bench::BenchArgs),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Read the configuration as `serve` would and say what is wrong.
    Check(ServeArgs),
    /// Print the documented example with every key at its default.
    Example,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Serve one service only; the others are processes of their own
    #[arg(long, value_name = "ROLE")]
    role: Option<Role>,
    /// The configuration file [default: convene.toml, where it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything durable is kept [default: convene-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The address of the public door [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Serve the infra API over HTTP on this address, for outside apps
    #[arg(long, value_name = "ADDR")]
    orchestrator_listen: Option<SocketAddr>,
}

/// Which data directory a command works on.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// The configuration file [default: convene.toml, where it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory [default: convene-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl DataArgs {
    /// The configuration file that [`Self::load`] reads, if there is one.
    pub(crate) fn config_file(&self) -> Option<PathBuf> {
        let default = || Some(PathBuf::from(config::DEFAULT_FILE)).filter(|file| file.is_file());
        self.config.clone().or_else(default)
    }

    /// The configuration that `serve` would use with the same file and data directory.
    pub(crate) fn load(self) -> Result<Config, config::ConfigError> {
        let overrides = Overrides { data_dir: self.data_dir, ..Overrides::default() };
        Config::load(self.config.as_deref(), overrides)
    }
}

impl ServeArgs {
    fn load(self) -> Result<Config, config::ConfigError> {
        let overrides = Overrides {
            role: self.role,
            data_dir: self.data_dir,
            listen: self.listen,
            orchestrator_listen: self.orchestrator_listen,
        };
        Config::load(self.config.as_deref(), overrides)
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        None => serve(cli.serve),
        Some(Command::Serve(args)) => serve(args),
        Some(Command::Config { command: ConfigCommand::Check(args) }) => check(args),
        Some(Command::Config { command: ConfigCommand::Example }) => {
            print!("{}", config::EXAMPLE);
            Ok(())
        }
        Some(Command::Chat(args)) => chat::run(args),
        Some(Command::Healthcheck(args)) => healthcheck::run(args),
        Some(Command::Users { command }) => users::run(command),
        Some(Command::Groups { command }) => groups::run(command),
        Some(Command::Orgs { command }) => orgs::run(command),
        Some(Command::Secrets { command }) => secrets::run(command),
        Some(Command::Archive { command }) => archive::run(command),
        Some(Command::Backup(args)) => backup::run(args),
        Some(Command::Keys { command }) => keys::run(command),
        Some(Command::Openapi { api }) => openapi::run(api),
        Some(Command::Journal { command }) => journal::run(command),
        Some(Command::Bench(args)) => bench::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("convene: {error}");
            let infra = error.downcast_ref::<InfraError>().map(InfraError::exit_code);
            infra.map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

/// An error for the person at the terminal.
pub type CliError = Box<dyn std::error::Error + Send + Sync>;

fn serve(args: ServeArgs) -> Result<(), CliError> {
    let config = args.load()?;
    serve::runtime()?.block_on(serve::serve(config))?;
    Ok(())
}

fn check(args: ServeArgs) -> Result<(), CliError> {
    let config = args.load()?;
    match config.role {
        None => println!("The configuration is valid. Serving would listen on {}.", config.listen),
        Some(role) => println!("The configuration is valid for the role {}.", role.name()),
    }
    Ok(())
}
