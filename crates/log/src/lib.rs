//! The log, the only source of truth (law 1): append and subscribe behind one trait.

mod embedded;
mod error;
mod event_log;
mod kafka;
mod record;
mod stream;
mod topics;
mod validate;

pub use embedded::{CompactionReport, DataFolder, EmbeddedLog};
pub use error::LogError;
pub use event_log::{EventLog, Foreign, Group, GroupDescription, TopicDescription};
pub use kafka::{KafkaLog, KafkaOptions, Registration};
pub use record::{NewRecord, Placement, Record, Value};
pub use stream::{Delivery, RecordStream};
