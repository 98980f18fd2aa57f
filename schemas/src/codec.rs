//! Avro binary encoding and its two frames: single-object encoding (embedded log) and the Confluent wire format
//! (Kafka). The first byte distinguishes the frames.

use std::fmt;

use carbon_core::{Classify, Fault, Retry};

use crate::event::Event;
use crate::versions::Fingerprint;

/// Maximum size of a framed record: 8 MiB. Topics, producers, the embedded log and the HTTP API use the same limit.
pub const MAX_RECORD_BYTES: usize = 8 * 1024 * 1024;

const SINGLE_OBJECT: [u8; 2] = [0xC3, 0x01];
const CONFLUENT: u8 = 0x00;

/// Bytes of the longer frame, single-object encoding.
const MAX_FRAME_BYTES: usize = 10;

/// The id of the schema that a value was written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchemaId {
    /// In single-object encoding.
    Fingerprint(Fingerprint),
    /// In the Confluent wire format: the id that the schema registry assigned.
    Registry(u32),
}

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaId::Fingerprint(fingerprint) => write!(f, "fingerprint {fingerprint}"),
            SchemaId::Registry(id) => write!(f, "registry id {id}"),
        }
    }
}

/// A value without its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framed<'a> {
    pub schema: SchemaId,
    pub body: &'a [u8],
}

/// The reasons why an event cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("{event}: {message}")]
    Invalid { event: &'static str, message: String },
    #[error("{event}: {bytes} bytes encoded, at most {MAX_RECORD_BYTES} are allowed")]
    TooLarge { event: &'static str, bytes: usize },
    #[error("{event}: encoding failed: {source}")]
    Encode { event: &'static str, source: Box<apache_avro::Error> },
}

impl Classify for CodecError {
    fn fault(&self) -> Fault {
        match self {
            CodecError::Encode { .. } => Fault::Internal,
            _ => Fault::User,
        }
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }
}

/// Encodes an event's body, without a frame. Fails if the event exceeds a limit or contains an `unknown` variant.
pub fn encode<E: Event>(event: &E) -> Result<Vec<u8>, CodecError> {
    let known_variants = if event.is_unknown() { Err("a variant is `unknown`".into()) } else { Ok(()) };
    known_variants
        .and_then(|()| event.check())
        .and_then(|()| event.key().map(drop))
        .map_err(|message| CodecError::Invalid { event: E::NAME, message })?;
    let mut body = Vec::with_capacity(1024);
    E::schema()
        .writer
        .write_ser(&mut body, event)
        .map_err(|source| CodecError::Encode { event: E::NAME, source: Box::new(source) })?;
    match body.len() + MAX_FRAME_BYTES {
        bytes if bytes > MAX_RECORD_BYTES => Err(CodecError::TooLarge { event: E::NAME, bytes }),
        _ => Ok(body),
    }
}

/// Prepends the frame that names `schema` to a body.
pub fn frame(schema: SchemaId, body: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(body.len() + MAX_FRAME_BYTES);
    match schema {
        SchemaId::Fingerprint(fingerprint) => {
            framed.extend(SINGLE_OBJECT);
            framed.extend(fingerprint.0);
        }
        SchemaId::Registry(id) => {
            framed.push(CONFLUENT);
            framed.extend(id.to_be_bytes());
        }
    }
    framed.extend(body);
    framed
}

/// Splits a value into the id of its schema and the body.
pub fn unframe(value: &[u8]) -> Result<Framed<'_>, String> {
    match value {
        [0xC3, 0x01, a, b, c, d, e, f, g, h, body @ ..] => {
            let fingerprint = Fingerprint([*a, *b, *c, *d, *e, *f, *g, *h]);
            Ok(Framed { schema: SchemaId::Fingerprint(fingerprint), body })
        }
        [CONFLUENT, a, b, c, d, body @ ..] => {
            Ok(Framed { schema: SchemaId::Registry(u32::from_be_bytes([*a, *b, *c, *d])), body })
        }
        [] => Err("the value is empty".into()),
        [first, ..] => Err(format!(
            "the value starts with {first:#04x} and has {} bytes; expected single-object encoding (c3 01) or the Confluent \
             wire format (00)",
            value.len()
        )),
    }
}
