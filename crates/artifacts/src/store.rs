//! Blobs under their SHA-256, `blobs/<first two digits>/<all of them>`; what is on its way in lies under `incoming/`.

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

const BLOBS: &str = "blobs";
const INCOMING: &str = "incoming";

pub type ByteStream = BoxStream<'static, Result<Bytes, ArtifactError>>;

/// What was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    pub size: u64,
    pub sha256: Sha256Hex,
}

impl Blob {
    /// From the store's root.
    fn place(&self) -> String {
        place(&self.sha256)
    }
}

fn place(sha256: &Sha256Hex) -> String {
    let name = sha256.to_string();
    format!("{BLOBS}/{}/{name}", &name[..2])
}

/// The files that events name, by their content. Clones are the same store.
#[derive(Clone, Debug)]
pub struct ArtifactStore {
    store: Arc<dyn ObjectStore>,
    /// The local folder, which is written without `object_store`: a lock tells living uploads from those that a kill left.
    disk: Option<Arc<PathBuf>>,
}

impl ArtifactStore {
    /// Any object store whose objects are durable when they are put.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, disk: None }
    }

    /// Stores the bytes of a stream, and returns when they are durable. A blob is there whole or not at all: nothing is
    /// left of a stream that fails, that holds more than `limit` bytes, or that is no longer waited for before its end.
    /// Memory does not grow with the size (on an object store parts of 8 MiB are gathered, three at a time).
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

    /// The size of a blob, if it is there.
    pub async fn size(&self, sha256: &Sha256Hex) -> Result<Option<u64>, ArtifactError> {
        match self.store.head(&Path::from(place(sha256))).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub async fn contains(&self, sha256: &Sha256Hex) -> Result<bool, ArtifactError> {
        Ok(self.size(sha256).await?.is_some())
    }

    /// The size and the bytes, unchecked.
    pub async fn get(&self, sha256: &Sha256Hex) -> Result<(u64, ByteStream), ArtifactError> {
        let result = self.store.get(&Path::from(place(sha256))).await.map_err(missing(sha256))?;
        Ok((result.meta.size, read::stream(result)))
    }

    /// The size and the bytes. They are hashed on the way: where the hash is another than the name, the last chunk is
    /// held back and the stream ends with [`ArtifactError::Corrupt`], so that no reader takes them for whole.
    pub async fn get_verified(&self, sha256: &Sha256Hex) -> Result<(u64, ByteStream), ArtifactError> {
        let (size, bytes) = self.get(sha256).await?;
        Ok((size, read::verified(*sha256, bytes)))
    }

    /// A part of the bytes, unchecked.
    pub async fn get_range(&self, sha256: &Sha256Hex, range: Range<u64>) -> Result<ByteStream, ArtifactError> {
        if range.start < range.end {
            let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
            match self.store.get_opts(&Path::from(place(sha256)), options).await {
                Ok(result) if result.range == range => return Ok(read::stream(result)),
                Ok(result) => return Err(ArtifactError::OutOfRange { range, size: result.meta.size }),
                // Stores differ in how they refuse a range that begins past the end.
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

    /// Removes what uploads that were killed have left, and never what belongs to a running one, of this process or
    /// another. Says how much it was. Opening a store has done it already.
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

fn missing(sha256: &Sha256Hex) -> impl FnOnce(object_store::Error) -> ArtifactError {
    let sha256 = *sha256;
    move |error| match error {
        object_store::Error::NotFound { .. } => ArtifactError::Missing(sha256),
        error => error.into(),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ArtifactError::Store(error.into())),
    }
}
