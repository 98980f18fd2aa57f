use carbon_core::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::tracking::{
    KeyValue, TenantKey, TrackingLimits as Limits, at_most, at_most_of, check_key, check_pairs, needed,
};
use crate::event::{Event, event_schema, uuid_text};

/// What became of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExperimentKind {
    Unknown,
    Created,
    Renamed,
    Tagged,
    Deleted,
    Restored,
}

/// `ml.experiment.changed.v1`: an experiment was created or changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExperimentChanged {
    #[serde(with = "uuid_text")]
    pub event_id: Uuid,
    pub occurred_at: Timestamp,
    pub tenant_id: TenantId,
    pub experiment_id: String,
    pub kind: ExperimentKind,
    pub name: Option<String>,
    pub artifact_location: Option<String>,
    pub tags: Vec<KeyValue>,
    pub removed_tags: Vec<String>,
}

impl ExperimentChanged {
    /// The greatest id: others come after it only up to here, and JavaScript reads no greater number exactly.
    pub const LAST_ID: i64 = (1 << 53) - 2;

    /// An event that says nothing yet but what it is about.
    pub fn of(event_id: Uuid, occurred_at: Timestamp, tenant: &TenantId, id: i64, kind: ExperimentKind) -> Self {
        Self {
            event_id,
            occurred_at,
            tenant_id: tenant.clone(),
            experiment_id: id.to_string(),
            kind,
            name: None,
            artifact_location: None,
            tags: Vec::new(),
            removed_tags: Vec::new(),
        }
    }

    /// The id as a number: one number has one id, `07` is none.
    pub fn number(&self) -> Result<i64, String> {
        match self.experiment_id.parse::<i64>() {
            Ok(number) if (0..=Self::LAST_ID).contains(&number) && number.to_string() == self.experiment_id => {
                Ok(number)
            }
            _ => Err(format!("experiment_id {:?} is no decimal integer, or too great", self.experiment_id)),
        }
    }
}

impl Event for ExperimentChanged {
    const NAME: &'static str = "ml.experiment.changed.v1";
    type Key = TenantKey;

    event_schema!(ExperimentChanged);

    fn event_id(&self) -> Uuid {
        self.event_id
    }

    fn occurred_at(&self) -> Timestamp {
        self.occurred_at
    }

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.tenant_id)
    }

    fn key(&self) -> Result<TenantKey, String> {
        TenantKey::new(&self.tenant_id, &self.experiment_id)
    }

    fn parse_key(text: &str) -> Result<TenantKey, String> {
        TenantKey::parse(text)
    }

    fn check(&self) -> Result<(), String> {
        self.number()?;
        match self.kind {
            ExperimentKind::Created => {
                needed("created", "name", self.name.as_ref())?;
                needed("created", "artifact_location", self.artifact_location.as_ref())?;
            }
            ExperimentKind::Renamed => needed("renamed", "name", self.name.as_ref())?,
            _ => {}
        }
        if let Some(name) = &self.name {
            if name.is_empty() {
                return Err("name is empty".into());
            }
            at_most("name", name, Limits::EXPERIMENT_NAME)?;
        }
        at_most("artifact_location", self.artifact_location.as_deref().unwrap_or_default(), Limits::URI)?;
        check_pairs("tags", &self.tags, Limits::TAGS, Limits::EXPERIMENT_TAG_VALUE)?;
        at_most_of("removed tags", self.removed_tags.len(), Limits::TAGS)?;
        self.removed_tags.iter().try_for_each(|key| check_key("removed tags", key))
    }

    fn is_unknown(&self) -> bool {
        self.kind == ExperimentKind::Unknown
    }
}
