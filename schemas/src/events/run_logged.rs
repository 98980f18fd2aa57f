//! `ml.run.logged.v1`: MLflow runs.

use carbon_core::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::tracking::{
    KeyValue, TrackingLimits, check_bytes, check_count, check_key, check_optional, check_pairs, check_status,
    check_tags, parse_decimal, require,
};
use crate::event::{Event, common_fields, tenant_key, uuid_text};

/// The change to a run.
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

/// One point of a metric.
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

/// A dataset that a run read.
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

/// A logged model that a run produced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOutput {
    pub model_id: String,
    pub step: i64,
}

/// `ml.run.logged.v1`: a run was started or changed, or data was logged to it. One `log-batch` call is one record.
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

/// The valid values of a run's status.
pub const RUN_STATUSES: [&str; 5] = ["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"];

impl RunLogged {
    /// An event with its identity and kind; every other field is empty.
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
        require("started", "experiment_id", self.experiment_id.as_ref())?;
        require("started", "run_name", self.run_name.as_ref())?;
        require("started", "status", self.status.as_ref())?;
        require("started", "start_time", self.start_time.as_ref())?;
        require("started", "artifact_uri", self.artifact_uri.as_ref())
    }

    fn check_metrics(&self) -> Result<(), String> {
        check_count("metrics", self.metrics.len(), TrackingLimits::METRICS)?;
        for metric in &self.metrics {
            check_key("metrics", &metric.key)?;
            if metric.value.is_infinite() {
                return Err(format!("metric {:?} is infinite", metric.key));
            }
            let references = [&metric.model_id, &metric.dataset_name, &metric.dataset_digest];
            check_optional("a metric's model_id, dataset_name or dataset_digest", &references, TrackingLimits::NAME)?;
        }
        Ok(())
    }

    fn check_links(&self) -> Result<(), String> {
        check_count("datasets", self.datasets.len(), TrackingLimits::DATASETS)?;
        for dataset in &self.datasets {
            for text in [&dataset.name, &dataset.digest, &dataset.source_type] {
                check_bytes("a dataset's name, digest or source type", text, TrackingLimits::NAME)?;
            }
            let what = "a dataset's source, schema or profile";
            check_bytes(what, &dataset.source, TrackingLimits::DATASET_TEXT)?;
            check_optional(what, &[&dataset.schema, &dataset.profile], TrackingLimits::DATASET_TEXT)?;
            check_pairs("a dataset's tags", &dataset.tags, TrackingLimits::TAGS, TrackingLimits::TAG_VALUE)?;
        }
        let models = self.input_models.iter().chain(self.output_models.iter().map(|output| &output.model_id));
        check_count("models", models.clone().count(), TrackingLimits::DATASETS)?;
        for id in models {
            check_bytes("a model's id", id, TrackingLimits::ID)?;
        }
        Ok(())
    }
}

impl Event for RunLogged {
    common_fields!("ml.run.logged.v1");
    tenant_key!(run_id);

    fn check(&self) -> Result<(), String> {
        self.check_started()?;
        check_status("a run", self.status.as_ref(), &RUN_STATUSES)?;
        if let Some(id) = &self.experiment_id
            && parse_decimal(id).is_none()
        {
            return Err(format!("experiment_id {id:?} is not a decimal integer"));
        }
        let texts = [&self.run_name, &self.user_id, &self.artifact_uri];
        check_optional("run_name, user_id or artifact_uri", &texts, TrackingLimits::NAME)?;
        check_pairs("params", &self.params, TrackingLimits::PARAMS, TrackingLimits::PARAM_VALUE)?;
        check_tags(&self.tags, &self.removed_tags, TrackingLimits::TAG_VALUE)?;
        self.check_metrics()?;
        self.check_links()
    }

    fn is_unknown(&self) -> bool {
        self.kind == RunKind::Unknown
    }
}
