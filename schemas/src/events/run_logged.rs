use carbon_core::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::tracking::{
    KeyValue, TenantKey, TrackingLimits as Limits, at_most, at_most_of, check_key, check_pairs, needed,
};
use crate::event::{Event, event_schema, uuid_text};

/// What happened to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    Unknown,
    Started,
    Logged,
    Updated,
    Inputs,
    Outputs,
    Deleted,
    Restored,
}

/// A measured value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    pub key: String,
    pub value: f64,
    pub timestamp: i64,
    pub step: i64,
    pub model_id: Option<String>,
    pub dataset_name: Option<String>,
    pub dataset_digest: Option<String>,
}

/// Data that a run read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetInput {
    pub name: String,
    pub digest: String,
    pub source_type: String,
    pub source: String,
    pub schema: Option<String>,
    pub profile: Option<String>,
    pub tags: Vec<KeyValue>,
}

/// A logged model that a run made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOutput {
    pub model_id: String,
    pub step: i64,
}

/// `ml.run.logged.v1`: a run began, or something was logged to it. One log-batch is one record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunLogged {
    #[serde(with = "uuid_text")]
    pub event_id: Uuid,
    pub occurred_at: Timestamp,
    pub tenant_id: TenantId,
    pub run_id: String,
    pub kind: RunKind,
    pub experiment_id: Option<String>,
    pub run_name: Option<String>,
    pub user_id: Option<String>,
    pub status: Option<String>,
    pub start_time: Option<i64>,
    pub end_time: Option<i64>,
    pub artifact_uri: Option<String>,
    pub params: Vec<KeyValue>,
    pub metrics: Vec<Metric>,
    pub tags: Vec<KeyValue>,
    pub removed_tags: Vec<String>,
    pub datasets: Vec<DatasetInput>,
    pub input_models: Vec<String>,
    pub output_models: Vec<ModelOutput>,
}

/// What a run's status may be.
pub const RUN_STATUSES: [&str; 5] = ["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"];

impl RunLogged {
    /// An event that says nothing yet but what it is about.
    pub fn of(event_id: Uuid, occurred_at: Timestamp, tenant: &TenantId, run_id: &str, kind: RunKind) -> Self {
        Self {
            event_id,
            occurred_at,
            tenant_id: tenant.clone(),
            run_id: run_id.to_owned(),
            kind,
            experiment_id: None,
            run_name: None,
            user_id: None,
            status: None,
            start_time: None,
            end_time: None,
            artifact_uri: None,
            params: Vec::new(),
            metrics: Vec::new(),
            tags: Vec::new(),
            removed_tags: Vec::new(),
            datasets: Vec::new(),
            input_models: Vec::new(),
            output_models: Vec::new(),
        }
    }

    fn check_started(&self) -> Result<(), String> {
        if self.kind != RunKind::Started {
            return Ok(());
        }
        needed("started", "experiment_id", self.experiment_id.as_ref())?;
        needed("started", "run_name", self.run_name.as_ref())?;
        needed("started", "status", self.status.as_ref())?;
        needed("started", "start_time", self.start_time.as_ref())?;
        needed("started", "artifact_uri", self.artifact_uri.as_ref())
    }

    fn check_metrics(&self) -> Result<(), String> {
        at_most_of("metrics", self.metrics.len(), Limits::METRICS)?;
        for metric in &self.metrics {
            check_key("metrics", &metric.key)?;
            if metric.value.is_infinite() {
                return Err(format!("metric {:?} is infinite", metric.key));
            }
            for text in [&metric.model_id, &metric.dataset_name, &metric.dataset_digest].into_iter().flatten() {
                at_most("a metric's reference", text, Limits::NAME)?;
            }
        }
        Ok(())
    }

    fn check_links(&self) -> Result<(), String> {
        at_most_of("datasets", self.datasets.len(), Limits::DATASETS)?;
        for dataset in &self.datasets {
            for text in [&dataset.name, &dataset.digest, &dataset.source_type] {
                at_most("a dataset's name, digest or source type", text, Limits::NAME)?;
            }
            for text in [Some(&dataset.source), dataset.schema.as_ref(), dataset.profile.as_ref()].into_iter().flatten()
            {
                at_most("a dataset's source, schema or profile", text, Limits::DATASET_TEXT)?;
            }
            check_pairs("a dataset's tags", &dataset.tags, Limits::TAGS, Limits::TAG_VALUE)?;
        }
        let models = self.input_models.iter().chain(self.output_models.iter().map(|output| &output.model_id));
        at_most_of("models", models.clone().count(), Limits::DATASETS)?;
        for id in models {
            at_most("a model's id", id, Limits::ID)?;
        }
        Ok(())
    }
}

impl Event for RunLogged {
    const NAME: &'static str = "ml.run.logged.v1";
    type Key = TenantKey;

    event_schema!(RunLogged);

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
        TenantKey::new(&self.tenant_id, &self.run_id)
    }

    fn parse_key(text: &str) -> Result<TenantKey, String> {
        TenantKey::parse(text)
    }

    fn check(&self) -> Result<(), String> {
        self.check_started()?;
        if let Some(status) = &self.status
            && !RUN_STATUSES.contains(&status.as_str())
        {
            return Err(format!("{status:?} is no status of a run"));
        }
        if let Some(id) = &self.experiment_id
            && id.parse::<i64>().ok().filter(|number| *number >= 0 && number.to_string() == *id).is_none()
        {
            return Err(format!("experiment_id {id:?} is no decimal integer"));
        }
        for text in [&self.run_name, &self.user_id, &self.artifact_uri].into_iter().flatten() {
            at_most("run_name, user_id or artifact_uri", text, Limits::NAME)?;
        }
        check_pairs("params", &self.params, Limits::PARAMS, Limits::PARAM_VALUE)?;
        check_pairs("tags", &self.tags, Limits::TAGS, Limits::TAG_VALUE)?;
        at_most_of("removed tags", self.removed_tags.len(), Limits::TAGS)?;
        self.removed_tags.iter().try_for_each(|key| check_key("removed tags", key))?;
        self.check_metrics()?;
        self.check_links()
    }

    fn is_unknown(&self) -> bool {
        self.kind == RunKind::Unknown
    }
}
