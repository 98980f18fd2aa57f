use carbon_core::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::tracking::{
    KeyValue, TenantKey, TrackingLimits as Limits, at_most, at_most_of, check_key, check_pairs, needed,
};
use crate::event::{Event, event_schema, uuid_text};

/// What became of a logged model.
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

/// What a logged model's status may be.
pub const LOGGED_MODEL_STATUSES: [&str; 3] = ["PENDING", "READY", "UPLOAD_FAILED"];

impl LoggedModelChanged {
    /// An event that says nothing yet but what it is about.
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

    /// The experiment's id as a number: one number has one id.
    pub fn experiment(&self) -> Option<i64> {
        let id = self.experiment_id.as_deref()?;
        id.parse::<i64>().ok().filter(|number| *number >= 0 && number.to_string() == id)
    }
}

impl Event for LoggedModelChanged {
    const NAME: &'static str = "ml.logged_model.changed.v1";
    type Key = TenantKey;

    event_schema!(LoggedModelChanged);

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
        TenantKey::new(&self.tenant_id, &self.model_id)
    }

    fn parse_key(text: &str) -> Result<TenantKey, String> {
        TenantKey::parse(text)
    }

    fn check(&self) -> Result<(), String> {
        match self.kind {
            LoggedModelKind::Created => {
                needed("created", "experiment_id", self.experiment_id.as_ref())?;
                needed("created", "name", self.name.as_ref())?;
                needed("created", "artifact_uri", self.artifact_uri.as_ref())?;
            }
            LoggedModelKind::Finalised => needed("finalised", "status", self.status.as_ref())?,
            _ => {}
        }
        if let Some(id) = &self.experiment_id
            && self.experiment().is_none()
        {
            return Err(format!("experiment_id {id:?} is no decimal integer"));
        }
        if let Some(status) = &self.status
            && !LOGGED_MODEL_STATUSES.contains(&status.as_str())
        {
            return Err(format!("{status:?} is no status of a logged model"));
        }
        for text in [&self.name, &self.model_type, &self.source_run_id, &self.artifact_uri].into_iter().flatten() {
            at_most("name, model_type, source_run_id or artifact_uri", text, Limits::NAME)?;
        }
        check_pairs("params", &self.params, Limits::PARAMS, Limits::PARAM_VALUE)?;
        check_pairs("tags", &self.tags, Limits::TAGS, Limits::TAG_VALUE)?;
        at_most_of("removed tags", self.removed_tags.len(), Limits::TAGS)?;
        self.removed_tags.iter().try_for_each(|key| check_key("removed tags", key))
    }

    fn is_unknown(&self) -> bool {
        self.kind == LoggedModelKind::Unknown
    }
}
