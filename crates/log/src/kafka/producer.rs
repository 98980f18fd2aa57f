//! Appending without a group: the idempotent producer.

use std::sync::Arc;
use std::time::Duration;

use carbon_core::{Position, TopicPartition};
use carbon_schemas::{SchemaId, frame};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::{DeliveryFuture, FutureRecord};
use rdkafka::producer::{FutureProducer, Producer as _};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::client::{TracingContext, partition_number, topic_error, unavailable};
use super::registry::SchemaRegistry;
use super::topic_cache::TopicCache;
use crate::error::LogError;
use crate::record::{NewRecord, Value};
use crate::validate;

pub(super) type ProducerClient = FutureProducer<TracingContext>;

/// Pause before a record is offered again to a client whose queue is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// Bytes that are added per header for its two lengths when a record's size is checked.
const HEADER_OVERHEAD_BYTES: usize = 8;

/// A valid record with its partition and its framed value.
#[derive(Clone, Debug)]
pub(super) struct FramedRecord {
    pub at: TopicPartition,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl FramedRecord {
    fn future_record(&self) -> FutureRecord<'_, [u8], [u8]> {
        let mut record = FutureRecord::to(self.at.topic.as_str()).partition(partition_number(self.at.partition));
        record.key = self.key.as_deref();
        record.payload = self.value.as_deref();
        if !self.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(self.headers.len());
            record.headers = Some(
                self.headers
                    .iter()
                    .fold(headers, |headers, (name, value)| headers.insert(Header { key: name, value: Some(value) })),
            );
        }
        record
    }
}

/// Puts a record into the client's queue. Waits while the queue is full.
pub(super) async fn enqueue(client: &ProducerClient, record: &FramedRecord) -> Result<DeliveryFuture, KafkaError> {
    loop {
        match client.send_result(record.future_record()) {
            Ok(delivery) => return Ok(delivery),
            Err((KafkaError::MessageProduction(Code::QueueFull), _)) => tokio::time::sleep(QUEUE_FULL_PAUSE).await,
            Err((error, _)) => return Err(error),
        }
    }
}

/// Waits for the broker's acknowledgement, and returns the record's position.
pub(super) async fn acknowledged(at: &TopicPartition, delivery: DeliveryFuture) -> Result<Position, KafkaError> {
    match delivery.await {
        Ok(Ok(delivery)) => {
            let offset = u64::try_from(delivery.offset).map_err(|_| KafkaError::MessageProduction(Code::BadMessage))?;
            Ok(Position::new(at.topic.clone(), at.partition, offset))
        }
        Ok(Err((error, _))) => Err(error),
        Err(_) => Err(KafkaError::Canceled),
    }
}

/// Owns the idempotent producer, and validates records for all producers.
pub(super) struct IdempotentProducer {
    client: ProducerClient,
    topics: Arc<TopicCache>,
    registry: Arc<SchemaRegistry>,
}

impl IdempotentProducer {
    pub fn new(client: ProducerClient, topics: Arc<TopicCache>, registry: Arc<SchemaRegistry>) -> Self {
        Self { client, topics, registry }
    }

    /// Validates records, and assigns each its partition and frame. Fails as a whole if one record is not valid.
    pub async fn validate(&self, records: Vec<NewRecord>) -> Result<Vec<FramedRecord>, LogError> {
        let mut framed = Vec::with_capacity(records.len());
        for record in records {
            let partitions = self.topics.partition_count(&record.topic).await?;
            let partition = validate::partition(&record, self.topics.partitioner(&record.topic), partitions)?;
            let value = match record.value {
                Value::Null => None,
                Value::Body { schema, avro } => {
                    // The size is checked first: a body that is too large needs no request to the registry.
                    validate::check_body(&record.topic, &avro)?;
                    let id = self.registry.id(record.topic.as_str(), schema).await?;
                    Some(frame(SchemaId::Registry(id), &avro))
                }
                Value::Raw(bytes) => Some(bytes),
            };
            let header_bytes =
                record.headers.iter().map(|(name, value)| name.len() + value.len() + HEADER_OVERHEAD_BYTES).sum();
            validate::check_size(&record.topic, record.key.as_deref(), value.as_deref(), header_bytes)?;
            let at = TopicPartition::new(record.topic, partition);
            framed.push(FramedRecord { at, key: record.key, value, headers: record.headers });
        }
        Ok(framed)
    }

    /// Sends records. Returns their positions when all in-sync replicas have all records.
    pub async fn send(&self, records: Vec<FramedRecord>) -> Result<Vec<Position>, LogError> {
        let mut deliveries = Vec::with_capacity(records.len());
        for record in &records {
            deliveries.push(enqueue(&self.client, record).await);
        }
        let mut accepted = Vec::with_capacity(records.len());
        let mut failure = None;
        for (record, delivery) in records.iter().zip(deliveries) {
            let outcome = match delivery {
                Ok(delivery) => acknowledged(&record.at, delivery).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(position) => accepted.push(Some(position)),
                Err(error) => {
                    accepted.push(None);
                    failure.get_or_insert_with(|| topic_error(&record.at.topic, "appending a record failed", &error));
                }
            }
        }
        match failure {
            None => Ok(accepted.into_iter().flatten().collect()),
            Some(error) if accepted.iter().all(Option::is_none) => {
                // The topic may have been deleted or created again.
                self.topics.evict();
                Err(error)
            }
            Some(error) => Err(LogError::Partial { accepted, message: error.to_string() }),
        }
    }

    /// Blocks until all queued records are sent, at most for `timeout`.
    pub fn flush(&self, timeout: Duration) -> Result<(), LogError> {
        self.client.flush(timeout).map_err(|error| unavailable("flushing the producer failed", &error))
    }
}
