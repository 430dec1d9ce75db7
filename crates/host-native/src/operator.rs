//! The operator at the machine: a key in the data directory, and a door of the infra API that only who
//! may read that directory can reach, a Unix socket.
//!
//! An operator is an app with operator scope to the Orchestrator: each call brings a token of its own
//! that the key in `keys/operator.key` signs, and goes the whole way from there.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use axum::Router;
use convene_model::claims::service;
use tokio::{net::UnixListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{config::Config, keys::ring::KeyFiles};

/// The socket's name in the data directory.
const SOCKET: &str = "operator.sock";
/// Held by the Orchestrator that serves it, of several on one data directory.
const LOCK: &str = "operator.lock";
/// The longest path that a socket's address holds on every system, with room to spare.
const MAX_SOCKET_PATH: usize = 100;
/// How often an Orchestrator looks whether the one that serves the socket has ended.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where the operator's keys are.
pub(crate) fn key_files(config: &Config) -> KeyFiles {
    let path = config.data_dir.join("keys").join("operator.key");
    KeyFiles::new(service::OPERATOR, path, false)
}

/// The socket's address: usable as long as this lives.
pub(crate) struct SocketPath {
    path: PathBuf,
    _dir: Option<File>,
}

impl SocketPath {
    /// The socket of a data directory, whether it is there or not. A path that is too long for an
    /// address goes by the opened directory.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub(crate) fn of(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(SOCKET);
        if path.as_os_str().len() <= MAX_SOCKET_PATH {
            return Ok(Self { path, _dir: None });
        }
        let dir = File::open(data_dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(SOCKET);
        Ok(Self { path, _dir: Some(dir) })
    }

    /// Where to connect to.
    pub(crate) fn as_path(&self) -> &Path {
        &self.path
    }
}

/// Serves the infra API at the socket of a data directory until the process stops. While another
/// process of the same directory does, this one waits for its end. Whoever cannot have a socket there
/// says so in the log and serves without.
pub(crate) fn spawn_door(
    data_dir: &Path,
    router: Router,
    stopping: CancellationToken,
) -> JoinHandle<()> {
    let data_dir = data_dir.to_owned();
    // Tried at once, so that the door is there when the process says that it is ready.
    let first = Door::open(&data_dir);
    tokio::spawn(async move {
        let mut opened = first;
        loop {
            match opened {
                Ok(Some(door)) => return door.serve(router, stopping).await,
                Ok(None) => {}
                Err(error) => {
                    let dir = data_dir.display();
                    tracing::warn!(%error, %dir, "operators cannot call at this data directory");
                    return;
                }
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            opened = Door::open(&data_dir);
        }
    })
}

/// The bound socket, and the right to it.
struct Door {
    listener: UnixListener,
    path: SocketPath,
    _lock: File,
}

impl Door {
    /// `None` while another process has it.
    fn open(data_dir: &Path) -> io::Result<Option<Self>> {
        let lock = data_dir.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(lock)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let path = SocketPath::of(data_dir)?;
        // What a killed process left there; the lock says that nobody has it.
        match fs::remove_file(path.as_path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path.as_path())?;
        fs::set_permissions(path.as_path(), Permissions::from_mode(0o600))?;
        Ok(Some(Self { listener, path, _lock: lock }))
    }

    async fn serve(self, router: Router, stopping: CancellationToken) {
        let served = axum::serve(self.listener, router.into_make_service())
            .with_graceful_shutdown(async move { stopping.cancelled().await })
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the operators' door ended");
        }
        // The lock is still held: it is this process's own.
        if let Err(error) = fs::remove_file(self.path.as_path()) {
            tracing::debug!(%error, "the operators' socket stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_socket_of_a_killed_process_is_replaced_and_a_living_ones_is_left() {
        let dir = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        let path = SocketPath::of(dir.path()).unwrap();
        assert!(UnixStream::connect(path.as_path()).await.is_err());
        let door = Door::open(dir.path()).unwrap().expect("nobody has it");
        assert!(UnixStream::connect(path.as_path()).await.is_ok());
        let mode = fs::metadata(path.as_path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(Door::open(dir.path()).unwrap().is_none());
        drop(door);
        assert!(Door::open(dir.path()).unwrap().is_some());
    }

    #[tokio::test]
    async fn a_data_directory_with_a_long_name_has_its_socket_too_and_it_goes_with_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        let stopping = CancellationToken::new();
        let router = Router::new().route("/", get(|| async { "here" }));
        let door = spawn_door(&deep, router, stopping.clone());
        let path = SocketPath::of(&deep).unwrap();
        assert!(UnixStream::connect(path.as_path()).await.is_ok());
        stopping.cancel();
        door.await.unwrap();
        assert!(!deep.join(SOCKET).exists());
    }
}
