//! Records: new ones to append, and those read from the log.

use bytes::Bytes;
use carbon_core::{Position, Timestamp, TopicName};
use carbon_schemas::{CodecError, Event, Fingerprint, RawRecord, encode};

/// Selects the partition of a new record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The topic's partitioner hashes this key.
    ByKey(Vec<u8>),
    /// This partition. A stage writes each output to the partition number of its input (law 5).
    Partition(u32),
}

/// The value of a new record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A null value: an erasure, or an embedding of a retired model.
    Null,
    /// An Avro body, written with the schema of this fingerprint. Each log adds its own frame.
    Body { schema: Fingerprint, avro: Vec<u8> },
    /// Bytes that are appended unchanged: from a foreign producer, or corrected by an operator.
    Raw(Vec<u8>),
}

/// A record to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    pub topic: TopicName,
    pub key: Option<Vec<u8>>,
    pub placement: Placement,
    pub value: Value,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl NewRecord {
    /// The record of an event, with the event's key, headers and placement.
    pub fn event<E: Event>(event: &E) -> Result<Self, CodecError> {
        let avro = encode(event)?;
        let key = event.key().map_err(|message| CodecError::Invalid { event: E::NAME, message })?;
        let mut headers = vec![("event_id".to_owned(), event.event_id().to_string().into_bytes())];
        if let Some(tenant) = event.tenant() {
            headers.push(("tenant_id".to_owned(), tenant.as_str().as_bytes().to_vec()));
        }
        headers.push(("content_type".to_owned(), b"application/avro".to_vec()));
        let value = Value::Body { schema: E::schema().version.fingerprint, avro };
        Ok(Self { value, headers, ..Self::null::<E>(&key)? })
    }

    /// A record with a null value for a key.
    pub fn null<E: Event>(key: &E::Key) -> Result<Self, CodecError> {
        let topic = TopicName::parse(E::NAME)
            .map_err(|error| CodecError::Invalid { event: E::NAME, message: error.to_string() })?;
        let placement = Placement::ByKey(E::partition_key(key).into_bytes());
        Ok(Self { topic, key: Some(key.to_string().into_bytes()), placement, value: Value::Null, headers: Vec::new() })
    }

    /// The same record, placed in this partition.
    pub fn in_partition(mut self, partition: u32) -> Self {
        self.placement = Placement::Partition(partition);
        self
    }

    /// The same record with one more header.
    pub fn with_header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// A record that was read from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub position: Position,
    /// Log-append time.
    pub timestamp: Timestamp,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// The record as the decoder takes it.
    pub fn raw(&self) -> RawRecord<'_> {
        RawRecord {
            position: &self.position,
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
        }
    }

    /// Size of key and value in bytes.
    pub fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len)
    }
}
