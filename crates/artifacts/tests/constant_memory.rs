//! Uploads and downloads of 100 MiB do not hold the file in memory. The test is alone in its process, because it
//! measures the peak memory of the process.

#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::sync::Arc;

use bytes::Bytes;
use carbon_artifacts::ArtifactStore;
use futures::{TryStreamExt as _, stream};
use object_store::local::LocalFileSystem;

const CHUNKS: u64 = 1600;
const CHUNK: usize = 64 * 1024;
const SIZE: u64 = CHUNKS * CHUNK as u64;

/// Peak resident memory of the process since the last reset, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_and_downloads_of_100_mib_use_constant_memory() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("parts")).unwrap();
    let parts = LocalFileSystem::new_with_prefix(folder.path().join("parts")).unwrap();
    let stores = [
        (ArtifactStore::local(folder.path().join("local")).unwrap(), 16 << 20),
        // 3 parts of 8 MiB, and what the allocator retains of them.
        (ArtifactStore::new(Arc::new(parts)), 48 << 20),
    ];
    for (n, (store, allowed)) in stores.into_iter().enumerate() {
        // Resets the peak to the current resident memory.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = peak();
        let bytes = stream::iter((0..CHUNKS).map(move |at| {
            let mut chunk = vec![n as u8; CHUNK];
            chunk[..8].copy_from_slice(&at.to_le_bytes());
            Ok::<_, std::io::Error>(Bytes::from(chunk))
        }));
        let blob = store.put(bytes, SIZE).await.unwrap();
        assert_eq!(blob.size, SIZE);
        let (_, bytes) = store.get_verified(&blob.sha256).await.unwrap();
        let read = bytes.try_fold(0, |read, chunk| async move { Ok(read + chunk.len() as u64) }).await.unwrap();
        assert_eq!(read, SIZE);
        let grown = peak().saturating_sub(before);
        assert!(grown < allowed, "{store:?}: {} MiB", grown >> 20);
    }
}
