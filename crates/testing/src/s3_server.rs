//! An S3 server on loopback: `s3s-fs`, with keys, over a temporary folder.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{auth::SimpleAuth, host::MultiDomain, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};

/// The id of the one access key.
pub const ACCESS_KEY_ID: &str = "CONVENETESTKEY";
/// Its secret.
pub const SECRET_ACCESS_KEY: &str = "a-secret-that-no-log-may-show";
/// The bucket that exists.
pub const BUCKET: &str = "convene";
/// The name under which the server is addressed with the bucket in front of it.
pub const DOMAIN: &str = "s3.test";

/// A running S3 server; stops when dropped.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    dir: TempDir,
    server: tokio::task::JoinHandle<()>,
}

impl S3Server {
    /// Starts a server with one empty bucket.
    ///
    /// # Errors
    /// When no port or folder can be had.
    pub async fn start() -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        std::fs::create_dir(dir.path().join(BUCKET))?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let files =
            FileSystem::new(dir.path()).map_err(|error| io::Error::other(format!("{error:?}")))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
        let domain = format!("{DOMAIN}:{}", address.port());
        let names = [address.to_string(), domain];
        service.set_host(
            MultiDomain::new(&names).map_err(|error| io::Error::other(format!("{error:?}")))?,
        );
        let service = service.build();
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let http = Builder::new(TokioExecutor::new());
                let service = service.clone();
                connections.spawn(async move {
                    // A client that goes away is no failure of the server.
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, dir, server })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address for requests with the bucket in the path.
    #[must_use]
    pub fn path_style_endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client that finds the server under both of its addresses.
    ///
    /// # Panics
    /// When no client can be made.
    #[must_use]
    pub fn client(&self) -> reqwest::Client {
        // Whoever installed a provider before did the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder()
            .no_proxy()
            .resolve(&format!("{BUCKET}.{DOMAIN}"), self.address)
            .build()
            .expect("a client without particular wishes can be made")
    }

    /// Its address for requests with the bucket in the host's name; see [`S3Server::client`].
    #[must_use]
    pub fn virtual_hosted_endpoint(&self) -> String {
        format!("http://{DOMAIN}:{}", self.address.port())
    }

    /// The folder with the bucket's files, to look at and to damage.
    #[must_use]
    pub fn bucket_dir(&self) -> PathBuf {
        self.dir.path().join(BUCKET)
    }

    /// Stops answering: connections under way break, new ones are refused.
    pub fn stop(&self) {
        self.server.abort();
    }

    /// The server's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.server.abort();
    }
}
