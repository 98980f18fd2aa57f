//! `ml.embedding.generated.v1`: vectors of entities.

use std::fmt;

use carbon_core::{EntityKey, IdError, Metadata, ModelRef, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Source;
use super::entity_changed::{entity_key, parse_entity_key};
use crate::event::{Event, Limits, common_fields, uuid_text};

/// Why an embedding record has no vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeletedReason {
    Unknown,
    /// The entity was deleted.
    Requested,
    /// The entity's last record is poison (law 10).
    Quarantined,
    /// The encoder rejected the text.
    NotEmbeddable,
}

/// `ml.embedding.generated.v1`: the vector of an entity's text by one model, with a snapshot of the entity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingGenerated {
    #[serde(with = "uuid_text")]
    pub event_id: Uuid,
    pub occurred_at: Timestamp,
    pub tenant_id: TenantId,
    pub entity_type: String,
    pub entity_id: String,
    pub text: String,
    pub metadata: Metadata,
    pub tags: Vec<String>,
    pub deleted: bool,
    pub reason: Option<DeletedReason>,
    pub text_sha256: String,
    pub model: String,
    pub dimension: i32,
    #[serde(with = "apache_avro::serde::bytes_opt")]
    pub vector: Option<Vec<u8>>,
    pub source: Source,
}

/// The record key of an entity's embedding by one model: `tenant/type/id/model@version@precision`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EmbeddingKey {
    pub entity: EntityKey,
    pub model: ModelRef,
}

fn parse_model(text: &str) -> Result<ModelRef, String> {
    text.parse().map_err(|error: IdError| error.to_string())
}

impl fmt::Display for EmbeddingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.entity, self.model)
    }
}

impl Event for EmbeddingGenerated {
    common_fields!("ml.embedding.generated.v1");

    type Key = EmbeddingKey;

    fn key(&self) -> Result<EmbeddingKey, String> {
        let entity = entity_key(self.tenant_id.as_str(), &self.entity_type, &self.entity_id)?;
        Ok(EmbeddingKey { entity, model: parse_model(&self.model)? })
    }

    fn parse_key(text: &str) -> Result<EmbeddingKey, String> {
        let (entity, model) = text.rsplit_once('/').ok_or("the key is not tenant/type/id/model")?;
        let model = parse_model(model)?;
        Ok(EmbeddingKey { entity: parse_entity_key(entity)?, model })
    }

    fn partition_key(key: &EmbeddingKey) -> String {
        key.entity.to_string()
    }

    fn check(&self) -> Result<(), String> {
        super::check_entity(&self.text, &self.metadata, &self.tags, self.deleted)?;
        self.source.position()?;
        match &self.vector {
            None if self.deleted && self.dimension == 0 => Ok(()),
            None if self.deleted => Err("a deletion must have dimension 0".into()),
            None => Err("the vector is missing".into()),
            Some(_) if self.deleted => Err("a deletion must not have a vector".into()),
            Some(bytes) => {
                if !(1..=Limits::DIMENSION).contains(&self.dimension) {
                    return Err(format!("dimension {} is not from 1 to {}", self.dimension, Limits::DIMENSION));
                }
                if bytes.len() != self.dimension as usize * 4 {
                    return Err(format!(
                        "the vector has {} bytes, dimension {} needs {}",
                        bytes.len(),
                        self.dimension,
                        self.dimension * 4
                    ));
                }
                match vector_from_bytes(bytes).iter().all(|number| number.is_finite()) {
                    true => Ok(()),
                    false => Err("the vector contains a number that is not finite".into()),
                }
            }
        }
    }

    fn is_unknown(&self) -> bool {
        self.reason == Some(DeletedReason::Unknown)
    }
}

/// Encodes a vector as little-endian 32-bit floats.
pub fn vector_to_bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Decodes what [`vector_to_bytes`] encoded. Bytes after the last complete float are ignored.
pub fn vector_from_bytes(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
}
