//! The infra API as an operator's commands call it: at the socket of the data directory, or at an
//! address, with a token that the operator's key signs for each request.
//!
//! Owns how a failure ends the command: [`InfraError::exit_code`].

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use clap::Args;
use convene_hop::Signer;
use convene_model::{
    Code, Problem, TaskId, Timestamp,
    claims::{AppClaims, service},
    keys::SigningKey,
    tasks::{Task, TaskStatus},
    token::body_hash,
};
use http::Method;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use reqwest::{StatusCode, header};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use crate::{
    agents_transport::{CONNECT_TIMEOUT, tls},
    cli::{CliError, DataArgs},
    clock,
    config::Config,
    keys,
    operator::{self, SocketPath},
};

/// How long an answer may take: longer than a call waits for its task.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a call is made whose answer did not come, under one idempotency key.
const TRIES: usize = 3;
/// How often a task is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long the Orchestrator may be away while a task is watched.
const AWAY_FOR: Duration = Duration::from_secs(60);
/// What the address of a call at the socket names as its host; nothing is looked up.
const AT_SOCKET: &str = "http://convene";

/// Where the Orchestrator is, and who calls.
#[derive(Debug, Args)]
pub(crate) struct InfraArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Where the infra API is served [default: by the process on the data directory]
    #[arg(long, value_name = "URL", requires = "key")]
    infra: Option<Url>,
    /// The operator's key [default: the data directory's own]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The name under which the Orchestrator knows the key, in `[[orchestrator.apps]]`
    #[arg(long, value_name = "NAME", requires = "key")]
    issuer: Option<String>,
    /// Print JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InfraError {
    /// There is no answer.
    #[error("the Orchestrator cannot be reached: {0}")]
    Unreachable(String),
    /// The Orchestrator says no.
    #[error("{}", said(.0))]
    Refused(Problem),
    /// The person at the terminal did not say yes.
    #[error("{0}")]
    Unconfirmed(String),
}

impl InfraError {
    /// How the command ends: 1 refused or failed, 3 there is no such thing, 4 nobody answers, 5 the
    /// operator may not, 6 not confirmed. Wrong arguments end with 2.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable(_) => 4,
            Self::Unconfirmed(_) => 6,
            Self::Refused(problem) => match problem.code.status() {
                401 => 5,
                403 if problem.code == Code::Forbidden => 5,
                404 | 410 => 3,
                _ => 1,
            },
        }
    }
}

/// A problem in words, with its figures.
fn said(problem: &Problem) -> String {
    let mut text = format!("{} ({})", problem.title, problem.code.as_str());
    if let Some(detail) = &problem.detail {
        text.push_str(": ");
        text.push_str(detail);
    }
    for (name, value) in &problem.extra {
        text.push_str(&format!("; {name}: {value}"));
    }
    text
}

/// The way to the Orchestrator.
pub(crate) struct Infra {
    client: reqwest::Client,
    base: String,
    signer: Signer,
    /// Keeps the socket's address usable.
    _socket: Option<SocketPath>,
}

impl InfraArgs {
    /// Opens the way; nothing is called yet.
    pub(crate) fn open(self) -> Result<Infra, CliError> {
        let config = self.data.load()?;
        let key = match &self.key {
            Some(file) => {
                let issuer = self.issuer.as_deref().unwrap_or(service::OPERATOR);
                SigningKey::from_seed(issuer, &*keys::load(file)?)
            }
            None => own_key(&config)?,
        };
        let signer = Signer::new(key, clock::system());
        let client = reqwest::Client::builder()
            .user_agent(concat!("convene/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT);
        let Some(url) = self.infra else {
            let dir = config.data_dir.display();
            let socket = SocketPath::of(&config.data_dir)
                .map_err(|error| format!("{dir} cannot be used: {error}"))?;
            let client = client.unix_socket(socket.as_path().to_owned());
            let client = client.tls_backend_preconfigured(tls()?).build()?;
            return Ok(Infra { client, base: AT_SOCKET.to_owned(), signer, _socket: Some(socket) });
        };
        let base = url.as_str().trim_end_matches('/').to_owned();
        let client = client.tls_backend_preconfigured(tls()?).build()?;
        Ok(Infra { client, base, signer, _socket: None })
    }
}

/// The key of the data directory, which the Orchestrator has made.
fn own_key(config: &Config) -> Result<SigningKey, CliError> {
    let files = operator::key_files(config);
    if !files.exist() {
        let dir = config.data_dir.display();
        let hint = "say where the data is with --data-dir, or name a key with --key";
        return Err(format!("there is no operator's key in {dir}; {hint}").into());
    }
    let ring = files.read()?;
    let signing = ring.signing(clock::now()).ok_or("no operator's key signs at this moment")?;
    Ok(files.secret(signing)?)
}

impl Infra {
    /// Reads; `target` may have a query.
    pub(crate) async fn get(&self, target: &str) -> Result<Value, CliError> {
        Ok(self.call(&Method::GET, target, None, false).await?.1)
    }

    /// Sets.
    pub(crate) async fn put(&self, target: &str, body: &Value) -> Result<Value, CliError> {
        Ok(self.call(&Method::PUT, target, Some(body), false).await?.1)
    }

    /// Does.
    pub(crate) async fn post(&self, target: &str, body: &Value) -> Result<Value, CliError> {
        Ok(self.call(&Method::POST, target, Some(body), false).await?.1)
    }

    /// Every entry of a list, over all its pages, `most` at most.
    pub(crate) async fn all(
        &self,
        path: &str,
        filters: &[(&str, Option<String>)],
        list: &str,
        most: usize,
    ) -> Result<Vec<Value>, CliError> {
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        while found.len() < most {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            let limit = (most - found.len()).min(convene_model::limits::MAX_PAGE);
            query.append_pair("limit", &limit.to_string());
            for (name, value) in filters {
                if let Some(value) = value {
                    query.append_pair(name, value);
                }
            }
            if let Some(after) = &after {
                query.append_pair("after", after);
            }
            let mut page = self.get(&format!("{path}?{}", query.finish())).await?;
            if let Value::Array(entries) = page[list].take() {
                found.extend(entries);
            }
            match page["next"].as_str() {
                Some(next) => after = Some(next.to_owned()),
                None => break,
            }
        }
        Ok(found)
    }

    /// Begins work that takes long, and unless `wait` is false watches it to its end: what the call
    /// would have answered, or the task.
    pub(crate) async fn work(
        &self,
        method: &Method,
        target: &str,
        body: Option<&Value>,
        wait: bool,
    ) -> Result<Value, CliError> {
        let (status, answer) = self.call(method, target, body, true).await?;
        if status != StatusCode::ACCEPTED || !wait {
            return Ok(answer);
        }
        let task: Task = serde_json::from_value(answer)?;
        let task = self.watch(task).await?;
        match task.status {
            TaskStatus::Done => Ok(task.result.unwrap_or(Value::Null)),
            TaskStatus::Failed | TaskStatus::Running => {
                let problem = task.problem.unwrap_or_else(|| Code::Internal.into());
                Err(InfraError::Refused(problem).into())
            }
        }
    }

    /// Watches a task to its end, with a bar on a terminal.
    async fn watch(&self, mut task: Task) -> Result<Task, CliError> {
        let bar = ProgressBar::new(task.total);
        // A template that cannot be read would show the plain bar.
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed}") {
            bar.set_style(style);
        }
        let mut answered = Instant::now();
        while task.status == TaskStatus::Running {
            bar.set_length(task.total);
            bar.set_position(task.done);
            bar.set_message(match &task.problem {
                Some(problem) => format!("{}, tried again: {}", task.step, problem.code.as_str()),
                None => task.step.clone(),
            });
            tokio::time::sleep(LOOK_EVERY).await;
            match self.task(&task.task_id).await {
                Ok(found) => {
                    answered = Instant::now();
                    task = found;
                }
                Err(error) if answered.elapsed() >= AWAY_FOR || !is_passing(&error) => {
                    bar.finish_and_clear();
                    eprintln!("The task {} goes on without being watched.", task.task_id);
                    return Err(error);
                }
                Err(_) => bar.set_message("the Orchestrator is away"),
            }
        }
        bar.finish_and_clear();
        Ok(task)
    }

    async fn task(&self, task_id: &TaskId) -> Result<Task, CliError> {
        Ok(serde_json::from_value(self.get(&format!("/infra/tasks/{task_id}")).await?)?)
    }

    /// Makes a call; one whose answer does not come is made again under the same key.
    async fn call(
        &self,
        method: &Method,
        target: &str,
        body: Option<&Value>,
        at_once: bool,
    ) -> Result<(StatusCode, Value), InfraError> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let key = Uuid::new_v4().simple().to_string();
        let mut tries = 0;
        loop {
            tries += 1;
            let response = self.request(method, target, body.clone().into(), &key, at_once).await;
            let response = match response {
                Ok(response) => response,
                Err(error) if error.is_connect() || tries == TRIES => return Err(of(&error)),
                Err(_) => continue,
            };
            let status = response.status();
            let bytes = response.bytes().await.map_err(|error| of(&error))?;
            let answer = serde_json::from_slice(&bytes).unwrap_or_default();
            if status.is_success() {
                return Ok((status, answer));
            }
            return match serde_json::from_value(answer) {
                Ok(problem) => Err(InfraError::Refused(problem)),
                Err(_) => Err(InfraError::Unreachable(format!("{} answered {status}", self.base))),
            };
        }
    }

    async fn request(
        &self,
        method: &Method,
        target: &str,
        body: Bytes,
        key: &str,
        at_once: bool,
    ) -> Result<reqwest::Response, reqwest::Error> {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let token = self.signer.mint(
            service::ORCHESTRATOR,
            AppClaims {
                sub: "convene-cli".to_owned(),
                htm: method.as_str().to_owned(),
                htu: path.to_owned(),
                bh: body_hash(&body),
                org_id: None,
            },
        );
        let mut request = self.client.request(method.clone(), format!("{}{target}", self.base));
        request = request.bearer_auth(token);
        if method != Method::GET {
            request = request.header("idempotency-key", key);
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        if at_once {
            request = request.header("prefer", "respond-async");
        }
        request.send().await
    }
}

/// Whether it may be better at the next look.
fn is_passing(error: &CliError) -> bool {
    match error.downcast_ref::<InfraError>() {
        Some(InfraError::Unreachable(_)) => true,
        Some(InfraError::Refused(problem)) => problem.code.status() >= 500,
        Some(InfraError::Unconfirmed(_)) | None => false,
    }
}

/// An error with what is behind it.
fn of(error: &reqwest::Error) -> InfraError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    InfraError::Unreachable(text)
}

/// Runs a command's calls to their end.
pub(crate) fn block_on(calls: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    // A second installation happens only where a process embeds the host; the first holds.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(calls)
}

/// A member that is text, or nothing.
pub(crate) fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

/// How long ago a member's time is, in words.
pub(crate) fn ago(value: &Value, member: &str) -> String {
    match value[member].as_u64() {
        Some(at) => {
            let past = clock::now().since(Timestamp::from_millis(at));
            format!("{} ago", HumanDuration(past))
        }
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_fail_has_its_exit_code() {
        let refused = |code: Code| InfraError::Refused(code.into()).exit_code();
        assert_eq!(refused(Code::GroupNotFound), 3);
        assert_eq!(refused(Code::GroupDeleted), 3);
        assert_eq!(refused(Code::Unauthorized), 5);
        assert_eq!(refused(Code::Forbidden), 5);
        assert_eq!(refused(Code::OrgBlocked), 1);
        assert_eq!(refused(Code::ActiveGroupLimitExceeded), 1);
        assert_eq!(InfraError::Unreachable(String::new()).exit_code(), 4);
        assert_eq!(InfraError::Unconfirmed(String::new()).exit_code(), 6);
    }

    #[test]
    fn a_refusal_is_said_with_its_figures() {
        let problem = Problem::new(Code::ActiveGroupLimitExceeded).with("limit", 3);
        let said = InfraError::Refused(problem).to_string();
        assert!(
            said.contains("active_group_limit_exceeded") && said.contains("limit: 3"),
            "{said}"
        );
    }
}
