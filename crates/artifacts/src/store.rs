//! The blob store. A blob is at `blobs/<first 2 digits>/<SHA-256>`; an unfinished upload is under `incoming/`.

mod blocks;
mod disk;
mod objects;
mod open;
mod read;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _};

use crate::{ArtifactError, BoxError, Sha256Hex};

pub use open::StoreOptions;

/// Folder of blobs.
const BLOBS: &str = "blobs";
/// Folder of unfinished uploads.
const INCOMING: &str = "incoming";

/// The content of a blob.
pub type ByteStream = BoxStream<'static, Result<Bytes, ArtifactError>>;

/// A stored blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// In bytes.
    pub size: u64,
    pub sha256: Sha256Hex,
}

impl Blob {
    /// The path of the blob, relative to the store's root.
    fn path(&self) -> String {
        blob_path(&self.sha256)
    }
}

/// The path of a blob, relative to the store's root.
fn blob_path(sha256: &Sha256Hex) -> String {
    let name = sha256.to_string();
    format!("{BLOBS}/{}/{name}", &name[..2])
}

/// A content-addressed store of files. A clone refers to the same store.
#[derive(Clone, Debug)]
pub struct ArtifactStore {
    store: Arc<dyn ObjectStore>,
    /// The root, if the store is a local folder. Uploads to a folder do not use `object_store`: they hold a file lock,
    /// which distinguishes running uploads from those of killed processes.
    disk: Option<Arc<PathBuf>>,
}

impl ArtifactStore {
    /// A store on any object store whose puts are durable when they return.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, disk: None }
    }

    /// Stores the bytes of a stream and returns when they are durable. A blob is stored completely or not at all:
    /// nothing remains if the stream fails, if it has more than `limit` bytes, or if this future is dropped. Memory
    /// does not grow with the size: on an object store at most 3 parts of 8 MiB are buffered (larger parts above 8
    /// GiB).
    pub async fn put<S, E>(&self, bytes: S, limit: u64) -> Result<Blob, ArtifactError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<BoxError>,
    {
        let bytes = std::pin::pin!(bytes);
        let mut blocks = blocks::Blocks::new(bytes, limit);
        match &self.disk {
            Some(root) => disk::put(root, &mut blocks).await,
            None => objects::put(&self.store, &mut blocks, objects::Sizes::default()).await,
        }
    }

    /// The size of a blob in bytes; `None` if it is not stored.
    pub async fn size(&self, sha256: &Sha256Hex) -> Result<Option<u64>, ArtifactError> {
        match self.store.head(&Path::from(blob_path(sha256))).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// True if a blob is stored.
    pub async fn contains(&self, sha256: &Sha256Hex) -> Result<bool, ArtifactError> {
        Ok(self.size(sha256).await?.is_some())
    }

    /// The size and the content of a blob, not verified. Fails with [`ArtifactError::Missing`].
    pub async fn get(&self, sha256: &Sha256Hex) -> Result<(u64, ByteStream), ArtifactError> {
        let result = self.store.get(&Path::from(blob_path(sha256))).await.map_err(missing(sha256))?;
        Ok((result.meta.size, read::stream(result)))
    }

    /// The size and the content of a blob, verified while it is read. If the SHA-256 is wrong, the stream ends with
    /// [`ArtifactError::Corrupt`] instead of the last chunk, so that no reader takes the content as complete.
    pub async fn get_verified(&self, sha256: &Sha256Hex) -> Result<(u64, ByteStream), ArtifactError> {
        let (size, bytes) = self.get(sha256).await?;
        Ok((size, read::verified(*sha256, bytes)))
    }

    /// The bytes `range` of a blob, not verified. Fails with [`ArtifactError::OutOfRange`] if `range` exceeds the blob.
    pub async fn get_range(&self, sha256: &Sha256Hex, range: Range<u64>) -> Result<ByteStream, ArtifactError> {
        if range.start < range.end {
            let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
            match self.store.get_opts(&Path::from(blob_path(sha256)), options).await {
                Ok(result) if result.range == range => return Ok(read::stream(result)),
                Ok(result) => return Err(ArtifactError::OutOfRange { range, size: result.meta.size }),
                // Object stores return different errors for a range that starts past the end.
                Err(error) => match self.size(sha256).await? {
                    Some(size) if range.end > size => return Err(ArtifactError::OutOfRange { range, size }),
                    _ => return Err(missing(sha256)(error)),
                },
            }
        }
        match self.size(sha256).await? {
            None => Err(ArtifactError::Missing(*sha256)),
            Some(size) if range.start > range.end || range.end > size => Err(ArtifactError::OutOfRange { range, size }),
            Some(_) => Ok(Box::pin(futures::stream::empty())),
        }
    }

    /// Deletes the remains of uploads of killed processes, and returns their number. Running uploads of any process are
    /// kept (on an object store: those younger than 24 h). [`open`](ArtifactStore::open) does this too.
    pub async fn sweep(&self) -> Result<usize, ArtifactError> {
        match &self.disk {
            Some(root) => {
                let root = Arc::clone(root);
                blocking(move || disk::sweep(&root)).await
            }
            None => objects::sweep(&self.store, objects::ABANDONED).await,
        }
    }
}

/// Maps "not found" to [`ArtifactError::Missing`].
fn missing(sha256: &Sha256Hex) -> impl FnOnce(object_store::Error) -> ArtifactError {
    let sha256 = *sha256;
    move |error| match error {
        object_store::Error::NotFound { .. } => ArtifactError::Missing(sha256),
        error => error.into(),
    }
}

/// Runs blocking work on a thread of the blocking pool.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ArtifactError::Store(error.into())),
    }
}
