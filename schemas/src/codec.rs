//! Avro binary, and its two frames: single-object encoding (embedded log) and the Confluent wire
//! format (Kafka). A reader tells them apart by the first byte.

use std::fmt;

use carbon_core::{Classify, Fault, Retry};

use crate::event::Event;
use crate::versions::Fingerprint;

/// The largest record, framed: topics, producers, the embedded log and HTTP agree on it.
pub const MAX_RECORD_BYTES: usize = 8 * 1024 * 1024;

const SINGLE_OBJECT: [u8; 2] = [0xC3, 0x01];
const CONFLUENT: u8 = 0x00;

/// Which schema wrote a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchemaId {
    /// Single-object encoding.
    Fingerprint(Fingerprint),
    /// A schema registry's number.
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

/// A value taken out of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framed<'a> {
    pub schema: SchemaId,
    pub body: &'a [u8],
}

/// Why an event cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("{event}: {message}")]
    Invalid { event: &'static str, message: String },
    #[error("{event}: {bytes} bytes encoded, at most {MAX_RECORD_BYTES} are taken")]
    TooLarge { event: &'static str, bytes: usize },
    #[error("{event}: cannot be encoded: {source}")]
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

/// Encodes an event's body, without a frame, after checking its limits.
pub fn encode<E: Event>(event: &E) -> Result<Vec<u8>, CodecError> {
    let known = if event.is_unknown() { Err("a variant is `unknown`".into()) } else { Ok(()) };
    known
        .and_then(|()| event.check())
        .and_then(|()| event.key().map(drop))
        .map_err(|message| CodecError::Invalid { event: E::NAME, message })?;
    let mut body = Vec::with_capacity(1024);
    E::schema()
        .writer
        .write_ser(&mut body, event)
        .map_err(|source| CodecError::Encode { event: E::NAME, source: Box::new(source) })?;
    match body.len() + 10 {
        bytes if bytes > MAX_RECORD_BYTES => Err(CodecError::TooLarge { event: E::NAME, bytes }),
        _ => Ok(body),
    }
}

/// Puts a body into the frame of `schema`.
pub fn frame(schema: SchemaId, body: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(body.len() + 10);
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

/// Takes a value out of its frame.
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
            "the value starts with {first:#04x} and has {} bytes: neither single-object encoding (c3 01) nor the confluent wire format (00)",
            value.len()
        )),
    }
}
