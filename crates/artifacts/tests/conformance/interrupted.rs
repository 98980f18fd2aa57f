//! Tests of uploads that fail, are cancelled, or still run during a sweep.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use carbon_artifacts::{ArtifactError, Sha256Hex};
use carbon_core::{Classify as _, Fault, Retry};
use futures::{StreamExt as _, stream};

use crate::support::{Fixture, LARGE, collect, random_bytes, stalled, whole};

pub async fn a_stream_that_fails_leaves_nothing(store: &Fixture) {
    for length in [0, 1000, LARGE] {
        let bytes = random_bytes(10, length);
        let gone = || io::Error::new(io::ErrorKind::ConnectionReset, "the client went away");
        let broken = whole(&bytes).chain(stream::once(async move { Err(gone()) }));
        let error = store.artifacts.put(broken, u64::MAX).await.unwrap_err();
        assert!(matches!(error, ArtifactError::Interrupted(_)), "{error}");
        assert!(error.to_string().contains("the client went away"));
        assert_eq!((error.fault(), error.retry()), (Fault::User, Retry::Later));
        store.assert_becomes(&[]).await;
        assert!(!store.artifacts.contains(&Sha256Hex::of(&bytes)).await.unwrap());
    }
}

pub async fn a_put_that_is_dropped_leaves_nothing(store: &Fixture) {
    let kept = store.put(b"kept").await;
    let expected = store.all().await;
    for length in [1000, LARGE] {
        let bytes = random_bytes(11, length);
        let put = store.artifacts.put(stalled(&bytes), u64::MAX);
        assert!(tokio::time::timeout(Duration::from_millis(300), put).await.is_err());
        store.assert_becomes(&expected).await;
        assert!(!store.artifacts.contains(&Sha256Hex::of(&bytes)).await.unwrap());
    }
    // Dropped at different moments.
    let bytes = random_bytes(12, LARGE);
    for micros in (0..20).map(|n| n * n * 300) {
        let put = store.artifacts.put(whole(&bytes), u64::MAX);
        let _ = tokio::time::timeout(Duration::from_micros(micros), put).await;
    }
    let blob = store.put(&bytes).await;
    let mut expected = [kept, blob].map(|blob| crate::support::blob_path(&blob.sha256));
    expected.sort();
    store.assert_becomes(&expected).await;
    assert!(collect(store.artifacts.get_verified(&blob.sha256).await.unwrap().1).await.unwrap() == bytes);
}

pub async fn a_sweep_keeps_running_uploads(store: &Fixture) {
    let (more, later) = tokio::sync::oneshot::channel::<()>();
    let bytes = random_bytes(13, LARGE);
    let rest = Bytes::from_static(b"the rest");
    let expected = Sha256Hex::of(&[bytes.as_slice(), &rest].concat());
    let slow = whole(&bytes).chain(stream::once(async move {
        let _ = later.await;
        Ok(rest)
    }));
    let artifacts = store.artifacts.clone();
    let put = tokio::spawn(async move { artifacts.put(slow, u64::MAX).await });
    // In a folder, running uploads are visible as files.
    while store.folder.is_some() && store.all().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..5 {
        assert_eq!(store.artifacts.sweep().await.unwrap(), 0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    more.send(()).unwrap();
    assert_eq!(put.await.unwrap().unwrap().sha256, expected);
}

pub async fn failed_writes_are_reported(store: &Fixture) {
    let Some(folder) = &store.folder else { return };
    let bytes = random_bytes(14, LARGE);
    // A file instead of the folder of blobs.
    let _ = std::fs::remove_dir_all(folder.path().join("blobs"));
    std::fs::write(folder.path().join("blobs"), "").unwrap();
    for bytes in [&bytes[..1000], &bytes] {
        let error = store.artifacts.put(whole(bytes), u64::MAX).await.unwrap_err();
        assert_eq!((error.fault(), error.retry()), (Fault::External, Retry::Later), "{error}");
    }
    store.assert_becomes(&["blobs".to_owned()]).await;
}
