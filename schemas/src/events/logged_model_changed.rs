//! `ml.logged_model.changed.v1`: MLflow logged models.

use carbon_core::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::tracking::{
    KeyValue, TrackingLimits, check_optional, check_pairs, check_status, check_tags, parse_decimal, require,
};
use crate::event::{Event, common_fields, tenant_key, uuid_text};

/// The change to a logged model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoggedModelKind {
    Unknown,
    Created,
    Finalised,
    Params,
    Tagged,
    Deleted,
}

/// `ml.logged_model.changed.v1`: a logged model was created or changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoggedModelChanged {
    #[serde(with = "uuid_text")]
    pub event_id: Uuid,
    pub occurred_at: Timestamp,
    pub tenant_id: TenantId,
    pub model_id: String,
    pub kind: LoggedModelKind,
    pub experiment_id: Option<String>,
    pub name: Option<String>,
    pub model_type: Option<String>,
    pub source_run_id: Option<String>,
    pub artifact_uri: Option<String>,
    pub status: Option<String>,
    pub params: Vec<KeyValue>,
    pub tags: Vec<KeyValue>,
    pub removed_tags: Vec<String>,
}

/// The valid values of a logged model's status.
pub const LOGGED_MODEL_STATUSES: [&str; 3] = ["PENDING", "READY", "UPLOAD_FAILED"];

impl LoggedModelChanged {
    /// An event with its identity and kind; every other field is empty.
    pub fn of(event_id: Uuid, at: Timestamp, tenant: &TenantId, model_id: &str, kind: LoggedModelKind) -> Self {
        Self {
            event_id,
            occurred_at: at,
            tenant_id: tenant.clone(),
            model_id: model_id.to_owned(),
            kind,
            experiment_id: None,
            name: None,
            model_type: None,
            source_run_id: None,
            artifact_uri: None,
            status: None,
            params: Vec::new(),
            tags: Vec::new(),
            removed_tags: Vec::new(),
        }
    }

    /// The experiment's id as a number; `None` if it is absent or not a decimal integer in its shortest form.
    pub fn experiment(&self) -> Option<i64> {
        self.experiment_id.as_deref().and_then(parse_decimal)
    }
}

impl Event for LoggedModelChanged {
    common_fields!("ml.logged_model.changed.v1");
    tenant_key!(model_id);

    fn check(&self) -> Result<(), String> {
        match self.kind {
            LoggedModelKind::Created => {
                require("created", "experiment_id", self.experiment_id.as_ref())?;
                require("created", "name", self.name.as_ref())?;
                require("created", "artifact_uri", self.artifact_uri.as_ref())?;
            }
            LoggedModelKind::Finalised => require("finalised", "status", self.status.as_ref())?,
            _ => {}
        }
        if let Some(id) = &self.experiment_id
            && self.experiment().is_none()
        {
            return Err(format!("experiment_id {id:?} is not a decimal integer"));
        }
        check_status("a logged model", self.status.as_ref(), &LOGGED_MODEL_STATUSES)?;
        let texts = [&self.name, &self.model_type, &self.source_run_id, &self.artifact_uri];
        check_optional("name, model_type, source_run_id or artifact_uri", &texts, TrackingLimits::NAME)?;
        check_pairs("params", &self.params, TrackingLimits::PARAMS, TrackingLimits::PARAM_VALUE)?;
        check_tags(&self.tags, &self.removed_tags, TrackingLimits::TAG_VALUE)
    }

    fn is_unknown(&self) -> bool {
        self.kind == LoggedModelKind::Unknown
    }
}
