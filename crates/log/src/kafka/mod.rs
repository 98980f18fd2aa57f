//! The log on Apache Kafka, or on any cluster that librdkafka supports. Values are in the Confluent wire format. A
//! schema registry is required.
//!
//! Each part of the log's state has one owner: [`TopicCache`] the topic metadata, [`ReaderPool`] the idle readers,
//! [`ConsumerGroups`] the members and the offset clients, [`Subscriptions`] the polling threads, [`IdempotentProducer`]
//! and [`TransactionalProducers`] the producers, [`SchemaRegistry`] ids and schemas. [`MetadataClient`] and
//! [`TopicAdmin`] own a client each. [`KafkaLog`] connects them.

mod client;
mod end_tracker;
mod groups;
mod member;
mod metadata;
mod options;
mod partitioners;
mod producer;
mod reader;
mod registry;
mod schemas;
mod subscription;
mod topic_cache;
mod topics;
mod transactions;

use std::sync::Arc;

use async_trait::async_trait;
use carbon_core::{Position, Positions, Timestamp, TopicName, TopicPartition, TopicSpec};
use carbon_schemas::SchemaId;
use tokio_util::sync::CancellationToken;

use crate::error::LogError;
use crate::event_log::{EventLog, Foreign, Group, GroupDescription, TopicDescription};
use crate::record::{NewRecord, Record};
use crate::stream::RecordStream;
use client::{REQUEST_TIMEOUT, TracingContext, blocking};
use groups::ConsumerGroups;
use metadata::MetadataClient;
use producer::IdempotentProducer;
use reader::ReaderPool;
use registry::SchemaRegistry;
use subscription::Subscriptions;
use topic_cache::TopicCache;
use topics::TopicAdmin;
use transactions::TransactionalProducers;

pub use options::KafkaOptions;
pub use schemas::Registration;

/// The log on a Kafka cluster.
pub struct KafkaLog {
    /// The id of the cluster.
    cluster: String,
    metadata: MetadataClient,
    topics: Arc<TopicCache>,
    admin: TopicAdmin,
    producer: Arc<IdempotentProducer>,
    transactions: TransactionalProducers,
    groups: Arc<ConsumerGroups>,
    readers: Arc<ReaderPool>,
    subscriptions: Subscriptions,
    registry: Arc<SchemaRegistry>,
    /// Cancelled when the log is closed.
    closed: CancellationToken,
}

impl KafkaLog {
    /// Connects to the cluster. Fails with [`LogError::Unavailable`] if no broker answers within 10 s; the caller may
    /// retry.
    pub async fn connect(options: KafkaOptions) -> Result<Self, LogError> {
        options.check()?;
        let invalid = |error| LogError::Options(format!("the kafka client cannot be configured: {error}"));
        let metadata = MetadataClient::new(&options).map_err(invalid)?;
        let cluster = metadata.cluster_id(&options.brokers).await?;
        let admin = options.client().create_with_context(TracingContext).map_err(invalid)?;
        let producer = options.producer().create_with_context(TracingContext).map_err(invalid)?;
        let registry = Arc::new(SchemaRegistry::new(&options.registry)?);
        let (options, closed) = (Arc::new(options), CancellationToken::new());
        let topics = Arc::new(TopicCache::new(metadata.clone()));
        let producer = Arc::new(IdempotentProducer::new(producer, topics.clone(), registry.clone()));
        let readers = Arc::new(ReaderPool::new(options.clone(), metadata.clone(), closed.clone()));
        let groups = Arc::new(ConsumerGroups::new(options.clone(), metadata.clone(), topics.clone()));
        let log = Self {
            cluster,
            admin: TopicAdmin::new(
                admin,
                options.replication,
                metadata.clone(),
                topics.clone(),
                readers.clone(),
                producer.clone(),
            ),
            transactions: TransactionalProducers::new(options.clone(), groups.clone()),
            subscriptions: Subscriptions::new(options, groups.clone(), readers.clone(), closed.clone()),
            metadata,
            topics,
            producer,
            groups,
            readers,
            registry,
            closed,
        };
        log.admin.refresh_cache().await?;
        Ok(log)
    }

    /// The differences between the cluster's topics and `wanted`, one message each. Production requires 3 replicas and
    /// `min.insync.replicas` 2.
    pub async fn check_topics(&self, wanted: &[TopicSpec], production: bool) -> Result<Vec<String>, LogError> {
        self.admin.differences(wanted, production).await
    }

    /// Fails if the log is closed.
    fn check_open(&self) -> Result<(), LogError> {
        if self.closed.is_cancelled() { Err(LogError::Closed) } else { Ok(()) }
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, LogError> {
        self.check_open()?;
        let records = self.producer.validate(records).await?;
        self.producer.send(records).await
    }

    async fn append_and_advance(
        &self,
        group: &Group,
        records: Vec<NewRecord>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<Position>, LogError> {
        self.check_open()?;
        let records = self.producer.validate(records).await?;
        self.topics.check(upto).await?;
        self.transactions.append_and_advance(group, records, from, upto).await
    }

    async fn subscribe(&self, group: &Group, topics: &[TopicName]) -> Result<RecordStream, LogError> {
        self.check_open()?;
        for topic in topics {
            self.topics.partition_count(topic).await?;
        }
        let names: Vec<&str> = topics.iter().map(TopicName::as_str).collect();
        self.subscriptions.subscribe(group, &names)
    }

    async fn follow(&self, from: &Positions) -> Result<RecordStream, LogError> {
        self.check_open()?;
        self.topics.check(from).await?;
        self.subscriptions.follow(from)
    }

    async fn read(&self, at: &TopicPartition, from: u64, max: usize) -> Result<Vec<Record>, LogError> {
        self.check_open()?;
        self.topics.check(&Positions::from_iter([(at.clone(), from)])).await?;
        self.readers.read(at, from, max).await
    }

    async fn commit(&self, group: &Group, positions: &Positions) -> Result<(), LogError> {
        self.check_open()?;
        if positions.is_empty() {
            return Ok(());
        }
        self.topics.check(positions).await?;
        self.transactions.evict_offsets(group).await;
        self.groups.commit(group, positions).await
    }

    async fn committed(&self, group: &Group) -> Result<Positions, LogError> {
        self.check_open()?;
        self.groups.committed(group).await
    }

    async fn groups(&self) -> Result<Vec<GroupDescription>, LogError> {
        self.check_open()?;
        self.groups.describe().await
    }

    async fn ends(&self, topic: &TopicName) -> Result<Positions, LogError> {
        self.check_open()?;
        self.metadata.end_offsets(&self.topics.partitions(topic).await?).await
    }

    async fn positions_for_time(&self, topic: &TopicName, time: Timestamp) -> Result<Positions, LogError> {
        self.check_open()?;
        self.metadata.offsets_for_time(&self.topics.partitions(topic).await?, time).await
    }

    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        self.check_open()?;
        self.admin.ensure(topics).await?;
        self.admin.refresh_cache().await
    }

    async fn describe(&self) -> Result<Vec<TopicDescription>, LogError> {
        self.check_open()?;
        self.admin.describe().await
    }

    async fn delete_records(&self, before: &Positions) -> Result<(), LogError> {
        self.check_open()?;
        self.topics.check(before).await?;
        self.admin.delete_records(before).await
    }

    async fn put_schema(&self, event: &str, json: &str) -> Result<SchemaId, LogError> {
        self.check_open()?;
        Ok(SchemaId::Registry(self.registry.put(event, json).await?))
    }

    async fn schema(&self, id: SchemaId) -> Result<Option<String>, LogError> {
        self.check_open()?;
        match id {
            SchemaId::Registry(id) => self.registry.schema(id).await,
            // A fingerprint belongs to single-object encoding, which uses no registry. The decoder knows the
            // fingerprints of the compiled-in schemas.
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
        // If a topic was deleted, or deleted and created again, its end offset is below the checkpoint.
        let counts = self.topics.refresh().await?;
        let exists = |at: &TopicPartition| counts.get(&at.topic).is_some_and(|count| at.partition < *count);
        let existing: Vec<_> = positions.iter().map(|(at, _)| at.clone()).filter(exists).collect();
        let ends = self.metadata.end_offsets(&existing).await?;
        let past = positions.iter().find(|(at, next)| *next > ends.next(at));
        Ok(past.map(|(at, next)| Foreign::PastEnd { at: at.clone(), next, end: ends.next(at) }))
    }

    async fn size(&self) -> Result<Option<u64>, LogError> {
        Ok(None)
    }

    async fn close(&self) {
        self.closed.cancel();
        self.subscriptions.close().await;
        let (groups, readers, producer) = (self.groups.clone(), self.readers.clone(), self.producer.clone());
        let flushed = blocking(move || {
            groups.close();
            readers.close();
            producer.flush(REQUEST_TIMEOUT * 2)
        });
        if let Err(error) = flushed.await {
            tracing::error!(%error, "closing the log failed; records that were not acknowledged may be lost");
        }
    }
}
