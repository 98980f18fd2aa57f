//! Tests of the content that is stored and read.

use carbon_artifacts::{ArtifactError, Sha256Hex};
use carbon_core::{Classify as _, Fault, Retry};
use futures::TryStreamExt as _;

use crate::support::{Fixture, LARGE, blob_path, chunks, collect, random_bytes, whole};

pub async fn stored_content_is_read_back(store: &Fixture) {
    for length in [0, 1, 100_000, 8 << 20, (8 << 20) + 1, LARGE] {
        let bytes = random_bytes(length as u64, length);
        let blob = store.put(&bytes).await;
        assert_eq!((blob.size, blob.sha256), (length as u64, Sha256Hex::of(&bytes)));
        let (size, read) = store.artifacts.get(&blob.sha256).await.unwrap();
        assert_eq!(size, length as u64);
        assert!(collect(read).await.unwrap() == bytes, "{length}");
        let (size, read) = store.artifacts.get_verified(&blob.sha256).await.unwrap();
        assert_eq!(size, length as u64);
        assert!(collect(read).await.unwrap() == bytes, "{length}");
        assert!(store.artifacts.contains(&blob.sha256).await.unwrap());
        assert_eq!(store.artifacts.size(&blob.sha256).await.unwrap(), Some(length as u64));
        assert!(store.all().await.contains(&blob_path(&blob.sha256)));
    }
    assert!(store.all().await.iter().all(|object| object.starts_with("blobs/")));
}

pub async fn the_chunking_does_not_change_the_blob(store: &Fixture) {
    let bytes = random_bytes(7, (8 << 20) + 12_345);
    for size in [777, 1 << 20, 5_000_000, bytes.len()] {
        let blob = store.artifacts.put(chunks(&bytes, size), u64::MAX).await.unwrap();
        assert_eq!((blob.size, blob.sha256), (bytes.len() as u64, Sha256Hex::of(&bytes)), "{size}");
    }
    let with_empty_chunks = random_bytes(8, 10).into_iter().flat_map(|byte| [vec![], vec![byte]]);
    let with_empty_chunks = futures::stream::iter(with_empty_chunks.map(|chunk| Ok::<_, std::io::Error>(chunk.into())));
    let blob = store.artifacts.put(with_empty_chunks, 10).await.unwrap();
    assert_eq!(blob.sha256, Sha256Hex::of(&random_bytes(8, 10)));
    assert_eq!(store.all().await.len(), 2);
}

pub async fn the_same_content_is_stored_once(store: &Fixture) {
    for length in [1000, LARGE] {
        let bytes = random_bytes(1, length);
        let blob = store.put(&bytes).await;
        let before = store.objects.list(None).try_collect::<Vec<_>>().await.unwrap();
        assert_eq!(store.put(&bytes).await, blob);
        let after = store.objects.list(None).try_collect::<Vec<_>>().await.unwrap();
        // Time and tag would differ if the blob had been written again.
        assert_eq!(before, after);
    }
}

pub async fn sixteen_concurrent_puts_store_one_blob(store: &Fixture) {
    for length in [3000, (8 << 20) + 5] {
        let bytes = random_bytes(length as u64, length);
        let puts = (0..16).map(|_| {
            let (artifacts, bytes) = (store.artifacts.clone(), whole(&bytes));
            tokio::spawn(async move { artifacts.put(bytes, u64::MAX).await.unwrap() })
        });
        let blobs = futures::future::try_join_all(puts.collect::<Vec<_>>()).await.unwrap();
        assert!(blobs.iter().all(|blob| *blob == blobs[0]));
        let (_, read) = store.artifacts.get_verified(&blobs[0].sha256).await.unwrap();
        assert!(collect(read).await.unwrap() == bytes);
    }
    assert_eq!(store.all().await.len(), 2);
}

pub async fn ranges_are_read(store: &Fixture) {
    let bytes = random_bytes(2, 700_000);
    let sha256 = store.put(&bytes).await.sha256;
    for range in [0..1, 0..700_000, 699_999..700_000, 262_143..262_145, 100..600_000, 5..5, 700_000..700_000] {
        let read = store.artifacts.get_range(&sha256, range.clone()).await.unwrap();
        let expected = &bytes[range.start as usize..range.end as usize];
        assert!(collect(read).await.unwrap() == expected, "{range:?}");
    }
    for range in [0..700_001, 700_000..700_001, 800_000..900_000, 700_001..700_001, u64::MAX - 1..u64::MAX] {
        let error = store.artifacts.get_range(&sha256, range.clone()).await.err().unwrap();
        assert!(matches!(error, ArtifactError::OutOfRange { size: 700_000, .. }), "{range:?}: {error}");
        assert_eq!(error.fault(), Fault::User);
    }
    #[allow(clippy::reversed_empty_ranges)]
    let backwards = store.artifacts.get_range(&sha256, 5..2).await;
    assert!(matches!(backwards.err().unwrap(), ArtifactError::OutOfRange { .. }));
}

pub async fn a_blob_that_was_never_stored_is_missing(store: &Fixture) {
    let sha256 = Sha256Hex::of(b"never stored");
    assert!(!store.artifacts.contains(&sha256).await.unwrap());
    assert_eq!(store.artifacts.size(&sha256).await.unwrap(), None);
    let errors = [
        store.artifacts.get(&sha256).await.err().unwrap(),
        store.artifacts.get_verified(&sha256).await.err().unwrap(),
        store.artifacts.get_range(&sha256, 0..1).await.err().unwrap(),
        store.artifacts.get_range(&sha256, 0..0).await.err().unwrap(),
    ];
    for error in errors {
        assert!(matches!(error, ArtifactError::Missing(found) if found == sha256), "{error}");
        assert_eq!((error.fault(), error.retry()), (Fault::External, Retry::Never));
    }
}

pub async fn content_beyond_the_limit_is_rejected(store: &Fixture) {
    for length in [0usize, 1000, LARGE] {
        let bytes = random_bytes(3, length + 1);
        let error = store.artifacts.put(whole(&bytes), length as u64).await.unwrap_err();
        assert!(matches!(error, ArtifactError::TooLarge { limit } if limit == length as u64), "{error}");
        assert_eq!((error.fault(), error.retry()), (Fault::User, Retry::Never));
        store.assert_becomes(&[]).await;
    }
    store.artifacts.put(whole(&random_bytes(3, 1000)), 1000).await.unwrap();
}

pub async fn changed_bytes_are_detected(store: &Fixture) {
    for length in [1usize, 1_000_000] {
        let mut bytes = random_bytes(4, length);
        let sha256 = store.put(&bytes).await.sha256;
        bytes[length / 2] ^= 1;
        store.overwrite(&sha256, bytes.clone()).await;
        let (size, mut read) = store.artifacts.get_verified(&sha256).await.unwrap();
        let mut before = 0;
        let error = loop {
            match read.try_next().await {
                Ok(Some(chunk)) => before += chunk.len() as u64,
                Ok(None) => panic!("the stream ended without an error"),
                Err(error) => break error,
            }
        };
        assert!(before < size, "a corrupt blob must not be returned completely");
        let ArtifactError::Corrupt { expected, found } = &error else { panic!("{error}") };
        assert_eq!((*expected, *found), (sha256, Sha256Hex::of(&bytes)));
        assert_eq!((error.fault(), error.retry()), (Fault::Internal, Retry::Never));
        // Without verification the bytes are returned unchanged.
        assert!(collect(store.artifacts.get(&sha256).await.unwrap().1).await.unwrap() == bytes);
    }
}

pub async fn a_blob_of_a_wrong_size_is_replaced(store: &Fixture) {
    let bytes = random_bytes(5, 5000);
    let sha256 = store.put(&bytes).await.sha256;
    store.overwrite(&sha256, bytes[..4000].to_vec()).await;
    assert!(collect(store.artifacts.get_verified(&sha256).await.unwrap().1).await.is_err());
    store.put(&bytes).await;
    assert!(collect(store.artifacts.get_verified(&sha256).await.unwrap().1).await.unwrap() == bytes);
}
