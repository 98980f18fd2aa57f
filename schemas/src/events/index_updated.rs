use carbon_core::{GenerationId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Reached;
use crate::event::{Event, event_schema, uuid_text};

/// `search.index.updated.v1`: a generation has taken a batch.
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
    const NAME: &'static str = "search.index.updated.v1";
    type Key = GenerationId;

    event_schema!(IndexUpdated);

    fn event_id(&self) -> Uuid {
        self.event_id
    }

    fn occurred_at(&self) -> Timestamp {
        self.occurred_at
    }

    fn tenant(&self) -> Option<&TenantId> {
        self.tenant_id.as_ref()
    }

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
