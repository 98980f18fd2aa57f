//! Opens the log: the embedded one of the data folder, or a Kafka cluster.

use std::sync::Arc;
use std::time::Duration;

use carbon_core::{Classify as _, Retry};
use carbon_log::{DataFolder, EmbeddedLog, EventLog, KafkaLog, KafkaOptions, LogError};
use carbon_runtime::Config;
use carbon_topology::Topology;

use crate::error::CliError;

/// How long between two looks for a cluster or a registry that does not answer.
const AGAIN: Duration = Duration::from_secs(2);

/// An open log; the embedded one compacts itself.
pub struct OpenLog {
    pub log: Arc<dyn EventLog>,
    pub embedded: Option<Arc<EmbeddedLog>>,
}

/// Who this process is on the cluster.
pub enum Instance {
    /// The one of a data folder that this process holds.
    Of(String),
    /// One of its own, until it ends.
    Passing,
}

/// How this configuration speaks to Kafka.
pub fn options(config: &Config, instance: Instance) -> KafkaOptions {
    let (instance, lasting) = match instance {
        Instance::Of(name) => (name, true),
        Instance::Passing => (uuid::Uuid::new_v4().to_string(), false),
    };
    KafkaOptions {
        brokers: config.kafka_brokers.clone(),
        properties: config.kafka_properties.as_map().clone(),
        registry: config.schema_registry_url.expose().to_owned(),
        instance,
        lasting,
        replication: i32::from(config.replication()),
    }
}

pub async fn embedded(folder: &DataFolder, topology: &Topology) -> Result<OpenLog, CliError> {
    let failed = |error: LogError| CliError::Failed(error.to_string());
    let log = Arc::new(EmbeddedLog::open(folder).await.map_err(failed)?);
    log.ensure_topics(&topology.specs()).await.map_err(failed)?;
    Ok(OpenLog { log: log.clone(), embedded: Some(log) })
}

/// Connects, and checks that the cluster and the registry have what the topology wants. What does not answer is
/// waited for; what is missing is said, since only `topology apply` makes it.
pub async fn kafka(config: &Config, topology: &Topology, instance: Instance) -> Result<OpenLog, CliError> {
    let options = options(config, instance);
    let log = patiently(async || KafkaLog::connect(options.clone()).await).await?;
    let specs = topology.specs();
    let complaints = patiently(async || log.check_topics(&specs, config.is_production()).await).await?;
    let names: Vec<_> = specs.iter().map(|spec| spec.name.clone()).collect();
    let schemas = patiently(async || log.missing_schemas(&names).await).await?;
    let schemas = schemas.iter().map(|(subject, version)| format!("schema {subject} version {version:03} is missing"));
    let complaints: Vec<String> = complaints.into_iter().chain(schemas).collect();
    if !complaints.is_empty() {
        return Err(CliError::NotApplied(complaints));
    }
    Ok(OpenLog { log: Arc::new(log), embedded: None })
}

/// A setting that cannot be used is wrong usage, all else is a failure.
pub fn unusable(error: &LogError) -> CliError {
    match error {
        LogError::Options(_) => CliError::Usage(error.to_string()),
        _ => CliError::Failed(error.to_string()),
    }
}

/// Tries again for as long as the fault may pass by itself.
pub async fn patiently<T>(mut attempt: impl AsyncFnMut() -> Result<T, LogError>) -> Result<T, CliError> {
    let mut said = String::new();
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if error.retry() == Retry::Later => {
                let error = error.to_string();
                if error != said {
                    tracing::warn!(error, "waiting for the log");
                    said = error;
                }
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(unusable(&error)),
        }
    }
}
