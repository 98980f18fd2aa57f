//! The event log, the only source of truth (law 1): the trait [`EventLog`], and its implementations on SQLite
//! ([`EmbeddedLog`]) and Kafka ([`KafkaLog`]).

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
