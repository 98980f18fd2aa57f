//! Tests of the embedded log that access its file: copies, restores, and an interrupted compaction.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use carbon_core::{Cleanup, Clock, Partitioner, Positions, Retention, Timestamp, TopicName, TopicPartition, TopicSpec};
use carbon_log::{CompactionReport, DataFolder, EmbeddedLog, EventLog as _, Foreign, NewRecord, Placement, Value};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

fn topic() -> TopicName {
    TopicName::parse("t").unwrap()
}

/// Partition 0 of the topic at offset `next`.
fn at_offset(next: u64) -> Positions {
    [(TopicPartition::new(topic(), 0), next)].into_iter().collect()
}

fn record(key: &str, value: Option<&str>) -> NewRecord {
    let value = value.map_or(Value::Null, |text| Value::Raw(text.as_bytes().to_vec()));
    let key = Some(key.as_bytes().to_vec());
    NewRecord { topic: topic(), key, placement: Placement::Partition(0), value, headers: vec![] }
}

async fn append(log: &EmbeddedLog, count: u64) {
    log.append((0..count).map(|n| record("k", Some(&n.to_string()))).collect()).await.unwrap();
}

async fn open(folder: &DataFolder) -> EmbeddedLog {
    let log = EmbeddedLog::open(folder).await.unwrap();
    let retention = Retention { retention_ms: None, min_compaction_lag_ms: 0, delete_retention_ms: 0 };
    let (partitioner, cleanup) = (Partitioner::Murmur2, Cleanup::Compact);
    let spec = TopicSpec { name: topic(), partitions: 1, cleanup, partitioner, retention };
    log.ensure_topics(&[spec]).await.unwrap();
    log
}

const FILES: [&str; 3] = ["log.db", "log.db-wal", "log.db-shm"];

/// Copies the log's files, after it has deleted those at `to`.
fn copy(from: &Path, to: &Path) {
    for file in FILES {
        match std::fs::remove_file(to.join(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
        // SQLite rebuilds the shared-memory file from the WAL file.
        if file != "log.db-shm" && from.join(file).exists() {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }
}

#[tokio::test]
async fn law_04_a_checkpoint_of_an_older_opening_is_compared_with_the_ends_of_the_next() {
    let root = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(root.path()).unwrap();
    let log = open(&folder).await;
    let first = log.identity().to_owned();
    append(&log, 5).await;
    log.close().await;
    let log = open(&folder).await;
    let second = log.identity().to_owned();
    append(&log, 5).await;
    log.close().await;
    let log = open(&folder).await;
    assert!(first != second && second != log.identity());
    append(&log, 5).await;
    let past = |next, end| Some(Foreign::PastEnd { at: TopicPartition::new(topic(), 0), next, end });
    for (opening, next, expected) in [
        (first.as_str(), 0, None),
        (&first, 5, None),
        (&first, 6, past(6, 5)),
        (&second, 10, None),
        (&second, 11, past(11, 10)),
        (log.identity(), 15, None),
        (log.identity(), 16, past(16, 15)),
    ] {
        assert_eq!(log.recognise(opening, &at_offset(next)).await.unwrap(), expected, "{next}");
    }
    // A topic that the log does not have is past its end.
    let other: Positions = [(TopicPartition::new(TopicName::parse("other").unwrap(), 0), 1)].into_iter().collect();
    assert!(matches!(log.recognise(&first, &other).await.unwrap(), Some(Foreign::PastEnd { end: 0, .. })));
}

#[tokio::test]
async fn law_04_a_restored_file_is_detected_even_if_its_offsets_overlap() {
    let (root, aside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = DataFolder::open(root.path()).unwrap();
    let log = open(&folder).await;
    append(&log, 3).await;
    log.close().await;
    copy(folder.root(), aside.path());

    let log = open(&folder).await;
    let lost_opening = log.identity().to_owned();
    append(&log, 4).await;
    assert_eq!(log.recognise(&lost_opening, &at_offset(7)).await.unwrap(), None);
    log.close().await;
    copy(aside.path(), folder.root());

    let log = open(&folder).await;
    assert_eq!(log.ends(&topic()).await.unwrap(), at_offset(3));
    // The same number of records: the offsets alone do not reveal the restore.
    append(&log, 4).await;
    for next in [0, 3, 7] {
        let found = log.recognise(&lost_opening, &at_offset(next)).await.unwrap();
        assert_eq!(found, Some(Foreign::UnknownOpening { checkpoint: lost_opening.clone() }), "{next}");
    }
}

#[tokio::test]
async fn law_04_a_restored_copy_of_an_open_file_is_detected_by_its_ends() {
    let (root, aside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = DataFolder::open(root.path()).unwrap();
    let log = open(&folder).await;
    let opening = log.identity().to_owned();
    append(&log, 3).await;
    copy(folder.root(), aside.path());
    append(&log, 4).await;
    log.close().await;
    copy(aside.path(), folder.root());

    let log = open(&folder).await;
    append(&log, 20).await;
    assert_eq!(log.recognise(&opening, &at_offset(3)).await.unwrap(), None);
    let expected = Foreign::PastEnd { at: TopicPartition::new(topic(), 0), next: 7, end: 3 };
    assert_eq!(log.recognise(&opening, &at_offset(7)).await.unwrap(), Some(expected));
}

/// A clock that advances by 1 ms with each reading.
struct TickingClock(AtomicI64);

impl Clock for TickingClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

/// If compaction deleted a null value before the values that it erases, a crash in between would bring them back. A
/// trigger simulates the crash.
#[tokio::test]
async fn law_06_an_interrupted_compaction_deletes_nothing() {
    const KEYS: u64 = 800;
    let root = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(root.path()).unwrap();
    drop(open(&folder).await);
    let log = EmbeddedLog::open_with_clock(&folder, Arc::new(TickingClock(AtomicI64::new(1_000_000)))).await.unwrap();
    for value in [Some("text"), None] {
        log.append((0..KEYS).map(|n| record(&n.to_string(), value)).collect()).await.unwrap();
    }
    let options = SqliteConnectOptions::new().filename(folder.log_file());
    let mut file = SqliteConnection::connect_with(&options).await.unwrap();
    let trigger = "CREATE TRIGGER crash BEFORE DELETE ON record WHEN OLD.value = CAST('text' AS BLOB) \
                   BEGIN SELECT RAISE(ABORT, 'crash'); END";
    sqlx::raw_sql(trigger).execute(&mut file).await.unwrap();
    assert!(log.compact().await.unwrap_err().to_string().contains("crash"));
    let at = TopicPartition::new(topic(), 0);
    let left = log.read(&at, 0, 10_000).await.unwrap();
    let nulls = left.iter().filter(|record| record.value.is_none()).count() as u64;
    assert_eq!((left.len() as u64 - nulls, nulls), (KEYS, KEYS), "values and nulls");
    sqlx::raw_sql("DROP TRIGGER crash").execute(&mut file).await.unwrap();
    let report = log.compact().await.unwrap();
    assert_eq!(report, CompactionReport { superseded: KEYS, nulls: KEYS, expired: 0 });
    assert_eq!(log.read(&at, 0, 10_000).await.unwrap(), []);
    assert_eq!(log.ends(&topic()).await.unwrap(), at_offset(2 * KEYS));
}

#[tokio::test]
async fn the_size_includes_the_wal() {
    let root = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(root.path()).unwrap();
    let log = open(&folder).await;
    let before = log.size().await.unwrap().unwrap();
    log.append(vec![record("k", Some(&"x".repeat(1_000_000)))]).await.unwrap();
    assert!(log.size().await.unwrap().unwrap() >= before + 1_000_000);
}
