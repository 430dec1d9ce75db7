//! Configuration: one file per section; a TOML file, the environment and flags, in rising order.
//!
//! Each key of `convene.toml` is also an environment variable: `CONVENE_` and the key's path in
//! capitals with two underscores between its parts, as in `CONVENE_APP__PUBLIC_URL`. The one that most
//! installations set has a shorter name too: `CONVENE_DATABASE_URL`, or `CONVENE_DATABASE_URL_FILE`.

mod agents;
mod app;
mod controllers;
mod database;
mod log;
mod metrics;
mod orchestrator;
mod role;
mod store;
mod telemetry;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

pub use agents::AgentsConfig;
pub use app::AppConfig;
pub use controllers::{ControllersConfig, ExternalHistory};
pub use database::{ConnectionString, DatabaseConfig};
pub use log::{LogConfig, LogFormat};
pub use metrics::MetricsConfig;
pub use orchestrator::{AppScope, OrchestratorConfig, OutsideApp};
pub use role::{KeySource, Role, Service};
pub use store::{SecretText, StoreConfig, StoreKind};
pub use telemetry::TelemetryConfig;

/// The documented example with every key at its default; `convene config example` prints it.
pub const EXAMPLE: &str = include_str!("../../../../docs/convene.example.toml");

/// The file that is read from the current folder when no other is named.
pub const DEFAULT_FILE: &str = "convene.toml";

/// Everything that an operator can set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which service this process is; all of them when not set.
    pub role: Option<Role>,
    /// Where everything durable is kept. One process with all services, or several with roles.
    pub data_dir: PathBuf,
    /// The address of the public door.
    pub listen: SocketAddr,
    /// Logging.
    pub log: LogConfig,
    /// Figures for Prometheus and the like.
    pub metrics: MetricsConfig,
    /// Traces.
    pub telemetry: TelemetryConfig,
    /// The databases of the App and the Orchestrator.
    pub database: DatabaseConfig,
    /// The App.
    pub app: AppConfig,
    /// The Orchestrator.
    pub orchestrator: OrchestratorConfig,
    /// The Group Controllers.
    pub controllers: ControllersConfig,
    /// The Agents Worker.
    pub agents: AgentsConfig,
    /// Where snapshots of groups are kept.
    pub archives: StoreConfig,
    /// Where logs are shipped to.
    pub logs: StoreConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            role: None,
            data_dir: PathBuf::from("convene-data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            log: LogConfig::default(),
            metrics: MetricsConfig::default(),
            telemetry: TelemetryConfig::default(),
            database: DatabaseConfig::default(),
            app: AppConfig::default(),
            orchestrator: OrchestratorConfig::default(),
            controllers: ControllersConfig::default(),
            agents: AgentsConfig::default(),
            archives: StoreConfig::default(),
            logs: StoreConfig::default(),
        }
    }
}

/// A configuration that cannot be used; says which key and why.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or variable cannot be read, or a key is unknown or of another type.
    #[error("the configuration cannot be read: {0}")]
    Unreadable(#[from] config::ConfigError),
    /// A value breaks a rule.
    #[error("{key}: {problem}")]
    Invalid {
        /// The key's path.
        key: String,
        /// What is wrong.
        problem: String,
    },
}

impl ConfigError {
    pub(crate) fn invalid(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { key: key.into(), problem: problem.into() }
    }
}

/// What flags say; they win over file and environment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// `--role`.
    pub role: Option<Role>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--orchestrator-listen`.
    pub orchestrator_listen: Option<SocketAddr>,
}

impl Config {
    /// Reads `file` (or `convene.toml` where it exists), the environment and the flags, and checks
    /// the result.
    ///
    /// # Errors
    /// [`ConfigError`] for a file that cannot be read, an unknown key or a value that breaks a rule.
    pub fn load(file: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        Self::load_with(file, std::env::vars().collect(), overrides)
    }

    fn load_with(
        file: Option<&Path>,
        variables: config::Map<String, String>,
        overrides: Overrides,
    ) -> Result<Self, ConfigError> {
        let source = match file {
            Some(path) => config::File::from(path).format(config::FileFormat::Toml).required(true),
            None => config::File::from(Path::new(DEFAULT_FILE))
                .format(config::FileFormat::Toml)
                .required(false),
        };
        // The test harness' own variables share the prefix but name no key.
        let variables = variables
            .into_iter()
            .map(|(name, value)| (long_name(name), value))
            .filter(|(name, _)| KEYS.iter().any(|key| name.eq_ignore_ascii_case(key)))
            .collect();
        let environment = config::Environment::with_prefix("CONVENE")
            .prefix_separator("_")
            .separator("__")
            .list_separator(",")
            .with_list_parse_key("app.trusted_proxies")
            .with_list_parse_key("agents.allow_hosts")
            .with_list_parse_key("app.internal_urls")
            .with_list_parse_key("orchestrator.urls")
            .with_list_parse_key("agents.urls")
            .try_parsing(true)
            .ignore_empty(true)
            .source(Some(variables));
        let read = config::Config::builder().add_source(source).add_source(environment).build()?;
        let mut config: Self = read.try_deserialize()?;
        if let Some(role) = overrides.role {
            config.role = Some(role);
        }
        if let Some(data_dir) = overrides.data_dir {
            config.data_dir = data_dir;
        }
        if let Some(listen) = overrides.listen {
            config.listen = listen;
        }
        if let Some(listen) = overrides.orchestrator_listen {
            config.orchestrator.listen = Some(listen);
        }
        config.check()?;
        Ok(config)
    }

    /// The files with keys, and the setting that names each: those of the services and the master
    /// key of the secrets.
    pub(crate) fn key_files(&self) -> Vec<(String, PathBuf)> {
        let roles = [Role::App, Role::Orchestrator, Role::Controllers, Role::Agents];
        let mut files: Vec<_> = roles
            .into_iter()
            .map(|role| {
                let (path, _) = self.service(role).key_file(&self.data_dir);
                (format!("{}.key_file", role.name()), path)
            })
            .collect();
        if let Some(master) = &self.app.master_key_file {
            files.push(("app.master_key_file".into(), master.clone()));
        }
        files
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.data_dir.as_os_str().is_empty() {
            return Err(ConfigError::invalid("data_dir", "it is empty"));
        }
        if self.orchestrator.listen.is_some_and(|other| other == self.listen && other.port() != 0) {
            return Err(ConfigError::invalid(
                "orchestrator.listen",
                "it is the same address as `listen`",
            ));
        }
        self.log.check()?;
        if self.metrics.listen.is_some_and(|other| other == self.listen && other.port() != 0) {
            return Err(ConfigError::invalid(
                "metrics.listen",
                "it is the same address as `listen`",
            ));
        }
        self.metrics.token()?;
        self.telemetry.check()?;
        self.database.check()?;
        self.app.check()?;
        self.orchestrator.check()?;
        self.agents.check()?;
        self.controllers.check()?;
        self.archives.check("archives")?;
        self.logs.check("logs")?;
        if self.logs.max_snapshot_bytes.is_some() {
            return Err(ConfigError::invalid(
                "logs.max_snapshot_bytes",
                "only archives have snapshots",
            ));
        }
        let of_logs = [
            ("archives.ship", self.archives.ship.is_some()),
            ("archives.every_secs", self.archives.every_secs.is_some()),
            ("archives.keep_days", self.archives.keep_days.is_some()),
        ];
        if let Some((key, _)) = of_logs.into_iter().find(|(_, is_set)| *is_set) {
            return Err(ConfigError::invalid(key, "only logs are shipped by time"));
        }
        self.check_role()
    }
}

/// Variables with a shorter name than that of their key.
const SHORT_NAMES: &[(&str, &str)] = &[
    ("CONVENE_DATABASE_URL", "CONVENE_DATABASE__URL"),
    ("CONVENE_DATABASE_URL_FILE", "CONVENE_DATABASE__URL_FILE"),
];

fn long_name(variable: String) -> String {
    let short = SHORT_NAMES.iter().find(|(short, _)| variable.eq_ignore_ascii_case(short));
    short.map_or(variable, |(_, long)| (*long).to_owned())
}

/// The environment variables that set a key.
const KEYS: &[&str] = &[
    "CONVENE_ROLE",
    "CONVENE_DATA_DIR",
    "CONVENE_LISTEN",
    "CONVENE_LOG__LEVEL",
    "CONVENE_LOG__FORMAT",
    "CONVENE_METRICS__LISTEN",
    "CONVENE_METRICS__TOKEN_FILE",
    "CONVENE_TELEMETRY__OTLP_ENDPOINT",
    "CONVENE_TELEMETRY__SAMPLE_RATIO",
    "CONVENE_DATABASE__URL",
    "CONVENE_DATABASE__URL_FILE",
    "CONVENE_DATABASE__MAX_CONNECTIONS",
    "CONVENE_APP__PUBLIC_URL",
    "CONVENE_APP__TRUSTED_PROXIES",
    "CONVENE_APP__PING_EVERY_MS",
    "CONVENE_APP__REQUESTS_PER_MINUTE",
    "CONVENE_APP__MASTER_KEY",
    "CONVENE_APP__MASTER_KEY_FILE",
    "CONVENE_APP__INTERNAL_LISTEN",
    "CONVENE_APP__INTERNAL_URLS",
    "CONVENE_APP__KEY_FILE",
    "CONVENE_APP__JWKS",
    "CONVENE_APP__JWKS_URL",
    "CONVENE_ORCHESTRATOR__LISTEN",
    "CONVENE_ORCHESTRATOR__URLS",
    "CONVENE_ORCHESTRATOR__KEY_FILE",
    "CONVENE_ORCHESTRATOR__JWKS",
    "CONVENE_ORCHESTRATOR__JWKS_URL",
    "CONVENE_ORCHESTRATOR__AUTO_ARCHIVE_AFTER_SECS",
    "CONVENE_ORCHESTRATOR__RECONCILE_EVERY_MS",
    "CONVENE_ORCHESTRATOR__TASK_LEASE_MS",
    "CONVENE_ORCHESTRATOR__LONGEST_ARCHIVE_SECS",
    "CONVENE_ORCHESTRATOR__CALL_WAITS_MS",
    "CONVENE_ORCHESTRATOR__KEEP_ENDED_DAYS",
    "CONVENE_CONTROLLERS__DISK_RESERVE_BYTES",
    "CONVENE_CONTROLLERS__IDLE_AFTER_SECS",
    "CONVENE_CONTROLLERS__LISTEN",
    "CONVENE_CONTROLLERS__URL",
    "CONVENE_CONTROLLERS__KEY_FILE",
    "CONVENE_CONTROLLERS__JWKS",
    "CONVENE_CONTROLLERS__JWKS_URL",
    "CONVENE_AGENTS__LISTEN",
    "CONVENE_AGENTS__URLS",
    "CONVENE_AGENTS__KEY_FILE",
    "CONVENE_AGENTS__JWKS",
    "CONVENE_AGENTS__JWKS_URL",
    "CONVENE_ORCHESTRATOR__MAX_ACTIVE_GROUPS",
    "CONVENE_AGENTS__ALLOW_HOSTS",
    "CONVENE_AGENTS__DEMO_WORD_PAUSE_MS",
    "CONVENE_AGENTS__SILENCE_SECS",
    "CONVENE_ARCHIVES__STORE",
    "CONVENE_ARCHIVES__PATH",
    "CONVENE_ARCHIVES__BUCKET",
    "CONVENE_ARCHIVES__PREFIX",
    "CONVENE_ARCHIVES__ENDPOINT",
    "CONVENE_ARCHIVES__REGION",
    "CONVENE_ARCHIVES__ACCESS_KEY_ID",
    "CONVENE_ARCHIVES__SECRET_ACCESS_KEY",
    "CONVENE_ARCHIVES__SECRET_ACCESS_KEY_FILE",
    "CONVENE_ARCHIVES__VIRTUAL_HOSTED_STYLE",
    "CONVENE_ARCHIVES__ALLOW_HTTP",
    "CONVENE_ARCHIVES__MAX_SNAPSHOT_BYTES",
    "CONVENE_LOGS__STORE",
    "CONVENE_LOGS__PATH",
    "CONVENE_LOGS__BUCKET",
    "CONVENE_LOGS__PREFIX",
    "CONVENE_LOGS__ENDPOINT",
    "CONVENE_LOGS__REGION",
    "CONVENE_LOGS__ACCESS_KEY_ID",
    "CONVENE_LOGS__SECRET_ACCESS_KEY",
    "CONVENE_LOGS__SECRET_ACCESS_KEY_FILE",
    "CONVENE_LOGS__VIRTUAL_HOSTED_STYLE",
    "CONVENE_LOGS__ALLOW_HTTP",
    "CONVENE_LOGS__SHIP",
    "CONVENE_LOGS__EVERY_SECS",
    "CONVENE_LOGS__KEEP_DAYS",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn load(toml: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("convene.toml");
        std::fs::write(&file, toml).unwrap();
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::load_with(Some(&file), env, Overrides::default())
    }

    #[test]
    fn the_example_names_every_default() {
        assert_eq!(load(EXAMPLE, &[]).unwrap(), Config::default());
    }

    #[test]
    fn every_key_of_the_example_is_a_variable_of_the_environment() {
        let mut section = String::new();
        for line in EXAMPLE.lines() {
            let line = line.strip_prefix("# ").unwrap_or(line);
            if let Some(name) = line.strip_prefix('[') {
                section = name.split(']').next().unwrap_or_default().to_owned();
                continue;
            }
            let Some((key, _)) = line.split_once(" = ") else { continue };
            let is_key = key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            // Lists of tables have no variables.
            if !is_key || section.starts_with('[') {
                continue;
            }
            let path =
                if section.is_empty() { key.to_owned() } else { format!("{section}__{key}") };
            let variable = format!("CONVENE_{}", path.to_uppercase());
            assert!(KEYS.contains(&variable.as_str()), "{variable}");
        }
    }

    #[test]
    fn the_environment_wins_over_the_file_and_flags_over_both() {
        let config = load(
            "listen = \"127.0.0.1:1\"\n[log]\nlevel = \"warn\"",
            &[
                ("CONVENE_LISTEN", "127.0.0.1:2"),
                ("CONVENE_AGENTS__ALLOW_HOSTS", "localhost:11434,models.internal"),
                ("CONVENE_ORCHESTRATOR__MAX_ACTIVE_GROUPS", "7"),
                ("CONVENE_TEST_SOMETHING", "ignored"),
            ],
        )
        .unwrap();
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.log.level, "warn");
        assert_eq!(config.agents.allow_hosts, ["localhost:11434", "models.internal"]);
        assert_eq!(config.orchestrator.max_active_groups, 7);

        let overrides =
            Overrides { listen: Some(([127, 0, 0, 1], 3).into()), ..Overrides::default() };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "listen = \"127.0.0.1:1\"").unwrap();
        let config = Config::load_with(Some(&file), config::Map::new(), overrides).unwrap();
        assert_eq!(config.listen.port(), 3);
    }

    #[test]
    fn an_unknown_key_and_a_missing_file_are_refused() {
        let error = load("lisen = \"127.0.0.1:1\"", &[]).unwrap_err();
        assert!(error.to_string().contains("lisen"), "{error}");
        let missing = Config::load(Some(Path::new("/nowhere/convene.toml")), Overrides::default());
        assert!(missing.is_err());
    }

    #[test]
    fn a_value_that_breaks_a_rule_is_refused_by_its_key() {
        for (toml, key) in [
            ("data_dir = \"\"", "data_dir"),
            ("[app]\npublic_url = \"ftp://x\"", "app.public_url"),
            ("[app]\npublic_url = \"https://x/path\"", "app.public_url"),
            ("[app]\ntrusted_proxies = [\"10.0.0.0/40\"]", "app.trusted_proxies"),
            ("[app]\nping_every_ms = 99", "app.ping_every_ms"),
            ("[app]\nping_every_ms = 300001", "app.ping_every_ms"),
            ("[app]\nrequests_per_minute = 0", "app.requests_per_minute"),
            ("[app]\nrequests_per_minute = 1000001", "app.requests_per_minute"),
            ("[log]\nlevel = \"loud=x=y\"", "log.level"),
            (
                "listen = \"127.0.0.1:1\"\n[orchestrator]\nlisten = \"127.0.0.1:1\"",
                "orchestrator.listen",
            ),
            ("listen = \"127.0.0.1:1\"\n[metrics]\nlisten = \"127.0.0.1:1\"", "metrics.listen"),
            ("[telemetry]\notlp_endpoint = \"ftp://x\"", "telemetry.otlp_endpoint"),
            ("[telemetry]\nsample_ratio = 1.5", "telemetry.sample_ratio"),
            ("[metrics]\ntoken_file = \"/nowhere/token\"", "metrics.token_file"),
            ("[database]\nurl = \"mysql://u:s3cret@h/d\"", "database.url"),
            ("[database]\nurl_file = \"/nowhere/url\"", "database.url_file"),
            ("[database]\nurl = \"postgres://u@h/d\"\nurl_file = \"/x\"", "database.url"),
            ("[database]\nmax_connections = 1", "database.max_connections"),
            ("[database]\nmax_connections = 1001", "database.max_connections"),
            ("[orchestrator]\nmax_active_groups = 0", "orchestrator.max_active_groups"),
            (
                "[[orchestrator.apps]]\nissuer = \"app\"\njwks = '{\"keys\":[]}'",
                "orchestrator.apps",
            ),
            ("[[orchestrator.apps]]\nissuer = \"x\"", "orchestrator.apps"),
            ("[agents]\nallow_hosts = [\"http://x\"]", "agents.allow_hosts"),
            ("[agents]\nurls = [\"http://x/path\"]", "agents.urls"),
            ("[controllers]\nurl = \"ftp://x\"", "controllers.url"),
            ("[app]\njwks = '{}'", "app.jwks"),
            ("[app]\njwks = '{\"keys\":[]}'\njwks_url = \"http://x/\"", "app.jwks"),
            ("role = \"agents\"", "agents.listen"),
            ("[archives]\nbucket = \"b\"", "archives.bucket"),
            ("[logs]\nstore = \"s3\"", "logs.bucket"),
            ("[logs]\nmax_snapshot_bytes = 2000000", "logs.max_snapshot_bytes"),
            ("[archives]\nkeep_days = 3", "archives.keep_days"),
            ("[archives]\nmax_snapshot_bytes = 1", "archives.max_snapshot_bytes"),
        ] {
            let error = load(toml, &[]).unwrap_err();
            assert!(error.to_string().starts_with(key), "{toml}: {error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_database_is_named_by_one_string_that_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("url");
        let url = "postgres://convene:s3cret@db.example.org/convene";
        std::fs::write(&file, format!("{url}\n")).unwrap();
        let file = file.to_string_lossy().into_owned();
        for (toml, env) in [
            (format!("[database]\nurl = \"{url}\""), vec![]),
            (format!("[database]\nurl_file = \"{file}\""), vec![]),
            (String::new(), vec![("CONVENE_DATABASE_URL", url)]),
            (String::new(), vec![("CONVENE_DATABASE__URL", url)]),
            (String::new(), vec![("CONVENE_DATABASE_URL_FILE", file.as_str())]),
        ] {
            let config = load(&toml, &env).unwrap();
            let postgres = config.database.postgres().unwrap().unwrap();
            let shown = postgres.to_string();
            assert_eq!(shown, "PostgreSQL at db.example.org, database convene");
            assert!(!format!("{config:?} {postgres:?}").contains("s3cret"));
        }
        assert!(Config::default().database.postgres().unwrap().is_none());
    }
}
