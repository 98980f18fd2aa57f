//! The topology after the checks.

use std::collections::BTreeMap;
use std::time::Duration;

use carbon_core::{Classify, Fault, Retention, Retry, TopicName, TopicSpec};

use crate::check::{self, Mistake};
use crate::file::{CutOver, File, FileTopic, GroupPer, ProcessorKind, ReadModelKind};

/// Errors of reading a topology.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    #[error("topology: {0}")]
    Syntax(String),
    #[error("topology: {} mistakes:\n{}", .0.len(), list(.0))]
    Mistakes(Vec<Mistake>),
}

fn list(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(|mistake| format!("  {mistake}")).collect::<Vec<_>>().join("\n")
}

impl Classify for TopologyError {
    fn fault(&self) -> Fault {
        Fault::User
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }
}

/// A topic, and the fields of its key and of its partition key.
#[derive(Clone, Debug)]
pub struct Topic {
    pub spec: TopicSpec,
    pub key: Vec<String>,
    pub partition_key: Vec<String>,
}

/// Limits of a processor's batch.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    pub records: usize,
    pub linger: Duration,
}

#[derive(Clone, Debug)]
pub struct Processor {
    pub name: String,
    pub kind: ProcessorKind,
    pub consumes: Vec<TopicName>,
    pub produces: Vec<TopicName>,
    pub writes: Option<String>,
    pub group: GroupPer,
    pub batch: Batch,
}

#[derive(Clone, Debug)]
pub struct ReadModel {
    pub name: String,
    pub kind: ReadModelKind,
    /// The embedding model. Indexes only.
    pub model: Option<String>,
    pub cut_over: CutOver,
    pub horizon: Option<Duration>,
}

/// The topics, processors and read models of the platform.
#[derive(Clone, Debug)]
pub struct Topology {
    pub topics: BTreeMap<String, Topic>,
    pub processors: BTreeMap<String, Processor>,
    pub read_models: BTreeMap<String, ReadModel>,
}

impl Topology {
    /// The topology that is compiled into this program.
    pub fn builtin() -> Result<Self, TopologyError> {
        Self::parse(include_str!("../../../topology.yaml"))
    }

    /// Parses and checks a topology. The error lists all mistakes.
    pub fn parse(text: &str) -> Result<Self, TopologyError> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| TopologyError::Syntax(error.to_string()))?;
        let mistakes = check::check(&file);
        if !mistakes.is_empty() {
            return Err(TopologyError::Mistakes(mistakes));
        }
        Self::typed(file)
    }

    fn typed(file: File) -> Result<Self, TopologyError> {
        let name = |text: &str| TopicName::parse(text).map_err(|error| TopologyError::Syntax(error.to_string()));
        let names = |list: &[String]| list.iter().map(|text| name(text)).collect::<Result<Vec<_>, _>>();
        let mut topology = Self { topics: BTreeMap::new(), processors: BTreeMap::new(), read_models: BTreeMap::new() };
        for (topic, declared) in file.topics {
            let spec = spec(name(&topic)?, &declared);
            let partition_key = declared.partition_key.unwrap_or_else(|| declared.key.clone());
            topology.topics.insert(topic, Topic { spec, key: declared.key, partition_key });
        }
        for (processor, declared) in file.processors {
            let batch = Batch {
                records: declared.batch.records,
                linger: declared.batch.linger.unwrap_or(Duration::from_millis(20)),
            };
            let typed = Processor {
                name: processor.clone(),
                kind: declared.kind,
                consumes: names(&declared.consumes)?,
                produces: names(&declared.produces)?,
                writes: declared.writes,
                group: declared.group,
                batch,
            };
            topology.processors.insert(processor, typed);
        }
        for (read_model, declared) in file.read_models {
            let typed = ReadModel {
                name: read_model.clone(),
                kind: declared.kind,
                model: declared.model,
                cut_over: declared.cut_over,
                horizon: declared.horizon,
            };
            topology.read_models.insert(read_model, typed);
        }
        Ok(topology)
    }

    pub fn specs(&self) -> Vec<TopicSpec> {
        self.topics.values().map(|topic| topic.spec.clone()).collect()
    }

    /// Returns the processor that writes a read model.
    pub fn owner(&self, read_model: &str) -> Option<&Processor> {
        self.processors.values().find(|processor| processor.writes.as_deref() == Some(read_model))
    }
}

fn spec(name: TopicName, declared: &FileTopic) -> TopicSpec {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let mut retention = Retention { retention_ms: declared.retention.map(ms), ..Retention::default() };
    if let Some(lag) = declared.min_compaction_lag {
        retention.min_compaction_lag_ms = ms(lag);
    }
    if let Some(nulls) = declared.delete_retention {
        retention.delete_retention_ms = ms(nulls);
    }
    let (partitions, cleanup, partitioner) = (declared.partitions, declared.cleanup, declared.partitioner);
    TopicSpec { name, partitions, cleanup, partitioner, retention }
}
