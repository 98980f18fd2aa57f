//! The writer of a log in memory.

use std::collections::BTreeMap;

use carbon_core::{Partitioner, Position, Timestamp, TopicName};
use carbon_read_models::registry::RegistryRecord;
use carbon_schemas::events::{
    ExperimentChanged, LoggedModelChanged, ModelPromoted, ModelRegistered, RunLogged, WebhookChanged,
};
use carbon_schemas::{Decoded, Event, Poison, PoisonReason, Recorded};

use crate::events::logged;

/// Any event of the registry's topics.
#[derive(Clone, Debug)]
pub enum Fact {
    Experiment(ExperimentChanged),
    Run(Box<RunLogged>),
    Model(Box<LoggedModelChanged>),
    Registered(Box<ModelRegistered>),
    Promoted(Box<ModelPromoted>),
    Webhook(Box<WebhookChanged>),
}

impl From<ModelRegistered> for Fact {
    fn from(event: ModelRegistered) -> Self {
        Self::Registered(Box::new(event))
    }
}

impl From<WebhookChanged> for Fact {
    fn from(event: WebhookChanged) -> Self {
        Self::Webhook(Box::new(event))
    }
}

impl From<ModelPromoted> for Fact {
    fn from(event: ModelPromoted) -> Self {
        Self::Promoted(Box::new(event))
    }
}

impl From<ExperimentChanged> for Fact {
    fn from(event: ExperimentChanged) -> Self {
        Self::Experiment(event)
    }
}

impl From<LoggedModelChanged> for Fact {
    fn from(event: LoggedModelChanged) -> Self {
        Self::Model(Box::new(event))
    }
}

impl From<RunLogged> for Fact {
    fn from(event: RunLogged) -> Self {
        Self::Run(Box::new(event))
    }
}

/// Gives events their positions, each in the partition of its key.
#[derive(Default)]
pub struct LogWriter {
    next: BTreeMap<(&'static str, u32), u64>,
}

impl LogWriter {
    fn place<E: Event>(&mut self, key: &E::Key, partitions: u32) -> Position {
        let partition = Partitioner::Murmur2.partition(E::partition_key(key).as_bytes(), partitions);
        let next = self.next.entry((E::NAME, partition)).or_default();
        *next += 1;
        Position::new(TopicName::parse(E::NAME).unwrap(), partition, *next - 1)
    }

    fn recorded<E: Event>(&mut self, event: E, partitions: u32) -> Recorded<E> {
        // An event that the decoder rejects never reaches the fold.
        event.check().unwrap();
        let key = event.key().unwrap();
        let position = self.place::<E>(&key, partitions);
        let body = Decoded::Event { key, event };
        Recorded { timestamp: Timestamp(position.offset as i64), position, traceparent: None, body }
    }

    pub fn write(&mut self, fact: impl Into<Fact>) -> RegistryRecord {
        match fact.into() {
            Fact::Experiment(event) => RegistryRecord::Experiment(self.recorded(event, 1)),
            Fact::Run(event) => RegistryRecord::Run(self.recorded(*event, 6)),
            Fact::Model(event) => RegistryRecord::LoggedModel(self.recorded(*event, 1)),
            Fact::Registered(event) => RegistryRecord::Model(self.recorded(*event, 1)),
            Fact::Promoted(event) => RegistryRecord::Promotion(self.recorded(*event, 1)),
            Fact::Webhook(event) => RegistryRecord::Webhook(self.recorded(*event, 1)),
        }
    }

    /// A record of a run that is poison.
    pub fn poison(&mut self, run_id: &str, rejected: bool) -> RegistryRecord {
        let key = logged(run_id).key().unwrap();
        let position = self.place::<RunLogged>(&key, 6);
        let poison = Poison { reason: PoisonReason::Malformed, message: "bad".into() };
        let body = if rejected { Decoded::Rejected { poison } } else { Decoded::Quarantined { key, poison } };
        RegistryRecord::Run(Recorded { timestamp: Timestamp(0), position, traceparent: None, body })
    }

    /// A null value for a run.
    pub fn null(&mut self, run_id: &str) -> RegistryRecord {
        let key = logged(run_id).key().unwrap();
        let position = self.place::<RunLogged>(&key, 6);
        let body = Decoded::Null { key };
        RegistryRecord::Run(Recorded { timestamp: Timestamp(0), position, traceparent: None, body })
    }
}
