//! The one place where poison is told from good records (law 10).

use std::collections::HashMap;
use std::fmt;

use apache_avro::Schema;
use carbon_core::{Partitioner, Position, TenantScope, Timestamp};

use crate::codec::{SchemaId, unframe};
use crate::event::Event;
use crate::reading::{Read, read_other, read_own};
use crate::versions::Fingerprint;

/// A record as it lies in the log.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    pub position: &'a Position,
    pub timestamp: Timestamp,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(String, Vec<u8>)],
}

impl RawRecord<'_> {
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
    }
}

/// Why a record is poison: a stable code.
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

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poison {
    pub reason: PoisonReason,
    pub message: String,
}

/// What a record turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded<E: Event> {
    Event {
        key: E::Key,
        event: E,
    },
    /// A null value: erasure, or a retired model's embedding.
    Null {
        key: E::Key,
    },
    /// Poison with a readable key in its own partition: on a compacted topic it is its key's last record.
    Quarantined {
        key: E::Key,
        poison: Poison,
    },
    /// Poison in the wrong partition or without a readable key: no row, no output, only a dead letter.
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

    /// The scope of the tenant whose record it is: key, header and payload were found to agree.
    pub fn scope(&self) -> Option<TenantScope> {
        match self {
            Decoded::Event { event, .. } => event.tenant().cloned().map(TenantScope::authorised),
            _ => None,
        }
    }
}

/// A decoded record with its place and its time: what folds and stages take.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded<E: Event> {
    pub position: Position,
    /// Log-append time: the only clock of a fold (law 3).
    pub timestamp: Timestamp,
    pub traceparent: Option<String>,
    pub body: Decoded<E>,
}

/// Why a record cannot be decoded now.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Ask the log for this schema, [`Decoder::learn`] it, and decode again.
    #[error("the schema with {0} is not cached")]
    NeedSchema(SchemaId),
    /// A newer program wrote it: the partition stops (law 13).
    #[error("{position}: needs {needs}; upgrade this program")]
    Newer { position: Position, needs: String },
}

/// A writer's schema.
enum Writer {
    /// It is our own, under another id.
    Own,
    Other(Box<Schema>),
}

/// Decodes the records of one topic.
pub struct Decoder<E: Event> {
    partitions: u32,
    partitioner: Partitioner,
    /// Writer schemas by id; `None` for those that the log itself does not know.
    writers: HashMap<SchemaId, Option<Writer>>,
    event: std::marker::PhantomData<fn() -> E>,
}

impl<E: Event> Decoder<E> {
    pub fn new(partitions: u32, partitioner: Partitioner) -> Self {
        // Hostile lengths must not make the reader allocate more than a record can hold.
        apache_avro::util::max_allocation_bytes(2 * crate::MAX_RECORD_BYTES);
        Self { partitions, partitioner, writers: HashMap::new(), event: std::marker::PhantomData }
    }

    /// Takes the log's answer about a schema: its JSON, or that the log does not know it. The
    /// second is forgotten after the next record, since a registry may learn.
    pub fn learn(&mut self, id: SchemaId, json: Option<&str>) {
        let schema = json.and_then(|json| Schema::parse_str(json).ok());
        let writer = schema.map(|schema| match Fingerprint::of(&schema) == own::<E>() {
            true => Writer::Own,
            false => Writer::Other(Box::new(schema)),
        });
        self.writers.insert(id, writer);
    }

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
        match self.read(record, &key, value)? {
            Ok(event) => Ok(Decoded::Event { key, event }),
            Err(poison) => Ok(Decoded::Quarantined { key, poison }),
        }
    }

    fn read(&mut self, record: &RawRecord<'_>, key: &E::Key, value: &[u8]) -> Result<Result<E, Poison>, DecodeError> {
        let poison = |reason, message| Ok(Err(Poison { reason, message }));
        let framed = match unframe(value) {
            Ok(framed) => framed,
            Err(message) => return poison(PoisonReason::Malformed, message),
        };
        let read = if framed.schema == SchemaId::Fingerprint(own::<E>()) {
            read_own::<E>(framed.body)
        } else {
            match self.writers.get(&framed.schema) {
                None => return Err(DecodeError::NeedSchema(framed.schema)),
                Some(None) => {
                    self.writers.remove(&framed.schema);
                    return poison(
                        PoisonReason::UnknownSchema,
                        format!("the log knows no schema with {}", framed.schema),
                    );
                }
                Some(Some(Writer::Own)) => read_own::<E>(framed.body),
                Some(Some(Writer::Other(writer))) => read_other::<E>(writer, framed.body),
            }
        };
        let event = match read {
            Read::Event(event) => event,
            Read::Newer { needs } => return Err(DecodeError::Newer { position: record.position.clone(), needs }),
            Read::Malformed(message) => return poison(PoisonReason::Malformed, message),
        };
        if event.is_unknown() {
            return poison(PoisonReason::UnknownKind, "a variant is written as `unknown`".into());
        }
        match event.key() {
            Ok(own) if own == *key => {}
            Ok(own) => {
                return poison(PoisonReason::KeyMismatch, format!("the record's key is {key}, its payload says {own}"));
            }
            Err(message) => return poison(PoisonReason::KeyMismatch, format!("the payload's key fields: {message}")),
        }
        if let Err(message) = headers_agree(record, &event) {
            return poison(PoisonReason::HeaderMismatch, message);
        }
        match event.check() {
            Ok(()) => Ok(Ok(event)),
            Err(message) => poison(PoisonReason::FieldLimit, message),
        }
    }
}

fn own<E: Event>() -> Fingerprint {
    E::schema().version.fingerprint
}

fn readable_key<E: Event>(key: Option<&[u8]>) -> Result<E::Key, String> {
    let key = key.ok_or("the record has no key")?;
    let text = std::str::from_utf8(key).map_err(|_| "the key is not UTF-8")?;
    E::parse_key(text)
}

fn headers_agree<E: Event>(record: &RawRecord<'_>, event: &E) -> Result<(), String> {
    let tenant = event.tenant().map(|tenant| tenant.as_str());
    for (name, header) in record.headers {
        match name.as_str() {
            "tenant_id" if tenant.map(str::as_bytes) != Some(header) => {
                let (header, tenant) = (String::from_utf8_lossy(header), tenant.unwrap_or("none"));
                return Err(format!("header tenant_id is {header:?}, the payload says {tenant}"));
            }
            "event_id" => {
                let id = std::str::from_utf8(header).ok().and_then(|text| uuid::Uuid::try_parse(text).ok());
                if id != Some(event.event_id()) {
                    return Err("header event_id is not the payload's".into());
                }
            }
            _ => {}
        }
    }
    Ok(())
}
