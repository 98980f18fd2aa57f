//! The log, the only source of truth (law 1): append and subscribe behind one trait.

mod embedded;
mod error;
mod event_log;
mod record;
mod stream;

pub use embedded::{CompactionReport, DataFolder, EmbeddedLog};
pub use error::LogError;
pub use event_log::{EventLog, Foreign, Group, TopicDescription};
pub use record::{NewRecord, Placement, Record, Value};
pub use stream::{Delivery, RecordStream};
