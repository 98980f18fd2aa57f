use std::fmt;

use carbon_core::{EntityKey, Metadata, ModelRef, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Source;
use super::entity_changed::parse_entity_key;
use crate::event::{Event, Limits, event_schema, uuid_text};

/// Why an embedding record has no vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeletedReason {
    Unknown,
    /// The entity was deleted.
    Requested,
    /// The entity's last record is poison (law 10).
    Quarantined,
    /// The encoder refuses the text.
    NotEmbeddable,
}

/// `ml.embedding.generated.v1`: the vector of an entity's text by one model, with its snapshot.
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

/// An entity's embedding by one model: `tenant/type/id/model@version@precision`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EmbeddingKey {
    pub entity: EntityKey,
    pub model: ModelRef,
}

impl fmt::Display for EmbeddingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.entity, self.model)
    }
}

impl Event for EmbeddingGenerated {
    const NAME: &'static str = "ml.embedding.generated.v1";
    type Key = EmbeddingKey;

    event_schema!(EmbeddingGenerated);

    fn event_id(&self) -> Uuid {
        self.event_id
    }

    fn occurred_at(&self) -> Timestamp {
        self.occurred_at
    }

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.tenant_id)
    }

    fn key(&self) -> Result<EmbeddingKey, String> {
        let entity = EntityKey::parse(self.tenant_id.as_str(), &self.entity_type, &self.entity_id)
            .map_err(|error| error.to_string())?;
        Ok(EmbeddingKey { entity, model: self.model.parse().map_err(|error: carbon_core::IdError| error.to_string())? })
    }

    fn parse_key(text: &str) -> Result<EmbeddingKey, String> {
        let (entity, model) = text.rsplit_once('/').ok_or("the key is not tenant/type/id/model")?;
        let model = model.parse().map_err(|error: carbon_core::IdError| error.to_string())?;
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
            None if self.deleted => Err("a deletion has dimension 0".into()),
            None => Err("the vector is missing".into()),
            Some(_) if self.deleted => Err("a deletion has no vector".into()),
            Some(bytes) => {
                if !(1..=Limits::DIMENSION).contains(&self.dimension) {
                    return Err(format!("dimension {} is not in 1..={}", self.dimension, Limits::DIMENSION));
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
                    false => Err("the vector holds a number that is not finite".into()),
                }
            }
        }
    }

    fn is_unknown(&self) -> bool {
        self.reason == Some(DeletedReason::Unknown)
    }
}

/// Little-endian 32-bit floats.
pub fn vector_to_bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The reverse of [`vector_to_bytes`]; bytes beyond the last whole number are dropped.
pub fn vector_from_bytes(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
}
