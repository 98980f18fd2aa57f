//! The fold of the registry, run like in the processor `registry`.

use std::path::Path;

use async_trait::async_trait;
use carbon_core::{GenerationId, Positions};
use carbon_log::{Group, NewRecord};
use carbon_read_models::Projection as _;
use carbon_read_models::registry::{Registry, RegistryRecord};
use carbon_runtime::Rows;
use carbon_runtime::consume::{Options, ProcessorError, ProcessorHandle, Sink, SinkError, spawn_sink};
use carbon_store::{Checkpoint, Namespace, testing};
use carbon_tracking_api::Dependencies;

struct Fold(Namespace);

#[async_trait]
impl Sink for Fold {
    type In = RegistryRecord;

    async fn checkpoint(&self) -> Result<Checkpoint, ProcessorError> {
        Ok(self.0.checkpoint().await?)
    }

    async fn reset(&self) -> Result<(), ProcessorError> {
        Ok(self.0.clear().await?)
    }

    async fn apply(
        &self,
        log: &str,
        batch: &[RegistryRecord],
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<NewRecord>, SinkError> {
        let reads = Registry::first_reads(self.0.dialect(), batch);
        let tables = self.0.begin_at(log, from, upto, reads).await?;
        let folded = Registry.apply(tables, batch).await.map_err(|error| ProcessorError::of(&error))?;
        folded.commit().await.map_err(ProcessorError::from)?;
        Ok(Vec::new())
    }
}

/// Opens a registry at `path` and starts the fold of the log into it.
pub async fn registry(dependencies: &Dependencies, path: &Path, group: &str) -> (Rows, ProcessorHandle) {
    let namespace = carbon_read_models::open::<Registry>(&testing::site(path).await).await.unwrap();
    let topology = &dependencies.topology;
    let processor = &topology.processors["registry"];
    let topics = processor.consumes.iter().map(|topic| topology.topics[topic.as_str()].clone()).collect();
    let (group, log) = (Group::new("registry", group), dependencies.log.clone());
    let options = Options::new("registry", group, topics, processor.batch, log, dependencies.shutdown.clone());
    let handle = spawn_sink(Fold(namespace.clone()), options);
    let generation = GenerationId::derive("registry", Registry::VERSION, None, 1).unwrap();
    (Rows::new(generation, namespace, handle.view()), handle)
}
