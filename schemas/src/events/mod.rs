//! The typed payloads, one file per event.

mod artifact_changed;
mod dead_letter;
mod embedding_generated;
mod entity_changed;
mod experiment_changed;
mod generation_changed;
mod index_updated;
mod logged_model_changed;
mod model_promoted;
mod model_registered;
mod run_logged;
mod tracking;
mod webhook_changed;

use carbon_core::{Metadata, Position, Positions, TopicName, TopicPartition};
use serde::{Deserialize, Serialize};

use crate::event::Limits;

pub use artifact_changed::{ArtifactChanged, ArtifactKind};
pub use dead_letter::{DeadLetter, DeadLetterKind};
pub use embedding_generated::{DeletedReason, EmbeddingGenerated, EmbeddingKey, vector_from_bytes, vector_to_bytes};
pub use entity_changed::EntityChanged;
pub use experiment_changed::{ExperimentChanged, ExperimentKind};
pub use generation_changed::{GenerationChanged, GenerationState};
pub use index_updated::IndexUpdated;
pub use logged_model_changed::{LOGGED_MODEL_STATUSES, LoggedModelChanged, LoggedModelKind};
pub use model_promoted::{MODEL_STAGES, ModelPromoted};
pub use model_registered::{ManifestFile, ModelKind, ModelRegistered};
pub use run_logged::{DatasetInput, Metric, ModelOutput, RUN_STATUSES, RunKind, RunLogged};
pub use tracking::{KeyValue, TenantKey, TrackingLimits};
pub use webhook_changed::{WEBHOOK_STATUSES, WebhookChanged, WebhookKind};

/// A position as a payload field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

impl From<&Position> for Source {
    fn from(position: &Position) -> Self {
        Self {
            topic: position.topic.to_string(),
            partition: position.partition as i32,
            offset: i64::try_from(position.offset).unwrap_or(i64::MAX),
        }
    }
}

impl Source {
    /// The typed position. Fails if the topic's name is invalid or a number is negative.
    pub fn position(&self) -> Result<Position, String> {
        let topic = TopicName::parse(&self.topic).map_err(|error| format!("source: {error}"))?;
        let partition = u32::try_from(self.partition).map_err(|_| "source.partition is negative")?;
        let offset = u64::try_from(self.offset).map_err(|_| "source.offset is negative")?;
        Ok(Position::new(topic, partition, offset))
    }
}

/// The next offset of a partition as a payload field: all records before it are processed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    pub topic: String,
    pub partition: i32,
    pub next_offset: i64,
}

impl Reached {
    /// The payload form of positions.
    pub fn list(positions: &Positions) -> Vec<Self> {
        let reached = |(at, next): (&TopicPartition, u64)| Self {
            topic: at.topic.to_string(),
            partition: at.partition as i32,
            next_offset: i64::try_from(next).unwrap_or(i64::MAX),
        };
        positions.iter().map(reached).collect()
    }

    fn check(list: &[Self]) -> Result<(), String> {
        match list.iter().find(|r| r.partition < 0 || r.next_offset < 0 || TopicName::parse(&r.topic).is_err()) {
            Some(bad) => Err(format!("{bad:?} is not a valid position")),
            None => Ok(()),
        }
    }
}

/// Checks the limits of an entity, in any event that contains one.
fn check_entity(text: &str, metadata: &Metadata, tags: &[String], deleted: bool) -> Result<(), String> {
    if deleted && !text.is_empty() {
        return Err("a deletion must have an empty text".into());
    }
    if !deleted && text.trim().is_empty() {
        return Err("text is empty".into());
    }
    if text.len() > Limits::TEXT_BYTES {
        return Err(format!("text has {} bytes, at most {} are allowed", text.len(), Limits::TEXT_BYTES));
    }
    if tags.len() > Limits::TAGS {
        return Err(format!("{} tags, at most {} are allowed", tags.len(), Limits::TAGS));
    }
    if let Some(bad) = tags.iter().find(|tag| tag.is_empty() || tag.len() > Limits::TAG_BYTES) {
        return Err(format!("a tag must have 1 to {} bytes, this one has {}", Limits::TAG_BYTES, bad.len()));
    }
    if metadata.len() > Limits::METADATA_KEYS {
        return Err(format!("{} metadata keys, at most {} are allowed", metadata.len(), Limits::METADATA_KEYS));
    }
    for (key, value) in metadata {
        use carbon_core::MetadataValue::{Boolean, Double, String};
        if key.is_empty() || key.len() > Limits::METADATA_KEY_BYTES {
            return Err(format!("a metadata key must have 1 to {} bytes", Limits::METADATA_KEY_BYTES));
        }
        match value {
            String(text) if text.len() > Limits::METADATA_VALUE_BYTES => {
                return Err(format!("metadata {key:?} has more than {} bytes", Limits::METADATA_VALUE_BYTES));
            }
            Double(number) if !number.is_finite() => return Err(format!("metadata {key:?} is not a finite number")),
            String(_) | Double(_) | Boolean(_) => {}
        }
    }
    Ok(())
}
