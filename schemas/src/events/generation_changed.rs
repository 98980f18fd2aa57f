use carbon_core::{GenerationId, TenantId, Timestamp, TopicName};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Reached;
use crate::event::{Event, event_schema, uuid_text};

/// The life of a generation.
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

/// `ml.generation.changed.v1`: a generation was made or changed its state.
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
    const NAME: &'static str = "ml.generation.changed.v1";
    type Key = String;

    event_schema!(GenerationChanged);

    fn event_id(&self) -> Uuid {
        self.event_id
    }

    fn occurred_at(&self) -> Timestamp {
        self.occurred_at
    }

    fn tenant(&self) -> Option<&TenantId> {
        self.tenant_id.as_ref()
    }

    fn key(&self) -> Result<String, String> {
        Self::parse_key(&self.read_model)
    }

    fn parse_key(text: &str) -> Result<String, String> {
        // The grammar of topic names serves read models as well.
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
