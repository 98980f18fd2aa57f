//! `topology.yaml` as it is written, before the checks.

use std::collections::BTreeMap;
use std::time::Duration;

use carbon_core::{Cleanup, Partitioner};
use serde::{Deserialize, Deserializer};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub topics: BTreeMap<String, FileTopic>,
    pub processors: BTreeMap<String, FileProcessor>,
    pub read_models: BTreeMap<String, FileReadModel>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileTopic {
    pub key: Vec<String>,
    /// The fields of the partition key; by default the key.
    #[serde(default)]
    pub partition_key: Option<Vec<String>>,
    pub partitions: u32,
    #[serde(default)]
    pub partitioner: Partitioner,
    pub cleanup: Cleanup,
    #[serde(default, deserialize_with = "duration")]
    pub retention: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    pub min_compaction_lag: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    pub delete_retention: Option<Duration>,
}

/// The kind of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessorKind {
    /// Turns events into events.
    Stage,
    /// Folds events into a read model.
    Sink,
    /// Calls other systems because of events. It is never replayed.
    Effect,
}

/// The scope of a processor's consumer group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupPer {
    Model,
    Generation,
    /// One group for the processor, independent of generations.
    Processor,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileProcessor {
    pub kind: ProcessorKind,
    pub consumes: Vec<String>,
    #[serde(default)]
    pub produces: Vec<String>,
    #[serde(default)]
    pub writes: Option<String>,
    pub group: GroupPer,
    #[serde(default)]
    pub batch: FileBatch,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FileBatch {
    pub records: usize,
    #[serde(deserialize_with = "duration")]
    pub linger: Option<Duration>,
}

impl Default for FileBatch {
    fn default() -> Self {
        Self { records: 500, linger: None }
    }
}

/// The kind of a read model's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadModelKind {
    Relational,
    Index,
}

/// The party that activates a generation that is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutOver {
    #[default]
    Manual,
    Auto,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileReadModel {
    pub kind: ReadModelKind,
    #[serde(default)]
    pub model: Option<String>,
    #[serde(default)]
    pub cut_over: CutOver,
    /// States that a read model is rebuilt only from records of this age, because its topics have a retention (law 1).
    #[serde(default, deserialize_with = "duration")]
    pub horizon: Option<Duration>,
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    humantime::parse_duration(&text).map(Some).map_err(|error| serde::de::Error::custom(format!("{text:?}: {error}")))
}
