//! The decoder: the only place that decides whether a record is poison (law 10).

use std::collections::HashMap;
use std::fmt;

use apache_avro::Schema;
use carbon_core::{Partitioner, Position, TenantScope, Timestamp};

use crate::codec::{SchemaId, unframe};
use crate::event::Event;
use crate::reading::{DecodedBody, decode_other, decode_own};
use crate::versions::Fingerprint;

/// A record as the log stores it.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    pub position: &'a Position,
    pub timestamp: Timestamp,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(String, Vec<u8>)],
}

impl RawRecord<'_> {
    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
    }
}

/// The reason why a record is poison, as a stable code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoisonReason {
    Malformed,
    UnknownSchema,
    UnknownKind,
    WrongPartition,
    UnreadableKey,
    KeyMismatch,
    HeaderMismatch,
    FieldLimit,
    WrongDimension,
}

impl PoisonReason {
    pub fn as_str(self) -> &'static str {
        match self {
            PoisonReason::Malformed => "malformed",
            PoisonReason::UnknownSchema => "unknown_schema",
            PoisonReason::UnknownKind => "unknown_kind",
            PoisonReason::WrongPartition => "wrong_partition",
            PoisonReason::UnreadableKey => "unreadable_key",
            PoisonReason::KeyMismatch => "key_mismatch",
            PoisonReason::HeaderMismatch => "header_mismatch",
            PoisonReason::FieldLimit => "field_limit",
            PoisonReason::WrongDimension => "wrong_dimension",
        }
    }
}

impl fmt::Display for PoisonReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The fault of a poison record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poison {
    pub reason: PoisonReason,
    pub message: String,
}

/// The result of decoding a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded<E: Event> {
    Event {
        key: E::Key,
        event: E,
    },
    /// A null value: an erasure, or an embedding of a retired model.
    Null {
        key: E::Key,
    },
    /// Poison with a readable key in the key's partition. On a compacted topic it is the last record of its key.
    Quarantined {
        key: E::Key,
        poison: Poison,
    },
    /// Poison in the wrong partition or without a readable key. It has only a dead letter: no row and no output.
    Rejected {
        poison: Poison,
    },
}

impl<E: Event> Decoded<E> {
    pub fn poison(&self) -> Option<&Poison> {
        match self {
            Decoded::Quarantined { poison, .. } | Decoded::Rejected { poison } => Some(poison),
            Decoded::Event { .. } | Decoded::Null { .. } => None,
        }
    }

    /// The scope of the tenant that owns the event. Its key, headers and payload agree on the tenant.
    pub fn scope(&self) -> Option<TenantScope> {
        match self {
            Decoded::Event { event, .. } => event.tenant().cloned().map(TenantScope::authorised),
            _ => None,
        }
    }
}

/// A decoded record with its position and time: the input of folds and stages.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded<E: Event> {
    pub position: Position,
    /// The log-append time, which is the only clock of a fold (law 3).
    pub timestamp: Timestamp,
    pub traceparent: Option<String>,
    pub body: Decoded<E>,
}

/// The reasons why a record cannot be decoded now.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The writer's schema is not cached. The caller fetches it from the log, passes it to [`Decoder::learn`], and
    /// decodes again.
    #[error("the schema with {0} is not cached")]
    NeedSchema(SchemaId),
    /// A newer program wrote the record. The partition halts (law 13).
    #[error("{position}: needs {needs}; upgrade this program")]
    Newer { position: Position, needs: String },
}

/// A writer's schema.
enum WriterSchema {
    /// The current schema under another id.
    Own,
    Other(Box<Schema>),
}

/// Decodes the records of one topic.
pub struct Decoder<E: Event> {
    partitions: u32,
    partitioner: Partitioner,
    /// Writers' schemas by id; `None` for those that the log does not know.
    writers: HashMap<SchemaId, Option<WriterSchema>>,
    event: std::marker::PhantomData<fn() -> E>,
}

impl<E: Event> Decoder<E> {
    pub fn new(partitions: u32, partitioner: Partitioner) -> Self {
        // A hostile length must not make the Avro reader allocate more than 2 records.
        apache_avro::util::max_allocation_bytes(2 * crate::MAX_RECORD_BYTES);
        Self { partitions, partitioner, writers: HashMap::new(), event: std::marker::PhantomData }
    }

    /// Caches the log's answer about a schema: its JSON, or `None` if the log does not know the schema. `None` is valid
    /// for one record only, because a registry may get the schema later.
    pub fn learn(&mut self, id: SchemaId, json: Option<&str>) {
        let schema = json.and_then(|json| Schema::parse_str(json).ok());
        let writer = schema.map(|schema| match Fingerprint::of(&schema) == current_fingerprint::<E>() {
            true => WriterSchema::Own,
            false => WriterSchema::Other(Box::new(schema)),
        });
        self.writers.insert(id, writer);
    }

    /// Decodes a record of the topic. Fails only if a schema is missing or the record is newer than this binary; poison
    /// is a successful result.
    pub fn decode(&mut self, record: &RawRecord<'_>) -> Result<Decoded<E>, DecodeError> {
        let reject = |reason, message| Ok(Decoded::Rejected { poison: Poison { reason, message } });
        let key = match readable_key::<E>(record.key) {
            Ok(key) => key,
            Err(message) => return reject(PoisonReason::UnreadableKey, message),
        };
        let expected = self.partitioner.partition(E::partition_key(&key).as_bytes(), self.partitions);
        if expected != record.position.partition {
            let name = match self.partitioner {
                Partitioner::Murmur2 => "murmur2_random",
                Partitioner::Crc32 => "consistent_random",
            };
            let message = format!(
                "key {key} belongs to partition {expected} of {}, not {}: set the producer's partitioner={name}",
                self.partitions, record.position.partition
            );
            return reject(PoisonReason::WrongPartition, message);
        }
        let Some(value) = record.value else { return Ok(Decoded::Null { key }) };
        match self.decode_value(record, &key, value)? {
            Ok(event) => Ok(Decoded::Event { key, event }),
            Err(poison) => Ok(Decoded::Quarantined { key, poison }),
        }
    }

    fn decode_value(
        &mut self,
        record: &RawRecord<'_>,
        key: &E::Key,
        value: &[u8],
    ) -> Result<Result<E, Poison>, DecodeError> {
        let poison = |reason, message| Ok(Err(Poison { reason, message }));
        let framed = match unframe(value) {
            Ok(framed) => framed,
            Err(message) => return poison(PoisonReason::Malformed, message),
        };
        let body = if framed.schema == SchemaId::Fingerprint(current_fingerprint::<E>()) {
            decode_own::<E>(framed.body)
        } else {
            match self.writers.get(&framed.schema) {
                None => return Err(DecodeError::NeedSchema(framed.schema)),
                Some(None) => {
                    self.writers.remove(&framed.schema);
                    return poison(
                        PoisonReason::UnknownSchema,
                        format!("the log does not know the schema with {}", framed.schema),
                    );
                }
                Some(Some(WriterSchema::Own)) => decode_own::<E>(framed.body),
                Some(Some(WriterSchema::Other(writer))) => decode_other::<E>(writer, framed.body),
            }
        };
        let event = match body {
            DecodedBody::Event(event) => event,
            DecodedBody::Newer { needs } => {
                return Err(DecodeError::Newer { position: record.position.clone(), needs });
            }
            DecodedBody::Malformed(message) => return poison(PoisonReason::Malformed, message),
        };
        if event.is_unknown() {
            return poison(PoisonReason::UnknownKind, "the writer wrote a variant as `unknown`".into());
        }
        match event.key() {
            Ok(payload_key) if payload_key == *key => {}
            Ok(payload_key) => {
                let message = format!("the record's key is {key}, but the payload's fields give {payload_key}");
                return poison(PoisonReason::KeyMismatch, message);
            }
            Err(message) => {
                return poison(PoisonReason::KeyMismatch, format!("the payload's fields give no key: {message}"));
            }
        }
        if let Err(message) = check_headers(record, &event) {
            return poison(PoisonReason::HeaderMismatch, message);
        }
        match event.check() {
            Ok(()) => Ok(Ok(event)),
            Err(message) => poison(PoisonReason::FieldLimit, message),
        }
    }
}

fn current_fingerprint<E: Event>() -> Fingerprint {
    E::schema().version.fingerprint
}

fn readable_key<E: Event>(key: Option<&[u8]>) -> Result<E::Key, String> {
    let key = key.ok_or("the record has no key")?;
    let text = std::str::from_utf8(key).map_err(|_| "the key is not UTF-8")?;
    E::parse_key(text)
}

/// Checks that the headers `tenant_id` and `event_id`, where present, equal the payload's fields.
fn check_headers<E: Event>(record: &RawRecord<'_>, event: &E) -> Result<(), String> {
    let tenant = event.tenant().map(|tenant| tenant.as_str());
    for (name, header) in record.headers {
        match name.as_str() {
            "tenant_id" if tenant.map(str::as_bytes) != Some(header) => {
                let (header, tenant) = (String::from_utf8_lossy(header), tenant.unwrap_or("none"));
                return Err(format!("header tenant_id is {header:?}, but the payload has {tenant}"));
            }
            "event_id" => {
                let id = std::str::from_utf8(header).ok().and_then(|text| uuid::Uuid::try_parse(text).ok());
                if id != Some(event.event_id()) {
                    return Err("header event_id differs from the payload".into());
                }
            }
            _ => {}
        }
    }
    Ok(())
}
