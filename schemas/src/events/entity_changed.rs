//! `ml.entity.changed.v1`: entities, as their producers publish them.

use carbon_core::{EntityKey, Metadata, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{Event, common_fields, uuid_text};

/// `ml.entity.changed.v1`: the complete new state of an entity, or its deletion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntityChanged {
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
}

impl Event for EntityChanged {
    common_fields!("ml.entity.changed.v1");

    type Key = EntityKey;

    fn key(&self) -> Result<EntityKey, String> {
        entity_key(self.tenant_id.as_str(), &self.entity_type, &self.entity_id)
    }

    fn parse_key(text: &str) -> Result<EntityKey, String> {
        parse_entity_key(text)
    }

    fn check(&self) -> Result<(), String> {
        super::check_entity(&self.text, &self.metadata, &self.tags, self.deleted)
    }
}

pub(super) fn entity_key(tenant: &str, entity_type: &str, entity_id: &str) -> Result<EntityKey, String> {
    EntityKey::parse(tenant, entity_type, entity_id).map_err(|error| error.to_string())
}

/// Parses `tenant/type/id`.
pub(super) fn parse_entity_key(text: &str) -> Result<EntityKey, String> {
    let mut parts = text.split('/');
    let (Some(tenant), Some(entity_type), Some(entity_id), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("the key is not tenant/type/id".into());
    };
    entity_key(tenant, entity_type, entity_id)
}
