//! The file as it is written.

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
    /// The key, unless said otherwise.
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

/// What a processor does with events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessorKind {
    /// Events to events.
    Stage,
    /// Events to a read model.
    Sink,
    /// Events to calls of others; never replayed.
    Effect,
}

/// What a processor has a consumer group for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupPer {
    Model,
    Generation,
    /// One, whatever generations there are.
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

/// How a read model is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadModelKind {
    Relational,
    Index,
}

/// Who switches to a generation that is ready.
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
    /// What is kept for a time only says so (law 1).
    #[serde(default, deserialize_with = "duration")]
    pub horizon: Option<Duration>,
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    humantime::parse_duration(&text).map(Some).map_err(|error| serde::de::Error::custom(format!("{text:?}: {error}")))
}
