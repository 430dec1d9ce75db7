//! An S3 server on loopback: `s3s-fs`, with keys, over a temporary folder. It counts its requests and
//! fails as told.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request, Response, StatusCode};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use parking_lot::Mutex;
use s3s::{
    Body,
    auth::SimpleAuth,
    host::MultiDomain,
    service::{S3Service, S3ServiceBuilder},
};
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

/// What an [`S3Server`] does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Fault {
    /// Every connection is closed without an answer.
    Down,
    /// Each request takes so much longer.
    Slow(Duration),
    /// Every request is answered with an internal error.
    InternalError,
    /// Of each upload of an object or a part the connection is closed in the middle, after so many
    /// of them have passed whole.
    CutUpload {
        /// How many pass.
        after: u64,
    },
    /// Of each object that is read and whose name ends so the connection is closed in the middle.
    CutDownload {
        /// The end of the name.
        of: &'static str,
    },
    /// Each object whose name ends so is read with one bit flipped in its middle.
    ReadsOtherBytes {
        /// The end of the name.
        of: &'static str,
    },
    /// What is put is stored with one bit flipped in its middle, and the answer says that all is well.
    StoresOtherBytes,
}

/// A running S3 server; stops when dropped.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    dir: TempDir,
    server: tokio::task::JoinHandle<()>,
    desk: Arc<Desk>,
}

/// What stands before the server: it counts, and it is at fault.
#[derive(Debug, Default)]
struct Desk {
    bucket_dir: PathBuf,
    fault: Mutex<Option<S3Fault>>,
    uploads_since: AtomicU64,
    writes: AtomicU64,
    parts: AtomicU64,
    failed: AtomicU64,
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
        let desk = Arc::new(Desk { bucket_dir: dir.path().join(BUCKET), ..Desk::default() });
        let front = Arc::clone(&desk);
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let http = Builder::new(TokioExecutor::new());
                let (service, front) = (service.clone(), Arc::clone(&front));
                let service = service_fn(move |request| {
                    let (service, front) = (service.clone(), Arc::clone(&front));
                    async move { front.answer(&service, request).await }
                });
                connections.spawn(async move {
                    // A client that goes away is no failure of the server.
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, dir, server, desk })
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

    /// From now on this is wrong, or nothing.
    pub fn set(&self, fault: Option<S3Fault>) {
        self.desk.uploads_since.store(0, Ordering::Relaxed);
        *self.desk.fault.lock() = fault;
    }

    /// Requests so far that would change something.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.desk.writes.load(Ordering::Relaxed)
    }

    /// Parts of uploads among them.
    #[must_use]
    pub fn parts(&self) -> u64 {
        self.desk.parts.load(Ordering::Relaxed)
    }

    /// Requests so far that were failed as told.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.desk.failed.load(Ordering::Relaxed)
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

impl Desk {
    async fn answer(
        &self,
        service: &S3Service,
        request: Request<Incoming>,
    ) -> io::Result<Response<Body>> {
        let uploads = request.method() == Method::PUT;
        let query = request.uri().query().unwrap_or_default();
        let part = uploads && query.contains("partNumber=");
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            self.writes.fetch_add(1, Ordering::Relaxed);
        }
        if part {
            self.parts.fetch_add(1, Ordering::Relaxed);
        }
        let fault = *self.fault.lock();
        match fault {
            None
            | Some(
                S3Fault::StoresOtherBytes
                | S3Fault::CutDownload { .. }
                | S3Fault::ReadsOtherBytes { .. },
            ) => {}
            Some(S3Fault::Down) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Some(S3Fault::Slow(pause)) => tokio::time::sleep(pause).await,
            Some(S3Fault::InternalError) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let mut answer = Response::new(Body::from(
                    "<Error><Code>InternalError</Code></Error>".to_owned(),
                ));
                *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                return Ok(answer);
            }
            Some(S3Fault::CutUpload { after }) => {
                if uploads && self.uploads_since.fetch_add(1, Ordering::Relaxed) >= after {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    // Some of it arrives.
                    let _ = Body::from(request.into_body()).next().await;
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
            }
        }
        // An object is whole when it was put, or when its parts were joined.
        let joins = request.method() == Method::POST && query.contains("uploadId=");
        let object = ((uploads && !part) || joins).then(|| self.object(&request)).flatten();
        let read = (request.method() == Method::GET).then(|| request.uri().path().to_owned());
        let answered = service
            .call(request.map(Body::from))
            .await
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
        if let Some(object) = object
            && fault == Some(S3Fault::StoresOtherBytes)
            && answered.status().is_success()
        {
            self.failed.fetch_add(1, Ordering::Relaxed);
            let mut bytes = tokio::fs::read(&object).await?;
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 1;
            }
            tokio::fs::write(&object, bytes).await?;
        }
        let reads = |of: &str| read.as_ref().is_some_and(|name| name.ends_with(of));
        if let Some(S3Fault::CutDownload { of }) = fault
            && reads(of)
        {
            return self.spoilt(answered, |bytes| bytes.truncate(bytes.len() / 2)).await;
        }
        if let Some(S3Fault::ReadsOtherBytes { of }) = fault
            && reads(of)
        {
            let flip = |bytes: &mut Vec<u8>| {
                let middle = bytes.len() / 2;
                bytes.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 1);
            };
            return self.spoilt(answered, flip).await;
        }
        Ok(answered)
    }

    /// An answer whose body is another; where it is shorter than was said, the connection breaks after it.
    async fn spoilt(
        &self,
        answered: Response<Body>,
        spoil: impl FnOnce(&mut Vec<u8>),
    ) -> io::Result<Response<Body>> {
        let (head, mut body) = answered.into_parts();
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await {
            bytes.extend_from_slice(&piece.map_err(io::Error::other)?);
        }
        let whole = bytes.len();
        spoil(&mut bytes);
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut pieces = vec![Ok(Bytes::from(bytes.clone()))];
        if bytes.len() < whole {
            pieces.push(Err(io::Error::from(io::ErrorKind::ConnectionReset)));
        }
        let body = axum::body::Body::from_stream(futures_util::stream::iter(pieces));
        Ok(Response::from_parts(head, Body::http_body_unsync(body)))
    }

    /// The file of the object that a request names.
    fn object(&self, request: &Request<Incoming>) -> Option<PathBuf> {
        let path = request.uri().path().trim_start_matches('/');
        // With the bucket in the path, or in the host's name.
        let key = path.strip_prefix(BUCKET).and_then(|key| key.strip_prefix('/')).unwrap_or(path);
        (!key.is_empty()).then(|| self.bucket_dir.join(key))
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.server.abort();
    }
}
