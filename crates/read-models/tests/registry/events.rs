//! Events of the tenant `acme`.

use carbon_core::{TenantId, TenantScope, Timestamp};
use carbon_schemas::events::{
    ExperimentChanged, ExperimentKind, KeyValue, LoggedModelChanged, LoggedModelKind, Metric, ModelKind, ModelPromoted,
    ModelRegistered, RunKind, RunLogged, WebhookChanged, WebhookKind,
};
use uuid::Uuid;

pub fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

pub fn scope(name: &str) -> TenantScope {
    TenantScope::authorised(tenant(name))
}

/// An event of experiment `id` of acme that sets no field.
pub fn of(id: i64, kind: ExperimentKind) -> ExperimentChanged {
    ExperimentChanged::of(Uuid::nil(), Timestamp(1_000), &tenant("acme"), id, kind)
}

pub fn created(id: i64, name: &str) -> ExperimentChanged {
    ExperimentChanged {
        name: Some(name.into()),
        artifact_location: Some(format!("mlflow-artifacts:/{id}")),
        ..of(id, ExperimentKind::Created)
    }
}

pub fn renamed(id: i64, name: &str) -> ExperimentChanged {
    ExperimentChanged { name: Some(name.into()), ..of(id, ExperimentKind::Renamed) }
}

pub fn run_of(run_id: &str, kind: RunKind) -> RunLogged {
    RunLogged::of(Uuid::nil(), Timestamp(1_000), &tenant("acme"), run_id, kind)
}

pub fn started(run_id: &str, experiment_id: i64) -> RunLogged {
    RunLogged {
        experiment_id: Some(experiment_id.to_string()),
        run_name: Some(format!("name of {run_id}")),
        user_id: Some("ann".into()),
        status: Some("RUNNING".into()),
        start_time: Some(100),
        artifact_uri: Some(format!("mlflow-artifacts:/{experiment_id}/{run_id}/artifacts")),
        ..run_of(run_id, RunKind::Started)
    }
}

pub fn model_of(id: &str, kind: LoggedModelKind) -> LoggedModelChanged {
    LoggedModelChanged::of(Uuid::nil(), Timestamp(1_000), &tenant("acme"), id, kind)
}

/// A logged model of experiment 1.
pub fn model_created(id: &str, name: &str) -> LoggedModelChanged {
    LoggedModelChanged {
        experiment_id: Some("1".into()),
        name: Some(name.into()),
        artifact_uri: Some(format!("mlflow-artifacts:/1/models/{id}/artifacts")),
        ..model_of(id, LoggedModelKind::Created)
    }
}

pub fn registered(at: i64, name: &str, kind: ModelKind) -> ModelRegistered {
    ModelRegistered::of(Uuid::nil(), Timestamp(at), &tenant("acme"), name, kind)
}

/// The registration of a name.
pub fn registration(at: i64, name: &str, id: u128) -> ModelRegistered {
    ModelRegistered { registration_id: Some(Uuid::from_u128(id)), ..registered(at, name, ModelKind::Created) }
}

/// Version `number` of a name, with the version id `id`.
pub fn version(at: i64, name: &str, number: i64, id: u128) -> ModelRegistered {
    ModelRegistered {
        version: Some(number),
        version_id: Some(Uuid::from_u128(id)),
        source: Some(format!("s3://models/{id}")),
        ..registered(at, name, ModelKind::VersionCreated)
    }
}

pub fn promotion(at: i64, name: &str) -> ModelPromoted {
    ModelPromoted::of(Uuid::nil(), Timestamp(at), &tenant("acme"), name)
}

pub fn staged(at: i64, name: &str, number: i64, stage: &str) -> ModelPromoted {
    ModelPromoted { version: Some(number), stage: Some(stage.into()), ..promotion(at, name) }
}

pub fn aliased(at: i64, name: &str, number: Option<i64>, alias: &str) -> ModelPromoted {
    ModelPromoted { version: number, alias: Some(alias.into()), ..promotion(at, name) }
}

pub fn webhook_of(at: i64, id: u128, kind: WebhookKind) -> WebhookChanged {
    WebhookChanged::of(Uuid::nil(), Timestamp(at), &tenant("acme"), Uuid::from_u128(id), kind)
}

pub fn hooked(at: i64, id: u128, events: &[&str]) -> WebhookChanged {
    WebhookChanged {
        name: Some(format!("hook {id}")),
        url: Some(format!("https://example.com/{id}")),
        events: events.iter().map(|event| (*event).into()).collect(),
        ..webhook_of(at, id, WebhookKind::Created)
    }
}

pub fn logged(run_id: &str) -> RunLogged {
    run_of(run_id, RunKind::Logged)
}

pub fn params(run_id: &str, params: &[(&str, &str)]) -> RunLogged {
    RunLogged { params: pairs(params), ..logged(run_id) }
}

pub fn tags(run_id: &str, tags: &[(&str, &str)]) -> RunLogged {
    RunLogged { tags: pairs(tags), ..logged(run_id) }
}

pub fn metrics(run_id: &str, metrics: Vec<Metric>) -> RunLogged {
    RunLogged { metrics, ..logged(run_id) }
}

pub fn metric(key: &str, value: f64, timestamp: i64, step: i64) -> Metric {
    Metric { key: key.into(), value, timestamp, step, model_id: None, dataset_name: None, dataset_digest: None }
}

pub fn pairs(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    pairs.iter().map(|(key, value)| KeyValue::new(*key, *value)).collect()
}

pub fn keys<'a>(pairs: impl IntoIterator<Item = &'a KeyValue>) -> Vec<&'a str> {
    pairs.into_iter().map(|pair| pair.key.as_str()).collect()
}
