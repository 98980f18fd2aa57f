//! The events of the log. `<event>/NNN.avsc` holds every released version of a schema; the highest
//! is current. This crate types them: payloads, keys, limits, codec, and the one decoder that tells
//! a good record from poison (law 10).

mod codec;
mod compat;
mod decode;
mod event;
pub mod events;
#[doc(hidden)]
pub mod feed;
mod reading;
mod versions;

pub use codec::{CodecError, Framed, MAX_RECORD_BYTES, SchemaId, encode, frame, unframe};
pub use compat::{Incompatible, check_all};
pub use decode::{DecodeError, Decoded, Decoder, Poison, PoisonReason, RawRecord, Recorded};
pub use event::{Event, EventSchema, Limits};
pub use feed::Feed;
pub use versions::{Fingerprint, SchemaVersion, current, event_names, key_fields, parse, versions};
