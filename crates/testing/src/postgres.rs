//! PostgreSQL for tests: one server that all test processes of a machine share, with a database for
//! each test, or a server of a test's own that may be stopped and killed.
//!
//! The server is Debian's, in a temporary folder, run by a user that is not root; the first test
//! that needs it starts it, and it ends some seconds after the last test that uses it. Instead of it
//! any server can be named by `CONVENE_TEST_POSTGRES_URL`, whose user may create databases.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use tokio_postgres::NoTls;

/// Names a server that is there already.
pub const URL_VARIABLE: &str = "CONVENE_TEST_POSTGRES_URL";

/// Names the folder of `initdb` and `pg_ctl`; looked for where Debian puts them when not set.
pub const BIN_VARIABLE: &str = "CONVENE_TEST_POSTGRES_BIN";

/// Names the kind of database that the worlds of the App's and the Orchestrator's suites stand on:
/// `sqlite` (as when it is not set) or `postgres`.
pub const DATABASE_VARIABLE: &str = "CONVENE_TEST_DATABASE";

/// How often it is looked whether anybody still uses the shared server, in seconds.
const UNUSED_AFTER_SECS: u32 = 20;

/// How long a test waits until its database is dropped; it goes with the server anyway.
const DROP_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections of a server; each test process has a few.
const MAX_CONNECTIONS: u32 = 400;

/// A database of a test's own, which is dropped with this.
pub struct TestDatabase {
    admin: String,
    name: String,
    url: String,
}

/// A server of a test's own. It is stopped, and its folder removed, with this.
pub struct PostgresServer {
    folder: PathBuf,
    port: u16,
    password: String,
    shared: bool,
}

impl TestDatabase {
    /// A new database on the shared server.
    ///
    /// # Panics
    /// When there is no server and none can be started: what is missing is said, and no test that
    /// needs a database is ever left out.
    pub async fn fresh() -> Self {
        let url = tokio::task::spawn_blocking(shared_url).await.expect("starting the server");
        Self::on(&url).await
    }

    /// A new database on the server of a URL, whatever database that names.
    ///
    /// # Panics
    /// When the server does not let its user make one.
    pub async fn on(admin: &str) -> Self {
        let name = format!("convene_test_{}", uuid::Uuid::new_v4().simple());
        run_on(admin, &format!("CREATE DATABASE {name} TEMPLATE template0"))
            .await
            .unwrap_or_else(|error| panic!("a database on {URL_VARIABLE} or our own: {error}"));
        let url = with_database(admin, &name);
        Self { admin: admin.to_owned(), name, url }
    }

    /// Its connection string.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same database as it is reached through another address, such as that of a proxy.
    ///
    /// # Panics
    /// When the server's own address is none of host and port.
    #[must_use]
    pub fn url_through(&self, address: &str) -> String {
        self.url.replacen(self.address(), address, 1)
    }

    /// `host:port` of the server.
    ///
    /// # Panics
    /// When the connection string names none.
    #[must_use]
    pub fn address(&self) -> &str {
        let (_, rest) = self.url.split_once('@').expect("a user is named");
        rest.split(['/', '?']).next().expect("there is a first part")
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        // A test's runtime may be going away: this one is the database's own.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                // On a server that a test has stopped there is nothing left to drop, and one that waits
                // for a connection of this very process is not waited for.
                let _ = runtime.block_on(async {
                    let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                    tokio::time::timeout(DROP_TIMEOUT, run_on(&admin, &sql)).await
                });
            }
        });
        let _ = dropping.join();
    }
}

/// The shared server's connection string; it is started when it does not run.
///
/// # Panics
/// When it cannot be had.
#[must_use]
pub fn shared_url() -> String {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        if let Ok(url) = std::env::var(URL_VARIABLE)
            && !url.is_empty()
        {
            return url;
        }
        let folder = std::env::temp_dir().join(format!("convene-test-postgres-{}", user_id()));
        fs::create_dir_all(&folder).expect("a folder for PostgreSQL");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("our folder");
        // Held until this process ends: whoever can take it alone stops the server.
        let users = File::create(folder.join("users")).expect("a file in our folder");
        users.lock_shared().expect("a lock in our folder");
        std::mem::forget(users);
        let starting = File::create(folder.join("starting")).expect("a file in our folder");
        starting.lock().expect("a lock in our folder");
        let noted = folder.join("url");
        if let Ok(url) = fs::read_to_string(&noted)
            && answers(&url)
        {
            return url;
        }
        let mut server = PostgresServer::start_in(&folder.join("server"), |_| {});
        server.shared = true;
        let url = server.url();
        let mut file = File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&noted)
            .expect("a file in our folder");
        file.write_all(url.as_bytes()).expect("a file in our folder");
        server.stop_when_unused(&folder);
        url
    })
    .clone()
}

impl PostgresServer {
    /// A server on a free port of loopback. `prepare` may change the settings in the data folder
    /// before it starts.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    #[must_use]
    pub fn start(prepare: impl FnOnce(&Path)) -> Self {
        // Its user must be able to get there, which rules out the temporary folders of tests.
        let name = format!("convene-test-postgres-{}", uuid::Uuid::new_v4().simple());
        Self::start_in(&std::env::temp_dir().join(name), prepare)
    }

    fn start_in(folder: &Path, prepare: impl FnOnce(&Path)) -> Self {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).expect("a folder for PostgreSQL");
        let password = uuid::Uuid::new_v4().simple().to_string();
        fs::write(folder.join("password"), &password).expect("a file for the password");
        own(folder);
        own(&folder.join("password"));
        let server = Self { folder: folder.to_owned(), port: free_port(), password, shared: false };
        let data = server.data();
        let mut initdb = server.program("initdb");
        // Another order of texts than that of their bytes, so that nothing relies on the default.
        initdb.args(["--username=convene", "--auth=scram-sha-256", "--encoding=UTF8"]);
        initdb.args(["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"]);
        initdb.arg("--no-sync").arg("--pgdata").arg(&data);
        initdb.arg(format!("--pwfile={}", folder.join("password").display()));
        run(&mut initdb);
        prepare(&data);
        server.start_again();
        server
    }

    /// The connection string of its own user and of the database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://convene:{}@127.0.0.1:{}/postgres", self.password, self.port)
    }

    /// Starts it again on the same port, after [`Self::stop`] or [`Self::kill`].
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&self) {
        // What a test writes need not survive the machine. A connection that a test left half made
        // holds up whoever drops a database, until it is given up.
        let settings = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off \
             -c full_page_writes=off -c autovacuum=off -c authentication_timeout=10 -c max_connections={MAX_CONNECTIONS}",
            self.port
        );
        let mut start = self.program("pg_ctl");
        start.args(["start", "--wait", "--silent", "--options", &settings, "--pgdata"]);
        start.arg(self.data()).arg("--log").arg(self.folder.join("log"));
        run(&mut start);
    }

    /// Stops it as an operator would in a hurry: open connections are closed.
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&self) {
        self.stop_as("fast");
    }

    /// Ends it without a shutdown, as a power cut does for its clients.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&self) {
        self.stop_as("immediate");
    }

    fn stop_as(&self, mode: &str) {
        let mut stop = self.program("pg_ctl");
        stop.args(["stop", "--wait", "--silent", "--mode", mode, "--pgdata"]).arg(self.data());
        run(&mut stop);
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// One of its programs, as a user that is not root.
    fn program(&self, name: &str) -> Command {
        let path = binaries().join(name);
        let mut command = match unprivileged() {
            None => Command::new(path),
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", user, "--regid", group, "--clear-groups"]).arg(path);
                command
            }
        };
        command.current_dir("/").stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
        command
    }

    /// Leaves a process behind that stops the server once no test holds the lock on `users`.
    fn stop_when_unused(self, folder: &Path) {
        const WATCH: &str = "seconds=$1 folder=$2; shift 2
            while sleep \"$seconds\"; do
                flock --nonblock --conflict-exit-code 75 \"$folder/users\" sh -c \
                    'rm -f \"$0/url\"; \"$@\" && rm -rf \"$0/server\"' \"$folder\" \"$@\"
                [ $? -eq 75 ] || exit 0
            done";
        let mut stop = self.program("pg_ctl");
        stop.args(["stop", "--silent", "--mode", "immediate", "--pgdata"]).arg(self.data());
        let mut watch = Command::new("setsid");
        watch.args(["sh", "-c", WATCH, "sh", &UNUSED_AFTER_SECS.to_string()]).arg(folder);
        watch.arg(stop.get_program()).args(stop.get_args());
        watch.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let watching = watch.spawn().expect("setsid and sh are everywhere");
        // It outlives this process, which nobody asks how it ended.
        std::mem::forget((watching, self));
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.shared {
            return;
        }
        let mut stop = self.program("pg_ctl");
        stop.args(["stop", "--silent", "--mode", "immediate", "--pgdata"]).arg(self.data());
        let _ = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Runs one statement on a connection of its own.
async fn run_on(url: &str, sql: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let connection = tokio::spawn(connection);
    let done = client.batch_execute(sql).await;
    drop(client);
    let _ = connection.await;
    done
}

fn answers(url: &str) -> bool {
    let url = url.to_owned();
    let asking = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(async {
            let asked = tokio::time::timeout(Duration::from_secs(5), run_on(&url, "SELECT 1"));
            asked.await.ok()?.ok()
        })
    });
    asking.join().is_ok_and(|answer| answer.is_some())
}

fn with_database(url: &str, name: &str) -> String {
    let (address, parameters) = match url.split_once('?') {
        Some((address, parameters)) => (address, format!("?{parameters}")),
        None => (url, String::new()),
    };
    let start = address.find("://").map_or(0, |at| at + 3);
    let end = address[start..].find('/').map_or(address.len(), |at| start + at);
    format!("{}/{name}{parameters}", &address[..end])
}

/// The newest of Debian's versions, or the folder that is named.
fn binaries() -> PathBuf {
    if let Some(folder) = std::env::var_os(BIN_VARIABLE) {
        return folder.into();
    }
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let folder = entry.path().join("bin");
            folder.join("initdb").exists().then_some((version, folder))
        })
        .collect();
    versions.sort();
    versions.pop().map(|(_, folder)| folder).unwrap_or_else(|| {
        panic!(
            "there is no PostgreSQL server: install Debian's package `postgresql`, or name a server \
             in {URL_VARIABLE}, or the folder of initdb in {BIN_VARIABLE}"
        )
    })
}

/// Whom to run as instead of root, which PostgreSQL refuses: a user and a group.
fn unprivileged() -> Option<(&'static str, &'static str)> {
    if user_id() != "0" {
        return None;
    }
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let has_own = known.lines().any(|line| line.starts_with("postgres:"));
    Some(if has_own { ("postgres", "postgres") } else { ("nobody", "nogroup") })
}

/// Gives a file or folder to the user that servers run as.
///
/// # Panics
/// When it is not there.
pub fn own(path: &Path) {
    if let Some((user, _)) = unprivileged() {
        run(Command::new("chown").arg(user).arg(path));
    }
}

fn user_id() -> String {
    let output = Command::new("id").arg("-u").output().expect("id is everywhere");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A port of loopback below those that the system gives to outgoing connections, so that it is
/// still free when the server is started on it again.
fn free_port() -> u16 {
    let first = std::process::id().wrapping_mul(37) % 1_500;
    (0..1_500)
        .map(|step| 31_000 + u16::try_from((first + step) % 1_500).expect("it is below 1,500"))
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port of loopback")
}

/// Runs a program to its end.
fn run(command: &mut Command) {
    let line = format!("{command:?}");
    // What it leaves running must not hold our own output open.
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!("{line}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("{line}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_replaced() {
        for (url, expected) in [
            ("postgres://u:p@h:1/old", "postgres://u:p@h:1/new"),
            ("postgres://u:p@h:1", "postgres://u:p@h:1/new"),
            ("postgres://u@h/old?sslmode=require", "postgres://u@h/new?sslmode=require"),
        ] {
            assert_eq!(with_database(url, "new"), expected);
        }
    }
}
