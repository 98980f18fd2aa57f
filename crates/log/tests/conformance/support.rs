//! The suite's factory traits, and helpers that its tests share.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use carbon_core::{Cleanup, Partitioner, Positions, Retention, TopicName, TopicPartition, TopicSpec};
use carbon_log::{Delivery, EventLog, Group, NewRecord, Placement, Record, RecordStream, Value};

/// Maximum time of one operation in a test.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The factory of a log that can be opened several times. Each test has its own cluster.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// Opens the log, with all records of earlier openings. An earlier opening must be closed.
    async fn open(&self) -> Box<dyn EventLog>;
    /// A topic name that no other test uses.
    fn topic(&self, name: &str) -> TopicName;
    /// A group name that no other test uses.
    fn group(&self, name: &str) -> Group;
}

/// A cluster whose clock and cleaner the test controls.
#[async_trait]
pub trait TimedCluster: Cluster {
    /// The clock's time in milliseconds.
    fn now(&self) -> i64;
    fn set_now(&self, ms: i64);
    /// Opens the log with its cleaner.
    async fn open_cleanable(&self) -> Box<dyn Cleanable>;
}

/// A log and its cleaner.
#[async_trait]
pub trait Cleanable: Send + Sync {
    fn log(&self) -> &dyn EventLog;
    /// Deletes the records that compaction and retention allow now.
    async fn clean(&self);
}

pub fn spec(name: &TopicName, partitions: u32, cleanup: Cleanup) -> TopicSpec {
    let retention = Retention::default();
    TopicSpec { name: name.clone(), partitions, cleanup, partitioner: Partitioner::Murmur2, retention }
}

/// Opens the log with one topic that is neither compacted nor deleted.
pub async fn with_topic(cluster: &impl Cluster, partitions: u32) -> (Box<dyn EventLog>, TopicName) {
    let (log, topic) = (cluster.open().await, cluster.topic("t"));
    log.ensure_topics(&[spec(&topic, partitions, Cleanup::Keep)]).await.unwrap();
    (log, topic)
}

pub fn at(topic: &TopicName, partition: u32) -> TopicPartition {
    TopicPartition::new(topic.clone(), partition)
}

pub fn positions<const N: usize>(topic: &TopicName, next: [(u32, u64); N]) -> Positions {
    next.into_iter().map(|(partition, next)| (at(topic, partition), next)).collect()
}

/// A record without a key in this partition.
pub fn text(topic: &TopicName, partition: u32, value: &str) -> NewRecord {
    let value = Value::Raw(value.as_bytes().to_vec());
    NewRecord { topic: topic.clone(), key: None, placement: Placement::Partition(partition), value, headers: vec![] }
}

/// A record with a key, placed by the key. `None` is a null value.
pub fn keyed(topic: &TopicName, key: &str, value: Option<&str>) -> NewRecord {
    let value = value.map_or(Value::Null, |text| Value::Raw(text.as_bytes().to_vec()));
    let key = key.as_bytes().to_vec();
    NewRecord { topic: topic.clone(), key: Some(key.clone()), placement: Placement::ByKey(key), value, headers: vec![] }
}

/// The values of records as texts; "null" for a null value.
pub fn texts(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| record.value.as_ref().map(|value| String::from_utf8(value.to_vec()).unwrap());
    records.iter().map(|record| text(record).unwrap_or_else(|| "null".into())).collect()
}

pub fn offsets(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.position.offset).collect()
}

/// All records of a partition.
pub async fn all(log: &dyn EventLog, topic: &TopicName, partition: u32) -> Vec<Record> {
    log.read(&at(topic, partition), 0, usize::MAX >> 1).await.unwrap()
}

/// Waits until a partition has `count` records, and returns their texts. The outputs of a stage are durable when the
/// append returns, but visible only after the transaction's marker is written.
pub async fn wait_for_texts(log: &dyn EventLog, topic: &TopicName, partition: u32, count: usize) -> Vec<String> {
    let enough = async {
        loop {
            let found = all(log, topic, partition).await;
            if found.len() >= count {
                return texts(&found);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time("a stage's outputs", enough).await
}

/// Awaits a future. Panics after [`TEST_TIMEOUT`].
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(TEST_TIMEOUT, what, future).await
}

/// Awaits a future. Panics after `deadline`.
pub async fn within<T>(deadline: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(deadline, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {deadline:?}"),
    }
}

/// The next delivery of a stream that has not ended.
pub async fn next(stream: &mut RecordStream) -> Delivery {
    in_time("the next delivery", stream.next()).await.expect("the stream has ended").unwrap()
}

/// Collects the deliveries of a stream.
pub struct Reader {
    pub stream: RecordStream,
    pub records: Vec<Record>,
    /// The last reported end of each partition.
    pub ended: BTreeMap<TopicPartition, u64>,
    /// The partitions of the last assignment.
    pub assigned: Vec<TopicPartition>,
}

impl Reader {
    pub fn new(stream: RecordStream) -> Self {
        Self { stream, records: vec![], ended: BTreeMap::new(), assigned: vec![] }
    }

    /// Joins the group, and answers the assignment with `start`.
    pub async fn join(log: &dyn EventLog, group: &Group, topic: &TopicName, start: Positions) -> Self {
        let mut reader = Self::new(log.subscribe(group, std::slice::from_ref(topic)).await.unwrap());
        reader.take_assignment(start).await;
        reader
    }

    /// Receives an assignment, and answers it with `start`.
    pub async fn take_assignment(&mut self, start: Positions) {
        match next(&mut self.stream).await {
            Delivery::Assigned { partitions, start: answer } => {
                self.assigned = partitions;
                answer.send(start).expect("the log does not wait for the start");
            }
            other => panic!("expected an assignment, got {other:?}"),
        }
    }

    /// Receives one delivery, which must be records or an end.
    pub async fn step(&mut self) {
        match next(&mut self.stream).await {
            Delivery::Records(records) => self.records.extend(records),
            Delivery::Ended { at, next } => {
                let mine = self.records.iter().filter(|record| record.position.topic_partition() == at);
                let below = mine.clone().all(|record| record.position.offset < next);
                assert!(below, "{at} ended at {next}, but a record beyond it was delivered");
                self.ended.insert(at, next);
            }
            other => panic!("expected records or an end, got {other:?}"),
        }
    }

    /// Receives deliveries until these ends are reported.
    pub async fn read_to(&mut self, ends: &Positions) {
        while !ends.iter().all(|(at, next)| self.ended.get(at).is_some_and(|seen| *seen >= next)) {
            self.step().await;
        }
    }

    /// The texts of one partition, in the order of delivery.
    pub fn texts_of(&self, partition: u32) -> Vec<String> {
        let own: Vec<_> = self.records.iter().filter(|r| r.position.partition == partition).cloned().collect();
        texts(&own)
    }
}
