//! `ml.generation.changed.v1`: the states of read model generations.

use carbon_core::{GenerationId, TenantId, Timestamp, TopicName};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Reached;
use crate::event::{Event, common_fields, uuid_text};

/// The state of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GenerationState {
    Unknown,
    Building,
    Ready,
    Active,
    Standby,
    Retired,
}

/// `ml.generation.changed.v1`: a generation was claimed or changed its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerationChanged {
    #[serde(with = "uuid_text")]
    pub event_id: Uuid,
    pub occurred_at: Timestamp,
    pub tenant_id: Option<TenantId>,
    pub read_model: String,
    pub generation: GenerationId,
    pub version: i32,
    pub model: Option<String>,
    pub state: GenerationState,
    pub rows: Option<i64>,
    pub digest: Option<String>,
    pub positions: Vec<Reached>,
}

impl Event for GenerationChanged {
    common_fields!("ml.generation.changed.v1");

    /// The name of the read model.
    type Key = String;

    fn key(&self) -> Result<String, String> {
        Self::parse_key(&self.read_model)
    }

    fn parse_key(text: &str) -> Result<String, String> {
        // Names of read models have the syntax of topic names.
        TopicName::parse(text).map(String::from).map_err(|_| format!("{text:?} is not the name of a read model"))
    }

    fn check(&self) -> Result<(), String> {
        if let Some(model) = &self.model {
            model.parse::<carbon_core::ModelRef>().map_err(|error| error.to_string())?;
        }
        Reached::check(&self.positions)
    }

    fn is_unknown(&self) -> bool {
        self.state == GenerationState::Unknown
    }
}
