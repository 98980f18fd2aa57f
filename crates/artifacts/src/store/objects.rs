//! Writing to an object store: small content at once, large content by parts under a name of its own and then copied
//! to its place, for its hash is known at its end alone.

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

/// An object under `incoming/` is there between its last part and its copy. Other processes' cannot be told from those
/// that a kill left, but by their age.
pub const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// What S3 sets; tests set less.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub part: usize,
    /// S3 takes 10,000 parts. So that 400 GiB fit, parts grow by their first size after every so many.
    pub parts_of_a_size: usize,
    /// What one copy within the store can take.
    pub copy: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { part: 8 << 20, parts_of_a_size: 1000, copy: 5 << 30 }
    }
}

/// Parts that are sent at the same time.
const FLYING: usize = 2;

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
        if !is_there(store, &blob).await? {
            store.put(&Path::from(blob.place()), first.into()).await?;
        }
        return Ok(blob);
    };
    let aside = Path::from(format!("{INCOMING}/{}", uuid::Uuid::new_v4().simple()));
    let mut upload = Upload::begin(store, aside, Kind::Passing, sizes).await?;
    match send(&mut upload, blocks, hasher, [first, second]).await {
        // In a task of its own: a store goes on with what it was asked last, also when the answer is no longer waited for,
        // and then there would be nobody to remove it.
        Ok(blob) => match tokio::spawn(settle(upload, blob)).await {
            Ok(result) => result,
            Err(error) => Err(ArtifactError::Store(error.into())),
        },
        Err(error) => {
            upload.discard().await;
            Err(error)
        }
    }
}

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

async fn settle(mut upload: Upload, blob: Blob) -> Result<Blob, ArtifactError> {
    let result = take_place(&mut upload, &blob).await;
    upload.discard().await;
    result.map(|()| blob)
}

async fn take_place(upload: &mut Upload, blob: &Blob) -> Result<(), ArtifactError> {
    let store = Arc::clone(&upload.store);
    if is_there(&store, blob).await? {
        return Ok(());
    }
    upload.complete().await?;
    let place = Path::from(blob.place());
    match blob.size <= upload.sizes.copy {
        true => Ok(store.copy(&upload.path, &place).await?),
        false => copy_through(&store, &upload.path, place, upload.sizes).await,
    }
}

/// Copies what is too large for the store's own copy: it travels to here and back.
async fn copy_through(store: &Arc<dyn ObjectStore>, from: &Path, to: Path, sizes: Sizes) -> Result<(), ArtifactError> {
    let mut blocks = Blocks::new(read::stream(store.get(from).await?), u64::MAX);
    let mut upload = Upload::begin(store, to, Kind::Lasting, sizes).await?;
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

/// One of another size is damaged: it is replaced.
async fn is_there(store: &Arc<dyn ObjectStore>, blob: &Blob) -> Result<bool, ArtifactError> {
    match store.head(&Path::from(blob.place())).await {
        Ok(meta) => Ok(meta.size == blob.size),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A part is large: it is not hashed where requests are served.
async fn hash(mut hasher: Hasher, block: Bytes) -> Result<Hasher, ArtifactError> {
    blocking(move || {
        hasher.update(&block);
        Ok(hasher)
    })
    .await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Under `incoming/`: it goes when its copy is there.
    Passing,
    /// In a blob's place: never removed, for another put may have answered for it already.
    Lasting,
}

/// An object that is sent by parts. Dropping it removes what was sent, as far as the runtime still runs.
struct Upload {
    store: Arc<dyn ObjectStore>,
    path: Path,
    kind: Kind,
    sizes: Sizes,
    sent: usize,
    flying: JoinSet<object_store::Result<()>>,
    upload: Option<Box<dyn MultipartUpload>>,
    /// The parts have become an object, which is to go.
    whole: bool,
}

impl Upload {
    async fn begin(store: &Arc<dyn ObjectStore>, path: Path, kind: Kind, sizes: Sizes) -> Result<Self, ArtifactError> {
        let upload = Some(store.put_multipart(&path).await?);
        Ok(Self { store: Arc::clone(store), path, kind, sizes, sent: 0, flying: JoinSet::new(), upload, whole: false })
    }

    fn part_size(&self) -> usize {
        self.sizes.part * (1 + self.sent / self.sizes.parts_of_a_size)
    }

    async fn send(&mut self, part: Bytes) -> Result<(), ArtifactError> {
        while self.flying.len() >= FLYING {
            self.landed().await?;
        }
        if let Some(upload) = &mut self.upload {
            self.flying.spawn(upload.put_part(part.into()));
            self.sent += 1;
        }
        Ok(())
    }

    async fn landed(&mut self) -> Result<(), ArtifactError> {
        match self.flying.join_next().await {
            Some(Err(error)) => Err(ArtifactError::Store(error.into())),
            Some(Ok(Err(error))) => Err(error.into()),
            Some(Ok(Ok(()))) | None => Ok(()),
        }
    }

    async fn complete(&mut self) -> Result<(), ArtifactError> {
        while !self.flying.is_empty() {
            self.landed().await?;
        }
        if let Some(upload) = &mut self.upload {
            // Also if it fails: an answer that is lost leaves an object.
            self.whole = self.kind == Kind::Passing;
            upload.complete().await?;
            self.upload = None;
        }
        Ok(())
    }

    /// Best effort: what stays is swept a day later, and parts by the bucket's rule for incomplete uploads.
    async fn discard(mut self) {
        self.flying.shutdown().await;
        if let Some(remove) = self.removal() {
            remove.await;
        }
    }

    fn removal(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let (upload, whole) = (self.upload.take(), std::mem::take(&mut self.whole));
        let (store, path) = (Arc::clone(&self.store), self.path.clone());
        (upload.is_some() || whole).then_some(async move {
            if let Some(mut upload) = upload {
                let _ = upload.abort().await;
            }
            if whole {
                let _ = store.delete(&path).await;
            }
        })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.flying.abort_all();
        if let (Some(remove), Ok(runtime)) = (self.removal(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(remove);
        }
    }
}

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
            // Another process sweeps as well.
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests;
