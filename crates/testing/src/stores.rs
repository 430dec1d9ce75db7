//! Object stores that count, and object stores that fail as told.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart, path::Path,
};
use parking_lot::Mutex;

/// What a [`FaultyStore`] does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// Nothing.
    None,
    /// No call reaches it.
    Down,
    /// Each call and each part takes so long.
    Slow(Duration),
    /// Each call is answered with an internal error.
    InternalError,
    /// Uploads in parts break after so many parts; puts in one piece break, too.
    CutUpload {
        /// How many parts still arrive.
        after_parts: u64,
    },
    /// Writes succeed and store other bytes: one bit is flipped in the middle.
    StoresOtherBytes,
    /// Reads end in the middle of the body.
    CutDownload,
    /// Reads bring other bytes than are stored: one bit is flipped in the middle.
    ReadsOtherBytes,
}

/// How often a store was called.
#[derive(Debug, Default)]
pub struct Counts {
    puts: AtomicU64,
    uploads: AtomicU64,
    parts: AtomicU64,
    gets: AtomicU64,
    bytes_read: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    copies: AtomicU64,
}

impl Counts {
    /// Every call that changes something: puts, uploads, their parts, deletes, copies.
    #[must_use]
    pub fn writes(&self) -> u64 {
        let Self { puts, uploads, parts, deletes, copies, .. } = self;
        [puts, uploads, parts, deletes, copies]
            .map(|count| count.load(Ordering::Relaxed))
            .iter()
            .sum()
    }

    /// Reads of objects, looks at their sizes included.
    #[must_use]
    pub fn gets(&self) -> u64 {
        self.gets.load(Ordering::Relaxed)
    }

    /// Bytes that were asked for by reads.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Uploads in parts.
    #[must_use]
    pub fn uploads(&self) -> u64 {
        self.uploads.load(Ordering::Relaxed)
    }

    /// Listings.
    #[must_use]
    pub fn lists(&self) -> u64 {
        self.lists.load(Ordering::Relaxed)
    }
}

/// A store that counts its calls and fails as told. Clones share fault and counts.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    fault: Arc<Mutex<StoreFault>>,
    counts: Arc<Counts>,
}

impl FaultyStore {
    /// Wraps a store; nothing is wrong with it yet.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, fault: Arc::new(Mutex::new(StoreFault::None)), counts: Arc::default() }
    }

    /// From now on this is wrong, also with uploads under way.
    pub fn set(&self, fault: StoreFault) {
        *self.fault.lock() = fault;
    }

    /// The calls so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn fault(&self) -> StoreFault {
        *self.fault.lock()
    }

    async fn call(&self) -> Result<()> {
        match self.fault() {
            StoreFault::Down => Err(failure("the store cannot be reached")),
            StoreFault::InternalError => Err(failure("500 Internal Server Error")),
            StoreFault::Slow(pause) => {
                tokio::time::sleep(pause).await;
                Ok(())
            }
            StoreFault::None
            | StoreFault::CutUpload { .. }
            | StoreFault::StoresOtherBytes
            | StoreFault::CutDownload
            | StoreFault::ReadsOtherBytes => Ok(()),
        }
    }

    fn stored(&self, payload: PutPayload) -> PutPayload {
        if self.fault() == StoreFault::StoresOtherBytes { flip(payload) } else { payload }
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

fn failure(what: &str) -> Error {
    Error::Generic { store: "FaultyStore", source: what.into() }
}

fn flip(payload: PutPayload) -> PutPayload {
    let mut bytes: Vec<u8> = payload.iter().flat_map(|bytes| bytes.to_vec()).collect();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    bytes.into()
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        add(&self.counts.puts, 1);
        self.call().await?;
        if let StoreFault::CutUpload { .. } = self.fault() {
            return Err(failure("the connection broke in the middle of the upload"));
        }
        self.inner.put_opts(location, self.stored(payload), options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        add(&self.counts.uploads, 1);
        self.call().await?;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(FaultyUpload { inner, store: self.clone(), parts: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        add(&self.counts.gets, 1);
        self.call().await?;
        let head = options.head;
        let mut got = self.inner.get_opts(location, options).await?;
        if head {
            return Ok(got);
        }
        let Range { start, end } = got.range;
        add(&self.counts.bytes_read, end - start);
        let half = (end - start) / 2;
        let fault = self.fault();
        if !matches!(fault, StoreFault::CutDownload | StoreFault::ReadsOtherBytes) {
            return Ok(got);
        }
        let (meta, range, attributes) = (got.meta.clone(), start..end, got.attributes.clone());
        let extensions = std::mem::take(&mut got.extensions);
        let mut body = got.bytes().await?.to_vec();
        let chunks: BoxStream<'static, Result<Bytes>> = if fault == StoreFault::CutDownload {
            body.truncate(half as usize);
            let cut = stream::once(async { Err(failure("the connection broke")) });
            stream::once(async move { Ok(Bytes::from(body)) }).chain(cut).boxed()
        } else {
            if let Some(byte) = body.get_mut(half as usize) {
                *byte ^= 1;
            }
            stream::once(async move { Ok(Bytes::from(body)) }).boxed()
        };
        let payload = GetResultPayload::Stream(chunks);
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let locations = locations.and_then(move |path| {
            let store = store.clone();
            async move {
                add(&store.counts.deletes, 1);
                store.call().await.map(|()| path)
            }
        });
        self.inner.delete_stream(locations.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        add(&self.counts.lists, 1);
        let (store, inner) = (self.clone(), self.inner.list(prefix));
        stream::once(async move { store.call().await.map(|()| inner) }).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        add(&self.counts.lists, 1);
        self.call().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        add(&self.counts.copies, 1);
        self.call().await?;
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    store: FaultyStore,
    parts: u64,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        add(&self.store.counts.parts, 1);
        self.parts += 1;
        if let StoreFault::CutUpload { after_parts } = self.store.fault()
            && self.parts > after_parts
        {
            let broken = "the connection broke in the middle of the upload";
            return async move { Err(failure(broken)) }.boxed();
        }
        let part = self.inner.put_part(self.store.stored(data));
        let store = self.store.clone();
        async move {
            store.call().await?;
            part.await
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.store.call().await?;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.store.call().await?;
        self.inner.abort().await
    }
}
