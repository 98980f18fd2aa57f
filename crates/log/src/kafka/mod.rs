//! The log on Apache Kafka, and on whatever else librdkafka speaks to. Records are in the Confluent wire format,
//! and a schema registry is required.

mod client;
mod ends;
mod member;
mod offsets;
mod options;
mod partitioners;
mod producer;
mod reader;
mod registry;
mod schemas;
mod topics;
mod transactions;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use carbon_core::{Partitioner, Position, Positions, Timestamp, TopicName, TopicPartition, TopicSpec};
use carbon_schemas::SchemaId;
use rdkafka::admin::AdminClient;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::Producer as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::LogError;
use crate::event_log::{EventLog, Foreign, Group, GroupDescription, TopicDescription};
use crate::record::{NewRecord, Record};
use crate::stream::RecordStream;
use client::{PATIENCE, Quiet, blocking, lock, unavailable};
use member::Member;
use producer::Producer;
use registry::Registry;

pub use options::KafkaOptions;
pub use schemas::Registration;

/// The group of those who are members of none: the client library wants a name.
fn group_of_readers() -> &'static str {
    "carbon.reader"
}

/// The log of a cluster.
pub struct KafkaLog {
    inner: Arc<Inner>,
    cluster: String,
}

struct Inner {
    options: KafkaOptions,
    admin: AdminClient<Quiet>,
    /// Asks for metadata and offsets.
    client: Arc<BaseConsumer<Quiet>>,
    producer: Producer,
    registry: Registry,
    topics: Mutex<topics::Counts>,
    /// Those that differ from the default.
    partitioners: Mutex<BTreeMap<TopicName, Partitioner>>,
    members: Mutex<HashMap<Group, Vec<Arc<Member>>>>,
    askers: Mutex<HashMap<Group, Arc<BaseConsumer<Quiet>>>>,
    transactions: Mutex<HashMap<Group, transactions::Shared>>,
    readers: Mutex<Vec<BaseConsumer<Quiet>>>,
    threads: TaskTracker,
    closed: CancellationToken,
}

impl Inner {
    fn topics(&self) -> MutexGuard<'_, topics::Counts> {
        lock(&self.topics)
    }

    fn partitioner(&self, topic: &TopicName) -> Partitioner {
        lock(&self.partitioners).get(topic).copied().unwrap_or_default()
    }

    fn askers(&self) -> MutexGuard<'_, HashMap<Group, Arc<BaseConsumer<Quiet>>>> {
        lock(&self.askers)
    }

    fn readers(&self) -> MutexGuard<'_, Vec<BaseConsumer<Quiet>>> {
        lock(&self.readers)
    }

    fn transactions(&self, group: &Group) -> transactions::Shared {
        lock(&self.transactions).entry(group.clone()).or_default().clone()
    }

    fn add_member(&self, group: &Group, member: Arc<Member>) {
        let mut members = lock(&self.members);
        let own = members.entry(group.clone()).or_default();
        own.retain(|member| member.is_alive());
        own.push(member);
    }

    /// The members of this process; `None` where there never was one.
    fn members_of(&self, group: &Group) -> Option<Vec<Arc<Member>>> {
        lock(&self.members).get(group).cloned()
    }

    fn member(&self, group: &Group) -> Option<Arc<Member>> {
        self.members_of(group)?.into_iter().rev().find(|member| member.is_alive())
    }

    fn open(&self) -> Result<(), LogError> {
        if self.closed.is_cancelled() { Err(LogError::Closed) } else { Ok(()) }
    }
}

impl KafkaLog {
    /// Connects. Fails where no broker answers within some seconds; who can wait tries again.
    pub async fn connect(options: KafkaOptions) -> Result<Self, LogError> {
        options.check()?;
        let made = |error| LogError::Options(format!("the kafka client cannot be set up: {error}"));
        let mut config = options.consumer(group_of_readers());
        config.remove("group.id");
        let client: BaseConsumer<Quiet> = config.create_with_context(Quiet).map_err(made)?;
        let client = Arc::new(client);
        let asked = client.clone();
        let brokers = options.brokers.clone();
        let cluster = blocking(move || {
            let metadata = asked.client().fetch_metadata(None, PATIENCE);
            metadata.map_err(|error| unavailable(&format!("no cluster at {brokers}"), &error))?;
            let id = asked.client().fetch_cluster_id(PATIENCE);
            id.ok_or_else(|| LogError::Unavailable("kafka: the cluster does not tell its id".into()))
        })
        .await?;
        let inner = Arc::new(Inner {
            admin: options.client().create_with_context(Quiet).map_err(made)?,
            producer: options.producer().create_with_context(Quiet).map_err(made)?,
            registry: Registry::new(&options.registry)?,
            client,
            options,
            topics: Mutex::default(),
            partitioners: Mutex::default(),
            members: Mutex::default(),
            askers: Mutex::default(),
            transactions: Mutex::default(),
            readers: Mutex::default(),
            threads: TaskTracker::new(),
            closed: CancellationToken::new(),
        });
        let log = Self { inner, cluster };
        log.read_partitioners().await?;
        Ok(log)
    }

    /// What the cluster lacks of these topics, in words; production demands three copies of which two are in sync.
    pub async fn check_topics(&self, wanted: &[TopicSpec], production: bool) -> Result<Vec<String>, LogError> {
        self.inner.complaints(wanted, production).await
    }

    async fn read_partitioners(&self) -> Result<(), LogError> {
        let counts = self.inner.refresh().await?;
        let found = partitioners::read(&self.inner, &counts).await?;
        *lock(&self.inner.partitioners) = found;
        Ok(())
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, LogError> {
        self.inner.open()?;
        let placed = self.inner.place(records).await?;
        self.inner.send(placed).await
    }

    async fn append_and_advance(
        &self,
        group: &Group,
        records: Vec<NewRecord>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<Position>, LogError> {
        self.inner.open()?;
        let placed = self.inner.place(records).await?;
        self.inner.check(upto).await?;
        self.inner.append_and_advance(group, placed, from, upto).await
    }

    async fn subscribe(&self, group: &Group, topics: &[TopicName]) -> Result<RecordStream, LogError> {
        self.inner.open()?;
        for topic in topics {
            self.inner.partitions(topic).await?;
        }
        let names: Vec<&str> = topics.iter().map(TopicName::as_str).collect();
        self.inner.subscribe(group, &names)
    }

    async fn follow(&self, from: &Positions) -> Result<RecordStream, LogError> {
        self.inner.open()?;
        self.inner.check(from).await?;
        self.inner.follow(from)
    }

    async fn read(&self, at: &TopicPartition, from: u64, max: usize) -> Result<Vec<Record>, LogError> {
        self.inner.open()?;
        self.inner.check(&Positions::from_iter([(at.clone(), from)])).await?;
        self.inner.read(at, from, max).await
    }

    async fn commit(&self, group: &Group, positions: &Positions) -> Result<(), LogError> {
        self.inner.open()?;
        if positions.is_empty() {
            return Ok(());
        }
        self.inner.check(positions).await?;
        // What the transactions remember is no longer so.
        self.inner.transactions(group).lock().await.forget_positions();
        self.inner.commit(group, positions).await
    }

    async fn committed(&self, group: &Group) -> Result<Positions, LogError> {
        self.inner.open()?;
        self.inner.committed(group).await
    }

    async fn groups(&self) -> Result<Vec<GroupDescription>, LogError> {
        self.inner.open()?;
        self.inner.groups().await
    }

    async fn ends(&self, topic: &TopicName) -> Result<Positions, LogError> {
        self.inner.open()?;
        self.inner.ends_of(&self.inner.partitions_of(topic).await?).await
    }

    async fn positions_for_time(&self, topic: &TopicName, time: Timestamp) -> Result<Positions, LogError> {
        self.inner.open()?;
        self.inner.at_time(topic, time).await
    }

    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        self.inner.open()?;
        self.inner.make_topics(topics).await?;
        self.read_partitioners().await
    }

    async fn describe(&self) -> Result<Vec<TopicDescription>, LogError> {
        self.inner.open()?;
        self.inner.describe_topics().await
    }

    async fn delete_records(&self, before: &Positions) -> Result<(), LogError> {
        self.inner.open()?;
        self.inner.check(before).await?;
        self.inner.delete_below(before).await
    }

    async fn put_schema(&self, event: &str, json: &str) -> Result<SchemaId, LogError> {
        self.inner.open()?;
        Ok(SchemaId::Registry(self.inner.registry.put(event, json).await?))
    }

    async fn schema(&self, id: SchemaId) -> Result<Option<String>, LogError> {
        self.inner.open()?;
        match id {
            SchemaId::Registry(id) => self.inner.registry.schema(id).await,
            // Single-object encoding names no registry; what this program knows, the decoder has already.
            SchemaId::Fingerprint(_) => Ok(None),
        }
    }

    fn identity(&self) -> &str {
        &self.cluster
    }

    async fn recognise(&self, log: &str, positions: &Positions) -> Result<Option<Foreign>, LogError> {
        if log != self.cluster {
            return Ok(Some(Foreign::UnknownOpening { checkpoint: log.to_owned() }));
        }
        // A topic that was deleted and made anew ends before the checkpoint, or is not there.
        let mut ends = Positions::new();
        let counts = self.inner.refresh().await?;
        let there = |at: &TopicPartition| counts.get(&at.topic).is_some_and(|count| at.partition < *count);
        let known: Vec<_> = positions.iter().map(|(at, _)| at.clone()).filter(there).collect();
        ends.merge(&self.inner.ends_of(&known).await?);
        let past = positions.iter().find(|(at, next)| *next > ends.next(at));
        Ok(past.map(|(at, next)| Foreign::PastEnd { at: at.clone(), next, end: ends.next(at) }))
    }

    async fn size(&self) -> Result<Option<u64>, LogError> {
        Ok(None)
    }

    async fn close(&self) {
        self.inner.closed.cancel();
        self.inner.threads.close();
        if tokio::time::timeout(PATIENCE, self.inner.threads.wait()).await.is_err() {
            tracing::warn!("a reader of kafka did not end in time");
        }
        let inner = self.inner.clone();
        let flushed = blocking(move || {
            lock(&inner.askers).clear();
            lock(&inner.readers).clear();
            inner.producer.flush(PATIENCE * 2).map_err(|error| unavailable("not everything was sent", &error))
        });
        if let Err(error) = flushed.await {
            tracing::error!(%error, "the log was not closed cleanly");
        }
    }
}
