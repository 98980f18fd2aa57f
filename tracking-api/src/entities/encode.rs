//! Encodes entities of a request as records of the log.

use std::sync::Arc;

use carbon_core::{Clock, EntityId, EntityType, Metadata, TenantScope};
use carbon_http::Tenant;
use carbon_log::NewRecord;
use carbon_schemas::CodecError;
use carbon_schemas::events::EntityChanged;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// The new state of an entity; replaces the previous one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntityInput {
    /// `^[a-zA-Z0-9_.-]{1,255}$`
    #[schema(example = "instrument")]
    entity_type: String,
    /// `^[a-zA-Z0-9_.-]{1,255}$`
    #[schema(example = "NG_HH_BALMO")]
    entity_id: String,
    /// 1 byte to 256 KiB, not blank.
    #[schema(example = "Henry Hub natural gas, balance of month")]
    text: String,
    /// At most 64 keys; each value a string, a number or a boolean.
    #[serde(default)]
    #[schema(value_type = Option<std::collections::BTreeMap<String, serde_json::Value>>)]
    metadata: Option<Metadata>,
    /// At most 64.
    #[serde(default)]
    tags: Option<Vec<String>>,
    /// `^[a-zA-Z0-9_-]{1,100}$`
    #[serde(default)]
    tenant_id: Option<String>,
}

/// Encodes the entities of one request, with its tenant and trace.
pub(super) struct EntityEncoder {
    pub tenant: Tenant,
    pub clock: Arc<dyn Clock>,
    pub traceparent: String,
}

impl EntityEncoder {
    /// Returns the record of an entity in JSON; an error is a message for the caller.
    pub fn record(&self, json: &[u8]) -> Result<NewRecord, String> {
        let input: EntityInput = carbon_http::from_json_object(json)?;
        let scope = self.tenant.resolve([input.tenant_id.as_deref()]).map_err(|problem| problem.detail().to_owned())?;
        // The errors of these types name the field, unlike those of the codec.
        let entity_type = EntityType::parse(&input.entity_type).map_err(|error| error.to_string())?;
        let entity_id = EntityId::parse(&input.entity_id).map_err(|error| error.to_string())?;
        let event = EntityChanged {
            text: input.text,
            metadata: input.metadata.unwrap_or_default(),
            tags: input.tags.unwrap_or_default(),
            ..self.empty_event(&scope, &entity_type, &entity_id)
        };
        self.encode(&event)
    }

    /// Returns the record that deletes an entity.
    pub fn deletion(&self, entity_type: &EntityType, entity_id: &EntityId) -> Result<NewRecord, String> {
        self.encode(&EntityChanged { deleted: true, ..self.empty_event(&self.tenant.scope(), entity_type, entity_id) })
    }

    fn empty_event(&self, scope: &TenantScope, entity_type: &EntityType, entity_id: &EntityId) -> EntityChanged {
        EntityChanged {
            event_id: Uuid::now_v7(),
            occurred_at: self.clock.now(),
            tenant_id: scope.tenant().clone(),
            entity_type: entity_type.as_str().to_owned(),
            entity_id: entity_id.as_str().to_owned(),
            text: String::new(),
            metadata: Metadata::new(),
            tags: Vec::new(),
            deleted: false,
        }
    }

    fn encode(&self, event: &EntityChanged) -> Result<NewRecord, String> {
        match NewRecord::event(event) {
            Ok(record) => Ok(record.with_header("traceparent", self.traceparent.as_str())),
            Err(CodecError::Invalid { message, .. }) => Err(message),
            Err(error) => Err(error.to_string()),
        }
    }
}
