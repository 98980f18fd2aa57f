//! Appending: records to their partitions, by the idempotent producer.

use carbon_core::{Position, TopicPartition};
use carbon_schemas::{SchemaId, frame};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::{DeliveryFuture, FutureRecord};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::Inner;
use super::client::{Quiet, number, of_topic};
use crate::error::LogError;
use crate::place;
use crate::record::{NewRecord, Value};

pub(super) type Producer = rdkafka::producer::FutureProducer<Quiet>;

/// A record whose partition and bytes are known.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub at: TopicPartition,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Placed {
    fn record(&self) -> FutureRecord<'_, [u8], [u8]> {
        let mut record = FutureRecord::to(self.at.topic.as_str()).partition(number(self.at.partition));
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

/// Hands a record to the producer; waits while its queue is full.
pub(super) async fn enqueue(producer: &Producer, placed: &Placed) -> Result<DeliveryFuture, KafkaError> {
    loop {
        match producer.send_result(placed.record()) {
            Ok(delivery) => return Ok(delivery),
            Err((KafkaError::MessageProduction(Code::QueueFull), _)) => {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Waits for the broker's word.
pub(super) async fn delivered(at: &TopicPartition, delivery: DeliveryFuture) -> Result<Position, KafkaError> {
    match delivery.await {
        Ok(Ok(delivery)) => {
            let offset = u64::try_from(delivery.offset).map_err(|_| KafkaError::MessageProduction(Code::BadMessage))?;
            Ok(Position::new(at.topic.clone(), at.partition, offset))
        }
        Ok(Err((error, _))) => Err(error),
        Err(_) => Err(KafkaError::Canceled),
    }
}

impl Inner {
    /// Checks a request as a whole, before anything of it is written.
    pub(super) async fn place(&self, records: Vec<NewRecord>) -> Result<Vec<Placed>, LogError> {
        let mut placed = Vec::with_capacity(records.len());
        for record in records {
            let partitions = self.partitions(&record.topic).await?;
            let partition = place::partition(&record, self.partitioner(&record.topic), partitions)?;
            let value = match record.value {
                Value::Null => None,
                Value::Body { schema, avro } => {
                    // The frame's length is known before the registry is asked.
                    place::check_body(&record.topic, &avro)?;
                    let id = self.registry.id(record.topic.as_str(), schema).await?;
                    Some(frame(SchemaId::Registry(id), &avro))
                }
                Value::Raw(bytes) => Some(bytes),
            };
            let headers = record.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
            place::check_size(&record.topic, record.key.as_deref(), value.as_deref(), headers)?;
            let at = TopicPartition::new(record.topic, partition);
            placed.push(Placed { at, key: record.key, value, headers: record.headers });
        }
        Ok(placed)
    }

    /// Sends records; answers their positions when all of them are in all in-sync replicas.
    pub(super) async fn send(&self, records: Vec<Placed>) -> Result<Vec<Position>, LogError> {
        let mut deliveries = Vec::with_capacity(records.len());
        for placed in &records {
            deliveries.push(enqueue(&self.producer, placed).await);
        }
        let mut accepted = Vec::with_capacity(records.len());
        let mut failure = None;
        for (placed, delivery) in records.iter().zip(deliveries) {
            let outcome = match delivery {
                Ok(delivery) => delivered(&placed.at, delivery).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(position) => accepted.push(Some(position)),
                Err(error) => {
                    accepted.push(None);
                    failure.get_or_insert_with(|| of_topic(&placed.at.topic, "a record was not taken", &error));
                }
            }
        }
        match failure {
            None => Ok(accepted.into_iter().flatten().collect()),
            Some(error) if accepted.iter().all(Option::is_none) => {
                // The topic may be gone, or somebody made it anew: look again the next time.
                self.topics().clear();
                Err(error)
            }
            Some(error) => Err(LogError::Partial { accepted, message: error.to_string() }),
        }
    }
}
