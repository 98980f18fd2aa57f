//! The JSON of a run. Pages of runs are the largest answers, so these types serialise directly, without a tree of `Value`s.

use carbon_read_models::registry::queries::{Run, RunInfo};
use carbon_schemas::events::{DatasetInput, KeyValue, Metric, ModelOutput};
use serde::{Serialize, Serializer};

use super::shapes::{self, stage};

#[derive(Serialize)]
pub(super) struct InfoShape<'a> {
    run_uuid: &'a str,
    experiment_id: String,
    run_name: &'a str,
    user_id: &'a str,
    status: &'a str,
    start_time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<i64>,
    artifact_uri: &'a str,
    lifecycle_stage: &'static str,
    run_id: &'a str,
}

pub(super) fn run_info(info: &RunInfo) -> InfoShape<'_> {
    InfoShape {
        run_uuid: &info.run_id,
        experiment_id: info.experiment_id.to_string(),
        run_name: &info.name,
        user_id: &info.user_id,
        status: &info.status,
        start_time: info.start_time,
        end_time: info.end_time,
        artifact_uri: &info.artifact_uri,
        lifecycle_stage: stage(info.deleted),
        run_id: &info.run_id,
    }
}

#[derive(Serialize)]
pub(super) struct MetricShape<'a> {
    key: &'a str,
    #[serde(serialize_with = "number")]
    value: f64,
    timestamp: i64,
    step: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset_digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_id: Option<&'a str>,
}

fn number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    shapes::number(*value).serialize(serializer)
}

#[derive(Serialize)]
struct Data<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    metrics: Vec<MetricShape<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    params: &'a [KeyValue],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tags: &'a [KeyValue],
}

#[derive(Serialize)]
struct DatasetShape<'a> {
    name: &'a str,
    digest: &'a str,
    source_type: &'a str,
    source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a str>,
}

#[derive(Serialize)]
struct DatasetInputShape<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tags: &'a [KeyValue],
    dataset: DatasetShape<'a>,
}

#[derive(Serialize)]
struct ModelInput<'a> {
    model_id: &'a str,
}

#[derive(Serialize)]
struct Inputs<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dataset_inputs: Vec<DatasetInputShape<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    model_inputs: Vec<ModelInput<'a>>,
}

#[derive(Serialize)]
struct Outputs<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    model_outputs: &'a [ModelOutput],
}

#[derive(Serialize)]
pub(super) struct RunShape<'a> {
    info: InfoShape<'a>,
    data: Data<'a>,
    inputs: Inputs<'a>,
    /// Missing only in the answer of `runs/create`.
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<Outputs<'a>>,
}

impl RunShape<'_> {
    pub fn without_outputs(mut self) -> Self {
        self.outputs = None;
        self
    }
}

pub(super) fn run(run: &Run) -> RunShape<'_> {
    let metrics = run.metrics.iter().map(metric).collect();
    let models = run.input_models.iter().map(|id| ModelInput { model_id: id });
    RunShape {
        info: run_info(&run.info),
        data: Data { metrics, params: &run.params, tags: &run.tags },
        inputs: Inputs { dataset_inputs: run.datasets.iter().map(dataset).collect(), model_inputs: models.collect() },
        outputs: Some(Outputs { model_outputs: &run.output_models }),
    }
}

pub(super) fn metric(metric: &Metric) -> MetricShape<'_> {
    MetricShape {
        key: &metric.key,
        value: metric.value,
        timestamp: metric.timestamp,
        step: metric.step,
        dataset_name: metric.dataset_name.as_deref(),
        dataset_digest: metric.dataset_digest.as_deref(),
        model_id: metric.model_id.as_deref(),
    }
}

fn dataset(input: &DatasetInput) -> DatasetInputShape<'_> {
    DatasetInputShape {
        tags: &input.tags,
        dataset: DatasetShape {
            name: &input.name,
            digest: &input.digest,
            source_type: &input.source_type,
            source: &input.source,
            schema: input.schema.as_deref(),
            profile: input.profile.as_deref(),
        },
    }
}
