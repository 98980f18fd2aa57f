//! An embedded log that records its acknowledged appends.

use carbon_core::{Cleanup, Partitioner, Positions, Retention, TopicName, TopicPartition, TopicSpec};
use carbon_log::{DataFolder, EmbeddedLog, EventLog as _, LogError, NewRecord, Placement, Value};

pub fn topic() -> TopicName {
    TopicName::parse("t").unwrap()
}

pub fn at() -> TopicPartition {
    TopicPartition::new(topic(), 0)
}

/// Partition 0 of the topic at offset `next`.
pub fn at_offset(next: u64) -> Positions {
    [(at(), next)].into_iter().collect()
}

pub fn spec(name: &str, partitions: u32) -> TopicSpec {
    let name = TopicName::parse(name).unwrap();
    let (partitioner, cleanup) = (Partitioner::Murmur2, Cleanup::Compact);
    let retention = Retention { retention_ms: None, min_compaction_lag_ms: 0, delete_retention_ms: 0 };
    TopicSpec { name, partitions, cleanup, partitioner, retention }
}

/// Records of 20 kB, each with its own key: `<name>.<n>`.
pub fn records(name: &str, count: usize) -> Vec<NewRecord> {
    let record = |n| {
        let text = format!("{name}.{n}");
        let value = Value::Raw([text.as_bytes(), &[0; 20_000]].concat());
        let key = Some(text.into_bytes());
        NewRecord { topic: topic(), key, placement: Placement::Partition(0), value, headers: vec![] }
    };
    (0..count).map(record).collect()
}

/// An embedded log in a temporary folder.
pub struct Harness {
    /// Offset and key of the acknowledged records.
    pub acknowledged: Vec<(u64, String)>,
    pub log: EmbeddedLog,
    pub folder: DataFolder,
    pub root: tempfile::TempDir,
}

impl Harness {
    pub async fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap()).await
    }

    pub async fn at(root: tempfile::TempDir) -> Self {
        let folder = DataFolder::open(root.path()).unwrap();
        let log = EmbeddedLog::open(&folder).await.unwrap();
        log.ensure_topics(&[spec("t", 1)]).await.unwrap();
        Self { acknowledged: Vec::new(), log, folder, root }
    }

    pub async fn append(&mut self, name: &str, count: usize) -> Result<(), LogError> {
        let positions = self.log.append(records(name, count)).await?;
        let keys = (0..count).map(|n| format!("{name}.{n}"));
        self.acknowledged.extend(positions.iter().map(|position| position.offset).zip(keys));
        Ok(())
    }

    /// Asserts that the log accepts a small and a large append.
    pub async fn assert_works(&mut self, name: &str) {
        self.append(&format!("{name}-1"), 1).await.unwrap();
        self.append(&format!("{name}-40"), 40).await.unwrap();
        self.log.check().await.unwrap();
    }

    /// The keys of all records, by offset. Asserts that the offsets are dense.
    pub async fn keys(&self) -> Vec<String> {
        let (mut keys, mut next) = (Vec::new(), 0);
        loop {
            let records = self.log.read(&at(), next, 10_000).await.unwrap();
            let Some(last) = records.last() else { break };
            for record in &records {
                assert_eq!(record.position.offset, next, "offsets are dense");
                next += 1;
                keys.push(String::from_utf8(record.key.as_ref().unwrap().to_vec()).unwrap());
            }
            assert_eq!(last.position.offset + 1, next);
        }
        assert_eq!(self.log.ends(&topic()).await.unwrap(), at_offset(next));
        keys
    }

    /// Asserts that the log has all acknowledged records and those of `unknown`, and no others; also after a restart.
    pub async fn assert_complete(mut self, unknown: &[&str]) {
        let acknowledged = self.acknowledged.clone();
        let assert_keys = |keys: &[String]| {
            for (offset, key) in &acknowledged {
                assert_eq!(keys.get(*offset as usize), Some(key), "an acknowledged record is lost");
            }
            let others =
                keys.iter().enumerate().filter(|(n, key)| !acknowledged.contains(&(*n as u64, (*key).clone())));
            let others: Vec<_> = others.map(|(_, key)| key.as_str()).collect();
            assert_eq!(others, unknown);
        };
        assert_keys(&self.keys().await);
        self.log.close().await;
        self.log = EmbeddedLog::open(&self.folder).await.unwrap();
        assert_keys(&self.keys().await);
        self.log.append(records("last", 40)).await.unwrap();
        assert_eq!(self.keys().await.len(), acknowledged.len() + unknown.len() + 40);
    }

    /// The path of a file in the folder.
    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join(name)
    }
}

/// Asserts that the outcome is [`LogError::Unavailable`] with this message.
pub fn assert_unavailable<T: std::fmt::Debug>(outcome: Result<T, LogError>, message: &str) {
    match outcome {
        Err(LogError::Unavailable(found)) => assert!(found.contains(message), "{found}"),
        other => panic!("{other:?}"),
    }
}
