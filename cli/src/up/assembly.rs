//! What the parts of a process share while they are assembled.

use std::sync::Arc;

use carbon_core::GenerationId;
use carbon_log::{EventLog, Group};
use carbon_runtime::consume::{Options, ProcessorError, ProcessorHandle, Processors};
use carbon_runtime::{Health, Shutdown, Supervisor};
use carbon_store::Checkpoint;
use carbon_topology::Topology;

#[derive(Clone)]
pub struct Assembly {
    pub topology: Arc<Topology>,
    pub supervisor: Supervisor,
    pub log: Arc<dyn EventLog>,
    /// The name of this full copy of the read models, where there may be others.
    pub copy: Option<String>,
    pub processors: Processors,
    pub health: Arc<Health>,
}

impl Assembly {
    pub fn shutdown(&self) -> &Shutdown {
        self.supervisor.shutdown()
    }

    /// The group that fills a generation: each full copy has one of its own.
    pub fn group(&self, processor: &str, generation: &GenerationId) -> Group {
        match &self.copy {
            Some(copy) => Group::of_instance(processor, generation, copy),
            None => Group::new(processor, generation),
        }
    }

    /// How a processor runs, by the topology.
    pub fn options(
        &self,
        processor: &str,
        group: Group,
        generation: Option<&GenerationId>,
    ) -> Result<Options, ProcessorError> {
        let declared = self.topology.processors.get(processor);
        let declared =
            declared.ok_or_else(|| ProcessorError::internal(format!("the topology has no processor {processor}")))?;
        let topics = declared.consumes.iter().filter_map(|topic| self.topology.topics.get(topic.as_str()));
        let (log, shutdown) = (self.log.clone(), self.shutdown().clone());
        let options = Options::new(processor, group, topics.cloned().collect(), declared.batch, log, shutdown);
        Ok(Options { generation: generation.cloned(), ..options })
    }

    /// The processor that fills a read model.
    pub fn owner(&self, read_model: &str) -> Result<String, ProcessorError> {
        let owner = self.topology.owner(read_model).map(|processor| processor.name.clone());
        owner.ok_or_else(|| ProcessorError::internal(format!("the topology has no processor for {read_model}")))
    }

    /// Whether a checkpoint is of another log. Its rows are thrown away when the fold has its partitions.
    pub async fn is_foreign(&self, checkpoint: &Checkpoint) -> Result<bool, ProcessorError> {
        let Some(log) = &checkpoint.log else { return Ok(false) };
        Ok(self.log.recognise(log, &checkpoint.positions).await?.is_some())
    }

    /// Stops a processor, and waits until its batches have landed.
    pub async fn stop(&self, handle: ProcessorHandle) {
        let view = handle.view();
        handle.stop();
        if let Err(error) = handle.join().await {
            tracing::error!(%error, "processor did not drain");
        }
        self.processors.remove(&view);
    }
}
