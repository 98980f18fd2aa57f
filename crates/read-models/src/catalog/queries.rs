//! Queries of the catalog.

use carbon_core::{EntityId, EntityKey, EntityType, Metadata, Position, TenantScope, Timestamp, TopicName};
use carbon_schemas::Event as _;
use carbon_schemas::events::EntityChanged;
use carbon_store::{Namespace, StoreError};

/// The state of an entity by its last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemState {
    Live,
    Deleted,
    /// The last record is poison; its dead letter has the reason (law 10).
    Quarantined,
}

impl ItemState {
    pub fn as_str(self) -> &'static str {
        match self {
            ItemState::Live => "live",
            ItemState::Deleted => "deleted",
            ItemState::Quarantined => "quarantined",
        }
    }
}

/// An entity as the catalog holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub key: EntityKey,
    pub text: String,
    pub tags: Vec<String>,
    pub metadata: Metadata,
    pub updated_at: Timestamp,
    pub position: Position,
    pub state: ItemState,
}

/// An entity of the scope's tenant; `None` if it is unknown.
pub async fn get(
    namespace: &Namespace,
    scope: &TenantScope,
    entity_type: &EntityType,
    entity_id: &EntityId,
) -> Result<Option<Item>, StoreError> {
    let row = carbon_store::query(
        "SELECT text, tags, metadata, updated_at, partition, \"offset\", state FROM search_items \
         WHERE tenant_id = $1 AND entity_type = $2 AND entity_id = $3",
    )
    .bind(scope.tenant().as_str())
    .bind(entity_type.as_str())
    .bind(entity_id.as_str())
    .fetch_optional(namespace.readers())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let corrupt = |error: String| StoreError::Corrupt(format!("search_items: {error}"));
    let topic = TopicName::parse(EntityChanged::NAME).map_err(|error| corrupt(error.to_string()))?;
    let (partition, offset): (i64, i64) = (row.try_get(4)?, row.try_get(5)?);
    let state = match row.try_get::<String>(6)?.as_str() {
        "live" => ItemState::Live,
        "deleted" => ItemState::Deleted,
        _ => ItemState::Quarantined,
    };
    Ok(Some(Item {
        key: EntityKey {
            tenant: scope.tenant().clone(),
            entity_type: entity_type.clone(),
            entity_id: entity_id.clone(),
        },
        text: row.try_get(0)?,
        tags: serde_json::from_str(&row.try_get::<String>(1)?).map_err(|error| corrupt(error.to_string()))?,
        metadata: serde_json::from_str(&row.try_get::<String>(2)?).map_err(|error| corrupt(error.to_string()))?,
        updated_at: Timestamp(row.try_get(3)?),
        position: Position::new(topic, partition as u32, offset as u64),
        state,
    }))
}
