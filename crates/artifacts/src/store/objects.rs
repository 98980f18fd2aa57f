//! Uploads to an object store. Content smaller than one part is put with one request. Larger content is sent as a
//! multipart upload to a temporary object and then copied to the blob's path, because its SHA-256 is known only at the
//! end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _};
use tokio::task::JoinSet;

use super::blocks::Blocks;
use super::{Blob, INCOMING, blocking, read};
use crate::digest::Hasher;
use crate::{ArtifactError, BoxError};

/// Minimum age of a temporary object for a sweep. Temporary objects of running and of killed processes differ only in
/// age; a running upload has one only between its last part and the end of the copy.
pub const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// Size limits of uploads. The defaults follow the limits of S3; tests use smaller ones.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Size of the first parts, in bytes.
    pub part: usize,
    /// Number of parts after which the part size grows by `part`. S3 allows 10,000 parts; with growing parts a blob can
    /// have 400 GiB.
    pub parts_of_a_size: usize,
    /// Maximum size of a copy within the store, in bytes.
    pub copy: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { part: 8 << 20, parts_of_a_size: 1000, copy: 5 << 30 }
    }
}

/// Maximum number of concurrent requests for parts.
const MAX_PARTS_IN_FLIGHT: usize = 2;

/// Stores the content of `blocks`.
pub async fn put<S, E>(
    store: &Arc<dyn ObjectStore>,
    blocks: &mut Blocks<S>,
    sizes: Sizes,
) -> Result<Blob, ArtifactError>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<BoxError>,
{
    let first = blocks.next(sizes.part).await?.unwrap_or_default();
    let hasher = hash(Hasher::default(), first.clone()).await?;
    let second = match first.len() < sizes.part {
        true => None,
        false => blocks.next(sizes.part).await?,
    };
    let Some(second) = second else {
        let blob = Blob { size: hasher.bytes, sha256: hasher.finish() };
        if !exists(store, &blob).await? {
            store.put(&Path::from(blob.path()), first.into()).await?;
        }
        return Ok(blob);
    };
    let temporary = Path::from(format!("{INCOMING}/{}", uuid::Uuid::new_v4().simple()));
    let mut upload = Upload::begin(store, temporary, Lifetime::Temporary, sizes).await?;
    match send(&mut upload, blocks, hasher, [first, second]).await {
        // In its own task: if this future is dropped, the store still completes the last request, and the temporary
        // object must be deleted after it.
        Ok(blob) => match tokio::spawn(copy_and_discard(upload, blob)).await {
            Ok(result) => result,
            Err(error) => Err(ArtifactError::Store(error.into())),
        },
        Err(error) => {
            upload.discard().await;
            Err(error)
        }
    }
}

/// Sends all blocks as parts and returns the blob that they are.
async fn send<S, E>(
    upload: &mut Upload,
    blocks: &mut Blocks<S>,
    mut hasher: Hasher,
    [first, second]: [Bytes; 2],
) -> Result<Blob, ArtifactError>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<BoxError>,
{
    upload.send(first).await?;
    let mut next = Some(second);
    while let Some(block) = next {
        hasher = hash(hasher, block.clone()).await?;
        upload.send(block).await?;
        next = blocks.next(upload.part_size()).await?;
    }
    Ok(Blob { size: hasher.bytes, sha256: hasher.finish() })
}

/// Copies a sent upload to the blob's path and deletes the temporary object.
async fn copy_and_discard(mut upload: Upload, blob: Blob) -> Result<Blob, ArtifactError> {
    let result = copy_to_blob(&mut upload, &blob).await;
    upload.discard().await;
    result.map(|()| blob)
}

/// Completes the upload and copies it to the blob's path, unless the blob exists.
async fn copy_to_blob(upload: &mut Upload, blob: &Blob) -> Result<(), ArtifactError> {
    let store = Arc::clone(&upload.store);
    if exists(&store, blob).await? {
        return Ok(());
    }
    upload.complete().await?;
    let target = Path::from(blob.path());
    match blob.size <= upload.sizes.copy {
        true => Ok(store.copy(&upload.path, &target).await?),
        false => copy_by_parts(&store, &upload.path, target, upload.sizes).await,
    }
}

/// Copies an object that is too large for the store's copy request: downloads it and sends it as parts.
async fn copy_by_parts(store: &Arc<dyn ObjectStore>, from: &Path, to: Path, sizes: Sizes) -> Result<(), ArtifactError> {
    let mut blocks = Blocks::new(read::stream(store.get(from).await?), u64::MAX);
    let mut upload = Upload::begin(store, to, Lifetime::Permanent, sizes).await?;
    let send = async {
        while let Some(block) = blocks.next(upload.part_size()).await? {
            upload.send(block).await?;
        }
        upload.complete().await
    };
    let result = send.await;
    upload.discard().await;
    result
}

/// True if the blob is stored. An object of another size is damaged and counts as missing.
async fn exists(store: &Arc<dyn ObjectStore>, blob: &Blob) -> Result<bool, ArtifactError> {
    match store.head(&Path::from(blob.path())).await {
        Ok(meta) => Ok(meta.size == blob.size),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Hashes a block on a blocking thread: a part is too large for an async thread.
async fn hash(mut hasher: Hasher, block: Bytes) -> Result<Hasher, ArtifactError> {
    blocking(move || {
        hasher.update(&block);
        Ok(hasher)
    })
    .await
}

/// What happens to the object of an upload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    /// An object under `incoming/`. It is deleted after it was copied.
    Temporary,
    /// An object at a blob's path. It is never deleted: another upload of the same content may have been acknowledged.
    Permanent,
}

/// A multipart upload. Dropping it aborts the upload and deletes a temporary object, if the runtime still runs.
struct Upload {
    store: Arc<dyn ObjectStore>,
    path: Path,
    lifetime: Lifetime,
    sizes: Sizes,
    /// Number of parts sent.
    sent: usize,
    /// The running requests for parts.
    in_flight: JoinSet<object_store::Result<()>>,
    /// `None` once the upload is completed or aborted.
    upload: Option<Box<dyn MultipartUpload>>,
    /// True if a temporary object may exist, which must be deleted.
    delete_object: bool,
}

impl Upload {
    /// Starts an upload to `path`.
    async fn begin(
        store: &Arc<dyn ObjectStore>,
        path: Path,
        lifetime: Lifetime,
        sizes: Sizes,
    ) -> Result<Self, ArtifactError> {
        let upload = Some(store.put_multipart(&path).await?);
        let store = Arc::clone(store);
        Ok(Self { store, path, lifetime, sizes, sent: 0, in_flight: JoinSet::new(), upload, delete_object: false })
    }

    /// Size of the next part, in bytes.
    fn part_size(&self) -> usize {
        self.sizes.part * (1 + self.sent / self.sizes.parts_of_a_size)
    }

    /// Starts the request for a part, after waiting while too many requests run.
    async fn send(&mut self, part: Bytes) -> Result<(), ArtifactError> {
        while self.in_flight.len() >= MAX_PARTS_IN_FLIGHT {
            self.wait_for_part().await?;
        }
        if let Some(upload) = &mut self.upload {
            self.in_flight.spawn(upload.put_part(part.into()));
            self.sent += 1;
        }
        Ok(())
    }

    /// Waits until one of the running requests ends.
    async fn wait_for_part(&mut self) -> Result<(), ArtifactError> {
        match self.in_flight.join_next().await {
            Some(Err(error)) => Err(ArtifactError::Store(error.into())),
            Some(Ok(Err(error))) => Err(error.into()),
            Some(Ok(Ok(()))) | None => Ok(()),
        }
    }

    /// Waits for all parts and turns them into the object.
    async fn complete(&mut self) -> Result<(), ArtifactError> {
        while !self.in_flight.is_empty() {
            self.wait_for_part().await?;
        }
        if let Some(upload) = &mut self.upload {
            // Set before the request: if its response is lost, the object exists.
            self.delete_object = self.lifetime == Lifetime::Temporary;
            upload.complete().await?;
            self.upload = None;
        }
        Ok(())
    }

    /// Aborts the upload, and deletes a temporary object. Errors are ignored: a sweep deletes the object 24 h later,
    /// and the bucket's lifecycle rule for incomplete uploads deletes parts.
    async fn discard(mut self) {
        self.in_flight.shutdown().await;
        if let Some(cleanup) = self.cleanup() {
            cleanup.await;
        }
    }

    /// The requests that abort the upload and delete the temporary object; `None` if there is nothing to do.
    fn cleanup(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let (upload, delete_object) = (self.upload.take(), std::mem::take(&mut self.delete_object));
        let (store, path) = (Arc::clone(&self.store), self.path.clone());
        (upload.is_some() || delete_object).then_some(async move {
            if let Some(mut upload) = upload {
                let _ = upload.abort().await;
            }
            if delete_object {
                let _ = store.delete(&path).await;
            }
        })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.in_flight.abort_all();
        if let (Some(cleanup), Ok(runtime)) = (self.cleanup(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(cleanup);
        }
    }
}

/// Deletes the temporary objects that are at least `age` old, and returns their number.
pub async fn sweep(store: &Arc<dyn ObjectStore>, age: Duration) -> Result<usize, ArtifactError> {
    let now = SystemTime::now();
    let found: Vec<_> = store.list(Some(&Path::from(INCOMING))).try_collect().await?;
    let old = found.into_iter().filter(|meta| {
        let written = SystemTime::from(meta.last_modified);
        now.duration_since(written).is_ok_and(|since| since >= age)
    });
    let old: Vec<_> = old.map(|meta| Ok(meta.location)).collect();
    let mut removed = store.delete_stream(futures::stream::iter(old).boxed());
    let mut count = 0;
    while let Some(result) = removed.next().await {
        match result {
            Ok(_) => count += 1,
            // Another process deleted it first.
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests;
