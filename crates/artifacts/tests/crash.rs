//! Crash test of blobs (law 14): a child process stores files, prints the acknowledged ones, and is killed. Every
//! acknowledged blob is complete, every stored blob has the SHA-256 of its name, and opening the store deletes the
//! unfinished uploads.

#![allow(clippy::unwrap_used)]
#![cfg(unix)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use carbon_artifacts::{ArtifactStore, Sha256Hex};
use futures::{StreamExt as _, TryStreamExt as _, stream};

const FOLDER: &str = "CARBON_ARTIFACTS_CRASH_FOLDER";
const ROUNDS: u64 = 8;

fn content(n: u64) -> impl Iterator<Item = Bytes> {
    let length = if n.is_multiple_of(4) { 3_000_000 } else { 20_000 };
    let chunk = Bytes::from(format!("file {n} of a process that is killed\n").repeat(length / 36 / 10));
    std::iter::repeat_n(chunk, 10)
}

/// The child process. Does nothing if the environment variable is not set, as in a normal test run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let store = ArtifactStore::local(folder).unwrap();
    let first = u64::from(std::process::id()) * 1_000_000;
    stream::iter(first..)
        .map(|n| {
            let store = store.clone();
            async move { store.put(stream::iter(content(n).map(Ok::<_, std::io::Error>)), u64::MAX).await.unwrap() }
        })
        .buffer_unordered(4)
        .for_each(|blob| async move {
            // Written directly: the test harness captures `println!`.
            std::io::stdout().lock().write_all(format!("\nstored {}\n", blob.sha256).as_bytes()).unwrap();
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_14_an_acknowledged_blob_outlives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<Sha256Hex> = Vec::new();
    let mut left = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || {
            let lines = lines.map_while(Result::ok);
            lines.filter_map(|line| line.strip_prefix("stored ")?.parse().ok()).collect::<Vec<Sha256Hex>>()
        });
        let incoming = folder.path().join("incoming");
        let busy = || std::fs::read_dir(&incoming).is_ok_and(|entries| entries.count() > 0);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !busy() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // A second process that opens the folder must not delete the running uploads of the first.
        drop(ArtifactStore::local(folder.path()).unwrap());
        tokio::time::sleep(Duration::from_millis(20 + round * 37)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(reader.join().unwrap());
        left += std::fs::read_dir(&incoming).unwrap().count();
        let store = ArtifactStore::local(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(&incoming).unwrap().count(), 0);
        for sha256 in &acknowledged {
            let (size, bytes) = store.get_verified(sha256).await.unwrap();
            let read = bytes.try_fold(0, |read, chunk| async move { Ok(read + chunk.len() as u64) }).await.unwrap();
            assert_eq!(read, size);
        }
        // All blobs, also those that were not acknowledged before the kill.
        for prefix in std::fs::read_dir(folder.path().join("blobs")).unwrap() {
            for blob in std::fs::read_dir(prefix.unwrap().path()).unwrap() {
                let path = blob.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                assert_eq!(Sha256Hex::of(&std::fs::read(&path).unwrap()).to_string(), name);
            }
        }
    }
    assert!(!acknowledged.is_empty() && left > 0, "{} acknowledged, {left} left behind", acknowledged.len());
}
