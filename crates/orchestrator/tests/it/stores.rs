//! A store of archives that fails in one way after another.

use std::{fmt, sync::Mutex, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result, memory::InMemory, path::Path,
};
use tokio::sync::{Notify, Semaphore};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing can be put.
    NoPut,
    /// The manifest cannot be put.
    NoManifest,
    /// The manifest cannot be put, and nothing can be removed.
    KeepsAll,
    /// Nothing can be read.
    NoGet,
    /// What is read is not what was put.
    OtherBytes,
    /// What is put is not there afterwards.
    Forgets,
    /// The next content that is put waits until it is let pass.
    HoldsPut,
}

#[derive(Debug)]
pub(crate) struct Faulty {
    inner: InMemory,
    fault: Mutex<Option<Fault>>,
    arrived: Notify,
    passes: Semaphore,
}

impl Faulty {
    pub(crate) const EACH: [Option<Fault>; 5] = [
        Some(Fault::NoPut),
        Some(Fault::NoManifest),
        Some(Fault::NoGet),
        Some(Fault::OtherBytes),
        Some(Fault::Forgets),
    ];

    pub(crate) fn new() -> Self {
        Self {
            inner: InMemory::new(),
            fault: Mutex::new(None),
            arrived: Notify::new(),
            passes: Semaphore::new(0),
        }
    }

    pub(crate) fn set(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
    }

    /// Waits until a put is held; the deadline only turns a hang into a failure.
    pub(crate) async fn arrived(&self) {
        let arrived = tokio::time::timeout(Duration::from_secs(30), self.arrived.notified());
        arrived.await.expect("a put arrives");
    }

    /// Lets it go on.
    pub(crate) fn let_pass(&self) {
        self.passes.add_permits(1);
    }

    fn has(&self, fault: Fault) -> bool {
        *self.fault.lock().unwrap() == Some(fault)
    }
}

fn broken() -> Error {
    Error::Generic { store: "test", source: "500 Internal Server Error".into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let manifest = location.as_ref().ends_with(".manifest.json");
        if self.has(Fault::NoPut)
            || (manifest && (self.has(Fault::NoManifest) || self.has(Fault::KeepsAll)))
        {
            return Err(broken());
        }
        if self.has(Fault::HoldsPut) && !manifest {
            self.set(None);
            self.arrived.notify_one();
            self.passes.acquire().await.expect("it is never closed").forget();
        }
        if self.has(Fault::Forgets) && !manifest {
            return Ok(PutResult { e_tag: None, version: None, extensions: Default::default() });
        }
        if self.has(Fault::OtherBytes) && !manifest {
            let mut bytes: Vec<u8> = Bytes::from(payload).into();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            return self.inner.put_opts(location, bytes.into(), options).await;
        }
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        // The writer looks first whether the snapshot is there already.
        let there = self.inner.head(location).await.is_ok();
        if self.has(Fault::NoGet) && there {
            return Err(broken());
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        if self.has(Fault::KeepsAll) {
            return locations.map(|_| Err(broken())).boxed();
        }
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
