//! `search.index.updated.v1`: batches that an index generation committed.

use carbon_core::{GenerationId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Reached;
use crate::event::{Event, common_fields, uuid_text};

/// `search.index.updated.v1`: a generation of the search index committed a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexUpdated {
    #[serde(with = "uuid_text")]
    pub event_id: Uuid,
    pub occurred_at: Timestamp,
    pub tenant_id: Option<TenantId>,
    pub generation: GenerationId,
    pub upserts: i64,
    pub deletes: i64,
    pub up_to: Vec<Reached>,
}

impl Event for IndexUpdated {
    common_fields!("search.index.updated.v1");

    type Key = GenerationId;

    fn key(&self) -> Result<GenerationId, String> {
        Ok(self.generation.clone())
    }

    fn parse_key(text: &str) -> Result<GenerationId, String> {
        GenerationId::parse(text).map_err(|error| error.to_string())
    }

    fn check(&self) -> Result<(), String> {
        Reached::check(&self.up_to)
    }
}
