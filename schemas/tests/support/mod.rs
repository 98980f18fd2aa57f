//! Test records, and shortcuts to decode them.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use apache_avro::writer::datum::GenericDatumWriter;
use carbon_core::{Metadata, MetadataValue, Partitioner, Position, TenantId, Timestamp, TopicName};
use carbon_schemas::events::{DeadLetter, DeadLetterKind, EmbeddingGenerated, EntityChanged, Source, vector_to_bytes};
use carbon_schemas::{DecodeError, Decoded, Decoder, Event, Fingerprint, Poison, RawRecord, SchemaId, frame};
use uuid::Uuid;

pub const PARTITIONS: u32 = 6;

/// A record before it is decoded. A test can change each part.
#[derive(Clone, Debug)]
pub struct Sent {
    pub partition: u32,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Sent {
    /// The record of an event, with its key and headers. The event's limits are not checked.
    pub fn of<E: Event>(event: &E) -> Self {
        let key = event.key().unwrap();
        let mut headers = vec![("event_id".to_owned(), event.event_id().to_string().into_bytes())];
        headers.extend(event.tenant().map(|tenant| ("tenant_id".to_owned(), tenant.as_str().as_bytes().to_vec())));
        Self { headers, ..Self::with_body::<E>(&key, &body(event)) }
    }

    /// A record with this body in the frame of the current schema, without headers.
    pub fn with_body<E: Event>(key: &E::Key, body: &[u8]) -> Self {
        let value = Some(frame(own_id::<E>(), body));
        let partition = Partitioner::Murmur2.partition(E::partition_key(key).as_bytes(), PARTITIONS);
        Self { partition, key: Some(key.to_string().into_bytes()), value, headers: vec![] }
    }

    pub fn header(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.push((name.to_owned(), value.to_vec()));
        self
    }

    pub fn without_headers(self) -> Self {
        Self { headers: vec![], ..self }
    }

    pub fn decode_by<E: Event>(&self, decoder: &mut Decoder<E>) -> Result<Decoded<E>, DecodeError> {
        let position = Position::new(TopicName::parse(E::NAME).unwrap(), self.partition, 42);
        decoder.decode(&RawRecord {
            position: &position,
            timestamp: Timestamp(1),
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
        })
    }

    pub fn decode<E: Event>(&self) -> Result<Decoded<E>, DecodeError> {
        self.decode_by(&mut decoder())
    }

    /// The poison of a record that must be quarantined: its key is readable and in the right partition.
    pub fn quarantined<E: Event>(&self) -> Poison {
        match self.decode::<E>().unwrap() {
            Decoded::Quarantined { key, poison } => {
                assert_eq!(Some(key.to_string().as_bytes()), self.key.as_deref());
                poison
            }
            other => panic!("the record must be quarantined: {other:?}"),
        }
    }

    /// The poison of a record that must be rejected.
    pub fn rejected<E: Event>(&self) -> Poison {
        match self.decode::<E>().unwrap() {
            Decoded::Rejected { poison } => poison,
            other => panic!("the record must be rejected: {other:?}"),
        }
    }

    /// The event of a record that must decode.
    pub fn accepted<E: Event>(&self) -> E {
        match self.decode::<E>().unwrap() {
            Decoded::Event { event, .. } => event,
            other => panic!("the record must decode: {other:?}"),
        }
    }
}

pub fn decoder<E: Event>() -> Decoder<E> {
    Decoder::new(PARTITIONS, Partitioner::Murmur2)
}

/// The id of the current schema.
pub fn own_id<E: Event>() -> SchemaId {
    SchemaId::Fingerprint(E::schema().version.fingerprint)
}

/// The id of a schema that the decoder does not know.
pub const UNKNOWN_SCHEMA_ID: SchemaId = SchemaId::Fingerprint(Fingerprint([0xEE; 8]));

/// Encodes an event's body without checking its limits.
pub fn body<E: Event>(event: &E) -> Vec<u8> {
    let schema = &E::schema().version.schema;
    let writer = GenericDatumWriter::builder(schema).validate(false).human_readable(false).build().unwrap();
    writer.write_ser_to_vec(event).unwrap()
}

pub fn metadata(value: MetadataValue) -> Metadata {
    [("key".to_owned(), value)].into()
}

pub fn entity() -> EntityChanged {
    EntityChanged {
        event_id: Uuid::from_u128(0x0190_b2a4_7c1e_7a00_8000_0000_0000_0001),
        occurred_at: Timestamp(1_767_225_600_123),
        tenant_id: TenantId::parse("acme").unwrap(),
        entity_type: "instrument".into(),
        entity_id: "NG_HH.BALMO-1".into(),
        text: "Henry Hub".into(),
        metadata: metadata(MetadataValue::Double(1.5)),
        tags: vec!["gas".into()],
        deleted: false,
    }
}

pub fn embedding() -> EmbeddingGenerated {
    let entity = entity();
    EmbeddingGenerated {
        event_id: entity.event_id,
        occurred_at: entity.occurred_at,
        tenant_id: entity.tenant_id,
        entity_type: entity.entity_type,
        entity_id: entity.entity_id,
        text: entity.text,
        metadata: entity.metadata,
        tags: entity.tags,
        deleted: false,
        reason: None,
        text_sha256: "0".repeat(64),
        model: "m@1@f32".into(),
        dimension: 2,
        vector: Some(vector_to_bytes(&[0.6, -0.8])),
        source: Source { topic: "ml.entity.changed.v1".into(), partition: 3, offset: 9 },
    }
}

pub fn dead_letter() -> DeadLetter {
    DeadLetter {
        event_id: Uuid::from_u128(7),
        occurred_at: Timestamp(0),
        tenant_id: None,
        kind: DeadLetterKind::Reported,
        source: Source { topic: "ml.entity.changed.v1".into(), partition: 3, offset: 9 },
        processor: "embedder".into(),
        reason: "malformed".into(),
        message: "it is".into(),
        key: None,
        payload: Some(vec![1, 2]),
        payload_truncated: false,
        headers: [("a".to_owned(), vec![9].into())].into(),
    }
}
