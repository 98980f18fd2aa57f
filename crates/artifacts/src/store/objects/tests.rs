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
async fn parts_grow_and_what_is_too_large_to_copy_travels() {
    for length in [0, 9, 10, 11, 20, 30, 31, 99, 100, 101, 1000] {
        let store = memory();
        let (blob, bytes) = put_small(&store, length).await;
        assert_eq!((blob.size, blob.sha256), (length as u64, Sha256Hex::of(&bytes)));
        assert_eq!(names(&store).await, [blob.place()], "{length}");
        let read = store.get(&Path::from(blob.place())).await.unwrap().bytes().await.unwrap();
        assert_eq!(read, bytes);
    }
    // 10,000 parts, as S3 takes them.
    let Sizes { part, parts_of_a_size, .. } = Sizes::default();
    let all: usize = (0..10_000).map(|sent| part * (1 + sent / parts_of_a_size)).sum();
    assert!(all > 400 << 30);
}

#[tokio::test]
async fn a_sweep_removes_what_is_old_under_incoming_alone() {
    let store = memory();
    let (blob, _) = put_small(&store, 50).await;
    store.put(&Path::from("incoming/left"), Bytes::from_static(b"x").into()).await.unwrap();
    assert_eq!(sweep(&store, ABANDONED).await.unwrap(), 0);
    assert_eq!(names(&store).await.len(), 2);
    assert_eq!(sweep(&store, Duration::ZERO).await.unwrap(), 1);
    assert_eq!(names(&store).await, [blob.place()]);
}

#[tokio::test]
async fn only_what_passes_is_removed() {
    let store = memory();
    let place = Path::from("blobs/00/00");
    for (kind, left) in [(Kind::Lasting, vec!["blobs/00/00"]), (Kind::Passing, vec![])] {
        for by_discard in [true, false] {
            let mut upload = Upload::begin(&store, place.clone(), kind, SMALL).await.unwrap();
            upload.send(Bytes::from_static(b"x")).await.unwrap();
            upload.complete().await.unwrap();
            match by_discard {
                true => upload.discard().await,
                false => drop(upload),
            }
            tokio::task::yield_now().await;
            assert_eq!(names(&store).await, left);
        }
    }
}
