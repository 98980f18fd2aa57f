//! Records, to be appended and as they were read.

use bytes::Bytes;
use carbon_core::{Position, Timestamp, TopicName};
use carbon_schemas::{CodecError, Event, Fingerprint, RawRecord, encode};

/// Where a new record goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// To the partition of this key.
    ByKey(Vec<u8>),
    /// To this partition: a stage's output lies where its input lay (law 5).
    Partition(u32),
}

/// What a new record holds. The log puts a body into its own frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Erasure, or a retired model's embedding.
    Null,
    /// Avro, written by the schema of this fingerprint.
    Body { schema: Fingerprint, avro: Vec<u8> },
    /// Bytes as they are: from a foreign producer, or mended by hand.
    Raw(Vec<u8>),
}

/// A record to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    pub topic: TopicName,
    pub key: Option<Vec<u8>>,
    pub placement: Placement,
    pub value: Value,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl NewRecord {
    /// The record of an event, with its key, headers and place.
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

    /// A null value for a key.
    pub fn null<E: Event>(key: &E::Key) -> Result<Self, CodecError> {
        let topic = TopicName::parse(E::NAME)
            .map_err(|error| CodecError::Invalid { event: E::NAME, message: error.to_string() })?;
        let placement = Placement::ByKey(E::partition_key(key).into_bytes());
        Ok(Self { topic, key: Some(key.to_string().into_bytes()), placement, value: Value::Null, headers: Vec::new() })
    }

    pub fn in_partition(mut self, partition: u32) -> Self {
        self.placement = Placement::Partition(partition);
        self
    }

    pub fn with_header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// A record as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub position: Position,
    pub timestamp: Timestamp,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    pub fn raw(&self) -> RawRecord<'_> {
        RawRecord {
            position: &self.position,
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
        }
    }

    pub fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len)
    }
}
