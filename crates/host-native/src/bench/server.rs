//! Convene in a process of its own, so that its memory and its restarts are its own, with people who
//! are made without their passwords being hashed.

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::cli::CliError;

/// A Convene on a data directory and an address that outlive its restarts.
pub(super) struct Server {
    data: PathBuf,
    pub(super) address: SocketAddr,
    child: Option<Child>,
    env: Vec<(&'static str, String)>,
}

/// A group with people who may open it.
pub(super) struct World {
    /// The workspace's id.
    pub(super) org: String,
    /// The group's id.
    pub(super) group: String,
    /// A bearer token of each person; the first is the owner.
    pub(super) tokens: Vec<String>,
}

impl Server {
    /// Starts on a fresh data directory below `dir`, with these variables in its environment.
    pub(super) fn start(
        dir: &Path,
        name: &str,
        env: Vec<(&'static str, String)>,
    ) -> Result<Self, CliError> {
        // The first installation in this process holds, whoever makes it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let data = dir.join(name);
        if data.exists() {
            std::fs::remove_dir_all(&data)?;
        }
        std::fs::create_dir_all(dir)?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut server = Self { data, address, child: None, env };
        server.restart()?;
        Ok(server)
    }

    /// Kills it as `kill -9` does, where it runs, and starts it again. Returns when it serves.
    pub(super) fn restart(&mut self) -> Result<(), CliError> {
        self.kill();
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", "--listen", &self.address.to_string(), "--data-dir"])
            .arg(&self.data)
            .env("CONVENE_LOG__LEVEL", "warn")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("the process has no output")?;
        self.child = Some(child);
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        match line.starts_with("Convene is ready") {
            true => Ok(()),
            false => Err("the process that is to be measured did not start".into()),
        }
    }

    /// Kills it as `kill -9` does.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Bytes of its memory that no file stands behind.
    pub(super) fn anonymous_memory(&self) -> Result<u64, CliError> {
        let pid = self.child.as_ref().ok_or("the process does not run")?.id();
        super::memory::anonymous(pid)
    }

    /// Makes a workspace with an open group and so many people in it, and restarts.
    pub(super) async fn populate(&mut self, people: usize) -> Result<World, CliError> {
        let account = json!({"email": "owner@example.org", "name": "Owner",
            "password": "only for this measurement", "bearer": true});
        let signed_up = self.post("/api/auth/sign-up", None, &account).await?;
        let owner = text(&signed_up, "token")?;
        let org = self.post("/api/orgs", Some(&owner), &json!({"name": "Storm"})).await?;
        let org = text(&org, "org_id")?;
        let group = json!({"org_id": org, "title": "Storm", "is_private": false, "agent_ids": []});
        let group = text(&self.post("/api/groups", Some(&owner), &group).await?, "group_id")?;
        self.kill();
        let mut tokens = vec![owner];
        let mut db = Connection::open(self.data.join("workspace.db"))?;
        let transaction = db.transaction()?;
        for number in 1..people {
            let (user, token) = (format!("storm-{number}"), format!("cvt_storm-{number}"));
            let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(token.as_bytes()));
            transaction.execute(
                "INSERT INTO users (user_id, email, name, password_hash, created_at)
                 VALUES (?1, ?2, ?1, 'none', 0)",
                params![user, format!("{user}@example.org")],
            )?;
            transaction.execute(
                "INSERT INTO org_members (org_id, user_id, role, joined_at)
                 VALUES (?1, ?2, 'member', 0)",
                params![org, user],
            )?;
            transaction.execute(
                "INSERT INTO api_tokens (token_id, token_hash, user_id, name, created_at)
                 VALUES (?1, ?2, ?1, 'bench', 0)",
                params![user, digest],
            )?;
            tokens.push(token);
        }
        transaction.commit()?;
        drop(db);
        self.restart()?;
        Ok(World { org, group, tokens })
    }

    /// `POST` that must succeed.
    pub(super) async fn post(
        &self,
        path: &str,
        token: Option<&str>,
        body: &Value,
    ) -> Result<Value, CliError> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        self.post_by(&client, path, token, body).await
    }

    /// The same by a client that keeps its connections.
    pub(super) async fn post_by(
        &self,
        client: &reqwest::Client,
        path: &str,
        token: Option<&str>,
        body: &Value,
    ) -> Result<Value, CliError> {
        let mut request = client.post(format!("http://{}{path}", self.address)).json(body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await?.error_for_status()?;
        Ok(serde_json::from_slice(&response.bytes().await?)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

fn text(value: &Value, member: &str) -> Result<String, CliError> {
    let text = value[member].as_str().ok_or_else(|| format!("no {member} in {value}"))?;
    Ok(text.to_owned())
}
