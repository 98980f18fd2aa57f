//! What only the embedded log can be asked: its file is copied, read and disturbed.

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

fn reached(next: u64) -> Positions {
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

fn copy(from: &Path, to: &Path) {
    for file in FILES {
        match std::fs::remove_file(to.join(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
        // The shared memory is remade from the write-ahead log.
        if file != "log.db-shm" && from.join(file).exists() {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }
}

#[tokio::test]
async fn law_04_a_checkpoint_of_an_older_opening_is_held_against_the_ends_that_the_next_found() {
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
        assert_eq!(log.recognise(opening, &reached(next)).await.unwrap(), expected, "{next}");
    }
    // A topic that the log does not have is past its end.
    let other: Positions = [(TopicPartition::new(TopicName::parse("other").unwrap(), 0), 1)].into_iter().collect();
    assert!(matches!(log.recognise(&first, &other).await.unwrap(), Some(Foreign::PastEnd { end: 0, .. })));
}

#[tokio::test]
async fn law_04_a_file_that_was_copied_back_is_told_from_the_one_that_went_on() {
    let (root, aside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = DataFolder::open(root.path()).unwrap();
    let log = open(&folder).await;
    append(&log, 3).await;
    log.close().await;
    copy(folder.root(), aside.path());

    let log = open(&folder).await;
    let gone = log.identity().to_owned();
    append(&log, 4).await;
    assert_eq!(log.recognise(&gone, &reached(7)).await.unwrap(), None);
    log.close().await;
    copy(aside.path(), folder.root());

    let log = open(&folder).await;
    assert_eq!(log.ends(&topic()).await.unwrap(), reached(3));
    // As many records again: offsets alone would not tell.
    append(&log, 4).await;
    for next in [0, 3, 7] {
        let found = log.recognise(&gone, &reached(next)).await.unwrap();
        assert_eq!(found, Some(Foreign::UnknownOpening { checkpoint: gone.clone() }), "{next}");
    }
}

#[tokio::test]
async fn law_04_a_copy_of_a_live_file_is_told_by_its_ends() {
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
    assert_eq!(log.recognise(&opening, &reached(3)).await.unwrap(), None);
    let expected = Foreign::PastEnd { at: TopicPartition::new(topic(), 0), next: 7, end: 3 };
    assert_eq!(log.recognise(&opening, &reached(7)).await.unwrap(), Some(expected));
}

struct Later(AtomicI64);

impl Clock for Later {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

/// A null value that goes before the values that it erased would bring them back, if the process died
/// in between. A trigger stands in for the death.
#[tokio::test]
async fn law_06_a_compaction_that_breaks_off_removes_nothing() {
    const KEYS: u64 = 800;
    let root = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(root.path()).unwrap();
    drop(open(&folder).await);
    let log = EmbeddedLog::open_with_clock(&folder, Arc::new(Later(AtomicI64::new(1_000_000)))).await.unwrap();
    for value in [Some("text"), None] {
        log.append((0..KEYS).map(|n| record(&n.to_string(), value)).collect()).await.unwrap();
    }
    let options = SqliteConnectOptions::new().filename(folder.log_file());
    let mut file = SqliteConnection::connect_with(&options).await.unwrap();
    let trigger = "CREATE TRIGGER death BEFORE DELETE ON record WHEN OLD.value = CAST('text' AS BLOB) \
                   BEGIN SELECT RAISE(ABORT, 'death'); END";
    sqlx::raw_sql(trigger).execute(&mut file).await.unwrap();
    assert!(log.compact().await.unwrap_err().to_string().contains("death"));
    let at = TopicPartition::new(topic(), 0);
    let left = log.read(&at, 0, 10_000).await.unwrap();
    let nulls = left.iter().filter(|record| record.value.is_none()).count() as u64;
    assert_eq!((left.len() as u64 - nulls, nulls), (KEYS, KEYS), "values and nulls");
    sqlx::raw_sql("DROP TRIGGER death").execute(&mut file).await.unwrap();
    let report = log.compact().await.unwrap();
    assert_eq!(report, CompactionReport { superseded: KEYS, nulls: KEYS, expired: 0 });
    assert_eq!(log.read(&at, 0, 10_000).await.unwrap(), []);
    assert_eq!(log.ends(&topic()).await.unwrap(), reached(2 * KEYS));
}

#[tokio::test]
async fn the_size_is_that_of_the_file_and_its_write_ahead_log() {
    let root = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(root.path()).unwrap();
    let log = open(&folder).await;
    let before = log.size().await.unwrap().unwrap();
    log.append(vec![record("k", Some(&"x".repeat(1_000_000)))]).await.unwrap();
    assert!(log.size().await.unwrap().unwrap() >= before + 1_000_000);
}
