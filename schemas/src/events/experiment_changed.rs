//! `ml.experiment.changed.v1`: MLflow experiments.

use carbon_core::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::tracking::{KeyValue, TrackingLimits, check_bytes, check_optional, check_tags, parse_decimal, require};
use crate::event::{Event, common_fields, tenant_key, uuid_text};

/// The change to an experiment.
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
    /// The greatest id. The id after it, 2^53 - 1, is the greatest integer that JavaScript represents exactly.
    pub const LAST_ID: i64 = (1 << 53) - 2;

    /// An event with its identity and kind; every other field is empty.
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

    /// The id as a number. Fails if it is not a decimal integer in its shortest form, or is above [`Self::LAST_ID`].
    pub fn number(&self) -> Result<i64, String> {
        let number = parse_decimal(&self.experiment_id).filter(|number| *number <= Self::LAST_ID);
        number.ok_or_else(|| {
            format!("experiment_id {:?} is not a decimal integer from 0 to {}", self.experiment_id, Self::LAST_ID)
        })
    }
}

impl Event for ExperimentChanged {
    common_fields!("ml.experiment.changed.v1");
    tenant_key!(experiment_id);

    fn check(&self) -> Result<(), String> {
        self.number()?;
        match self.kind {
            ExperimentKind::Created => {
                require("created", "name", self.name.as_ref())?;
                require("created", "artifact_location", self.artifact_location.as_ref())?;
            }
            ExperimentKind::Renamed => require("renamed", "name", self.name.as_ref())?,
            _ => {}
        }
        if let Some(name) = &self.name {
            if name.is_empty() {
                return Err("name is empty".into());
            }
            check_bytes("name", name, TrackingLimits::EXPERIMENT_NAME)?;
        }
        check_optional("artifact_location", &[&self.artifact_location], TrackingLimits::URI)?;
        check_tags(&self.tags, &self.removed_tags, TrackingLimits::EXPERIMENT_TAG_VALUE)
    }

    fn is_unknown(&self) -> bool {
        self.kind == ExperimentKind::Unknown
    }
}
