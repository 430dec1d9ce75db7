//! The binary `convene` as a process of its own, as an operator would start it.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// How long the process may take to say that it is ready.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take to stop in order.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The environment in which a process' clock differs from everybody else's by so many seconds; its
/// timers run as ever. The library that does it is named by `CONVENE_TEST_FAKETIME`, or is where
/// Debian's package `libfaketime` puts it.
///
/// # Panics
/// When the library is not there.
#[must_use]
pub fn clock_off_by(seconds: i64) -> [(&'static str, String); 3] {
    [
        ("LD_PRELOAD", faketime()),
        ("FAKETIME", format!("{seconds:+}s")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

/// The environment in which a process' clock can be put forward while it runs, as that of a machine
/// that slept; its timers run as ever. Until [`ClockHand::put_forward`] it is right.
///
/// # Panics
/// When the library is not there, or the file cannot be written.
#[must_use]
pub fn clock_in_hand(file: &Path) -> (ClockHand, [(&'static str, String); 4]) {
    let hand = ClockHand(file.to_owned());
    hand.put_forward(0);
    let env = [
        ("LD_PRELOAD", faketime()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    (hand, env)
}

/// The hand that puts a process' clock forward.
#[derive(Debug)]
pub struct ClockHand(PathBuf);

impl ClockHand {
    /// From now on the clock is so many seconds ahead.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn put_forward(&self, seconds: u32) {
        // Written whole or not at all: the process reads it all the time.
        let beside = self.0.with_extension("new");
        let written = std::fs::write(&beside, format!("+{seconds}s"));
        written
            .and_then(|()| std::fs::rename(beside, &self.0))
            .expect("the clock's file is written");
    }
}

fn faketime() -> String {
    let library = std::env::var("CONVENE_TEST_FAKETIME").unwrap_or_else(|_| {
        let architecture = std::env::consts::ARCH;
        format!("/usr/lib/{architecture}-linux-gnu/faketime/libfaketimeMT.so.1")
    });
    assert!(Path::new(&library).exists(), "{library} is missing: install libfaketime");
    library
}

/// How to start `convene`.
#[derive(Debug, Clone)]
pub struct Launch {
    binary: PathBuf,
    data_dir: Option<PathBuf>,
    dir: PathBuf,
    listen: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    log: Option<PathBuf>,
}

impl Launch {
    /// Starts `binary` on `data_dir`, on a free port of its own choice and with a quick demo model.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>, data_dir: &Path) -> Self {
        Self {
            binary: binary.into(),
            data_dir: Some(data_dir.to_owned()),
            dir: data_dir.parent().unwrap_or(Path::new("/")).to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            args: Vec::new(),
            env: vec![("CONVENE_AGENTS__DEMO_WORD_PAUSE_MS".to_owned(), "1".to_owned())],
            log: None,
        }
    }

    /// Adds a command line argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Leaves it to the configuration and the environment where the data directory is.
    #[must_use]
    pub fn configured_data_dir(mut self) -> Self {
        self.data_dir = None;
        self
    }

    /// Listens on a fixed address, so that a restart is found where the process was before.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = address.into();
        self
    }

    /// Appends the log to a file, so that a test can read it; else it is the test's own.
    #[must_use]
    pub fn log_to(mut self, file: impl Into<PathBuf>) -> Self {
        self.log = Some(file.into());
        self
    }

    /// Starts the process and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready; its log is on standard error.
    pub async fn start(&self) -> Convene {
        let mut child = self.command().spawn().expect("convene can be started");
        let stdout = child.stdout.take().expect("standard output is piped");
        let mut lines = BufReader::new(stdout).lines();
        let ready = tokio::time::timeout(START_TIMEOUT, async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some((_, url)) = line.split_once(" is ready at ") {
                    return Some(url.trim_end_matches('/').to_owned());
                }
            }
            None
        });
        let url = ready.await.expect("convene is ready in time").expect("convene says its URL");
        Convene { url, child }
    }

    /// Runs the process to its end, for starts that are expected to fail: exit code and what it
    /// wrote to standard error.
    ///
    /// # Panics
    /// When it cannot be started, or does not end in time.
    pub async fn run_to_end(&self) -> (Option<i32>, String) {
        let child = self.command().stderr(Stdio::piped()).spawn().expect("convene can be started");
        let ended = tokio::time::timeout(START_TIMEOUT, child.wait_with_output());
        let output = ended.await.expect("convene ends in time").expect("its output can be read");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        if let Some(data_dir) = &self.data_dir {
            command.arg("--data-dir").arg(data_dir);
        }
        command
            .args(["--listen", &self.listen])
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        if let Some(path) = &self.log {
            let file = OpenOptions::new().create(true).append(true).open(path);
            command.stderr(file.expect("the log file can be opened"));
        }
        command
    }
}

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Convene {
    /// Where it serves, without a slash at the end.
    pub url: String,
    child: Child,
}

impl Convene {
    /// `host:port` of the public door.
    #[must_use]
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap_or(&self.url)
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the process runs")
    }

    /// Kills it as `kill -9` does.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("a running process can be killed");
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When its status cannot be read.
    pub async fn ended(mut self) {
        self.child.wait().await.expect("its status can be read");
    }

    /// Asks it to stop as a supervisor does, and returns its exit code.
    ///
    /// # Panics
    /// When it does not stop in time.
    pub async fn stop(mut self) -> Option<i32> {
        let pid = self.child.id().expect("the process runs").to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(asked.expect("kill can be run").success());
        let ended = tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await;
        ended.expect("convene stops in time").expect("its status can be read").code()
    }
}
