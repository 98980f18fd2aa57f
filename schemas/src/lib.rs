//! Events of the log: typed payloads, record keys, limits, the codec, and the decoder. The decoder is the only place
//! that decides whether a record is poison (law 10). `<event>/NNN.avsc` are the released versions of a schema; the
//! highest number is the current one.

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
