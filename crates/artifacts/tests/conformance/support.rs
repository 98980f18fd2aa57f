//! Helpers of the conformance suite: stores, and streams of bytes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carbon_artifacts::{ArtifactError, ArtifactStore, Blob, ByteStream, Sha256Hex};
use futures::{Stream, TryStreamExt as _, stream};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tempfile::TempDir;

/// A store under test, and direct access to its objects.
pub struct Fixture {
    pub artifacts: ArtifactStore,
    pub objects: Arc<dyn ObjectStore>,
    /// The folder of the store, if it is in a folder. Tests change it to make writes fail.
    pub folder: Option<TempDir>,
}

/// Larger than two parts of an object store.
pub const LARGE: usize = 20 << 20;

impl Fixture {
    /// A local folder.
    pub fn local() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = ArtifactStore::local(folder.path()).unwrap();
        let objects = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
        Self { artifacts, objects, folder: Some(folder) }
    }

    /// An object store in memory.
    pub fn memory() -> Self {
        let objects = Arc::new(InMemory::new());
        Self { artifacts: ArtifactStore::new(objects.clone()), objects, folder: None }
    }

    /// An object store in a folder, where parts of uploads are files.
    pub fn parts() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let objects = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap().with_fsync(true));
        Self { artifacts: ArtifactStore::new(objects.clone()), objects, folder: Some(folder) }
    }

    pub async fn put(&self, bytes: &[u8]) -> Blob {
        self.artifacts.put(whole(bytes), bytes.len() as u64).await.unwrap()
    }

    /// The paths of all objects; in a folder, of all files, which include the parts of uploads.
    pub async fn all(&self) -> Vec<String> {
        let objects = self.objects.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await;
        let mut all: Vec<String> = objects.unwrap();
        if let Some(folder) = &self.folder {
            let mut files = Vec::new();
            walk(folder.path(), &mut files);
            assert!(files.len() >= all.len());
            all = files
                .iter()
                .map(|file| file.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned())
                .collect();
        }
        all.sort();
        all
    }

    /// Waits up to 5 s until [`all`](Fixture::all) is `expected`. A dropped upload is cleaned up in the background.
    pub async fn assert_becomes(&self, expected: &[String]) {
        for _ in 0..500 {
            if self.all().await == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(self.all().await, expected);
    }

    /// Replaces the content of a blob.
    pub async fn overwrite(&self, sha256: &Sha256Hex, bytes: Vec<u8>) {
        self.objects.put(&blob_path(sha256).into(), bytes.into()).await.unwrap();
    }
}

/// Collects all files under a folder.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => walk(&path, files),
            false => files.push(path),
        }
    }
}

/// The path of a blob.
pub fn blob_path(sha256: &Sha256Hex) -> String {
    let name = sha256.to_string();
    format!("blobs/{}/{name}", &name[..2])
}

/// Pseudo-random bytes, which cannot be compressed; equal seeds give equal bytes.
pub fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A stream of `bytes` in chunks of `size` bytes.
pub fn chunks(bytes: &[u8], size: usize) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let chunks: Vec<_> = bytes.chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    stream::iter(chunks)
}

/// A stream of `bytes` in chunks of 64 KiB.
pub fn whole(bytes: &[u8]) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    chunks(bytes, 64 * 1024)
}

/// A stream of `bytes` that then never ends.
pub fn stalled(bytes: &[u8]) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    use futures::StreamExt as _;
    whole(bytes).chain(stream::pending())
}

/// Reads a stream to its end.
pub async fn collect(bytes: ByteStream) -> Result<Vec<u8>, ArtifactError> {
    bytes
        .try_fold(Vec::new(), |mut all, chunk| async move {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await
}
