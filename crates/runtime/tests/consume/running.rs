//! Records, and processors that run over a scripted log.

use std::sync::Arc;
use std::time::Duration;

use carbon_core::{Partitioner, Positions, TenantId, Timestamp, TopicName, TopicPartition};
use carbon_log::{Group, NewRecord, Placement, Value};
use carbon_runtime::Shutdown;
use carbon_runtime::consume::{Options, ProcessorHandle, ProcessorView, Progress, spawn_shared_sink, spawn_sink};
use carbon_schemas::Event as _;
use carbon_schemas::events::EntityChanged;
use carbon_topology::{Batch, Topology};
use uuid::Uuid;

use super::PATIENCE;
use super::script::ScriptedLog;
use super::sinks::{Rows, ScriptedSink};

pub fn topic() -> TopicName {
    TopicName::parse(EntityChanged::NAME).unwrap()
}

pub fn at(partition: u32) -> TopicPartition {
    TopicPartition::new(topic(), partition)
}

pub fn all(partitions: &[u32]) -> Vec<TopicPartition> {
    partitions.iter().map(|partition| at(*partition)).collect()
}

pub fn upto(partition: u32, next: u64) -> Positions {
    [(at(partition), next)].into_iter().collect()
}

/// The `n`th entity whose key lies in a partition.
pub fn entity(partition: u32, n: u64) -> EntityChanged {
    let entity = |id: String| EntityChanged {
        event_id: Uuid::from_u128(u128::from(n)),
        occurred_at: Timestamp(1_700_000_000_000),
        tenant_id: TenantId::parse("acme").unwrap(),
        entity_type: "instrument".into(),
        entity_id: id,
        text: "text".into(),
        metadata: [].into(),
        tags: Vec::new(),
        deleted: false,
    };
    let lies_here = |entity: &EntityChanged| {
        let key = EntityChanged::partition_key(&entity.key().unwrap());
        Partitioner::Murmur2.partition(key.as_bytes(), 6) == partition
    };
    (0..).map(|salt| entity(format!("E{n}-{salt}"))).find(lies_here).unwrap()
}

/// Puts `count` more entities into a partition.
pub fn produce(log: &ScriptedLog, partition: u32, count: u64) {
    produce_with(log, partition, count, |_, record| record);
}

/// The same with records that are changed by their offset.
pub fn produce_with(log: &ScriptedLog, partition: u32, count: u64, change: impl Fn(u64, NewRecord) -> NewRecord) {
    let from = log.end(&at(partition));
    for offset in from..from + count {
        let record = NewRecord::event(&entity(partition, offset)).unwrap().in_partition(partition);
        log.put(change(offset, record));
    }
}

/// Makes a record poison whose key can be read.
pub fn poison(record: NewRecord) -> NewRecord {
    NewRecord { value: Value::Raw(vec![9, 9, 9]), ..record }
}

/// A notification of the platform.
pub fn notice(n: u64) -> NewRecord {
    NewRecord {
        topic: TopicName::parse("search.index.updated.v1").unwrap(),
        key: Some(format!("notice-{n}").into_bytes()),
        placement: Placement::Partition(0),
        value: Value::Null,
        headers: Vec::new(),
    }
}

pub fn options(log: &Arc<ScriptedLog>, records: usize) -> Options {
    let topics = vec![Topology::builtin().unwrap().topics[EntityChanged::NAME].clone()];
    let batch = Batch { records, linger: Duration::from_millis(20) };
    let mut options = Options::new("scripted", group(), topics, batch, log.clone(), Shutdown::new());
    options.halted_retry = Duration::from_secs(2);
    options
}

pub fn group() -> Group {
    Group::new("scripted", "scripted-v1-1")
}

/// A running sink.
pub struct Running {
    pub log: Arc<ScriptedLog>,
    pub rows: Arc<Rows>,
    pub handle: ProcessorHandle,
}

impl Running {
    pub fn start(rows: Arc<Rows>, records: usize) -> Self {
        let log = ScriptedLog::new();
        let options = options(&log, records);
        Self { handle: spawn_sink(ScriptedSink(rows.clone()), options), log, rows }
    }

    pub fn shared(rows: Arc<Rows>, records: usize) -> Self {
        let log = ScriptedLog::new();
        let options = options(&log, records);
        Self { handle: spawn_shared_sink(ScriptedSink(rows.clone()), options), log, rows }
    }

    pub fn view(&self) -> ProcessorView {
        self.handle.view()
    }

    pub async fn shows(&self, what: &str, is: impl FnMut(&Progress) -> bool) {
        shows(&self.view(), what, is).await;
    }

    pub async fn stop(self) {
        self.handle.stop();
        join(self.handle).await;
    }
}

/// Waits until a processor shows what it should.
pub async fn shows(view: &ProcessorView, what: &str, is: impl FnMut(&Progress) -> bool) {
    let mut progress = view.progress.clone();
    let waited = tokio::time::timeout(PATIENCE, progress.wait_for(is)).await;
    let found = view.progress.borrow().clone();
    assert!(matches!(waited, Ok(Ok(_))), "the processor never showed: {what}; it shows {found:?}");
}

/// Waits until a processor has ended.
pub async fn join(handle: ProcessorHandle) {
    tokio::time::timeout(PATIENCE, handle.join()).await.expect("the processor does not end").unwrap();
}
