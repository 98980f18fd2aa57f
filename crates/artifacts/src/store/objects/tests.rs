//! Tests of multipart uploads, with small parts.

use object_store::memory::InMemory;

use super::*;
use crate::Sha256Hex;

const SMALL: Sizes = Sizes { part: 10, parts_of_a_size: 3, copy: 100 };

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

async fn put_small(store: &Arc<dyn ObjectStore>, length: usize) -> (Blob, Vec<u8>) {
    let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
    let chunks: Vec<_> = bytes.chunks(7).map(|chunk| Ok::<_, BoxError>(Bytes::copy_from_slice(chunk))).collect();
    let mut blocks = Blocks::new(futures::stream::iter(chunks), u64::MAX);
    (put(store, &mut blocks, SMALL).await.unwrap(), bytes)
}

async fn names(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    store.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap()
}

#[tokio::test]
async fn content_of_any_size_is_stored_with_growing_parts_and_both_kinds_of_copy() {
    for length in [0, 9, 10, 11, 20, 30, 31, 99, 100, 101, 1000] {
        let store = memory();
        let (blob, bytes) = put_small(&store, length).await;
        assert_eq!((blob.size, blob.sha256), (length as u64, Sha256Hex::of(&bytes)));
        assert_eq!(names(&store).await, [blob.path()], "{length}");
        let read = store.get(&Path::from(blob.path())).await.unwrap().bytes().await.unwrap();
        assert_eq!(read, bytes);
    }
    // S3 allows 10,000 parts.
    let Sizes { part, parts_of_a_size, .. } = Sizes::default();
    let all: usize = (0..10_000).map(|sent| part * (1 + sent / parts_of_a_size)).sum();
    assert!(all > 400 << 30);
}

#[tokio::test]
async fn a_sweep_deletes_only_old_objects_under_incoming() {
    let store = memory();
    let (blob, _) = put_small(&store, 50).await;
    store.put(&Path::from("incoming/left"), Bytes::from_static(b"x").into()).await.unwrap();
    assert_eq!(sweep(&store, ABANDONED).await.unwrap(), 0);
    assert_eq!(names(&store).await.len(), 2);
    assert_eq!(sweep(&store, Duration::ZERO).await.unwrap(), 1);
    assert_eq!(names(&store).await, [blob.path()]);
}

#[tokio::test]
async fn only_temporary_objects_are_deleted() {
    let store = memory();
    let path = Path::from("blobs/00/00");
    for (lifetime, expected) in [(Lifetime::Permanent, vec!["blobs/00/00"]), (Lifetime::Temporary, vec![])] {
        for by_discard in [true, false] {
            let mut upload = Upload::begin(&store, path.clone(), lifetime, SMALL).await.unwrap();
            upload.send(Bytes::from_static(b"x")).await.unwrap();
            upload.complete().await.unwrap();
            match by_discard {
                true => upload.discard().await,
                false => drop(upload),
            }
            tokio::task::yield_now().await;
            assert_eq!(names(&store).await, expected);
        }
    }
}
