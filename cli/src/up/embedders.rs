//! One embedder for each model that a live generation of the search index needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use carbon_core::ModelRef;
use carbon_inference::Lane;
use carbon_log::Group;
use carbon_processors::Embedder;
use carbon_runtime::consume::{ProcessorError, ProcessorHandle, spawn_stage};
use carbon_runtime::{GenerationLog, Policy};
use carbon_schemas::events::GenerationState;

use super::assembly::Assembly;
use super::models::Models;
use super::read_models::SEARCH;

/// How soon a model that could not be loaded is tried again.
const RETRY: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_secs(60);

/// The group of a model's embedder.
pub fn group(model: &ModelRef) -> Group {
    Group::new("embedder", model)
}

pub struct Embedders {
    assembly: Assembly,
    models: Models,
    generations: GenerationLog,
    /// The model of a first generation.
    configured: ModelRef,
    running: tokio::sync::Mutex<BTreeMap<ModelRef, ProcessorHandle>>,
}

impl Embedders {
    /// Starts to keep the embedders, as a supervised task.
    pub fn start(assembly: Assembly, models: Models, generations: GenerationLog, configured: ModelRef) -> Arc<Self> {
        let supervisor = assembly.supervisor.clone();
        let embedders = Arc::new(Self { assembly, models, generations, configured, running: Default::default() });
        let kept = embedders.clone();
        supervisor.spawn("embedders", Policy::Restart, move || {
            let kept = kept.clone();
            async move { kept.keep().await }
        });
        embedders
    }

    async fn keep(&self) -> Result<(), ProcessorError> {
        let shutdown = self.assembly.shutdown().clone();
        let mut changes = self.generations.changes();
        tokio::select! {
            () = self.generations.caught_up() => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        loop {
            let wait = match self.step().await {
                Ok(()) => POLL,
                Err(error) => {
                    tracing::warn!(%error, "embedder not started; retrying");
                    RETRY
                }
            };
            tokio::select! {
                () = changes.next() => {}
                () = tokio::time::sleep(wait) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }

    /// The models of all generations that are not retired, of any fold version: older processes follow those.
    fn wanted(&self) -> BTreeSet<ModelRef> {
        let generations = self.generations.now();
        let live = generations.iter().filter(|g| g.read_model == SEARCH && g.state != GenerationState::Retired);
        let mut wanted: BTreeSet<ModelRef> = live.filter_map(|g| g.model.clone()).collect();
        if wanted.is_empty() {
            wanted.insert(self.configured.clone());
        }
        wanted
    }

    async fn step(&self) -> Result<(), ProcessorError> {
        let mut running = self.running.lock().await;
        let wanted = self.wanted();
        let unwanted: Vec<_> = running.keys().filter(|model| !wanted.contains(*model)).cloned().collect();
        for model in unwanted {
            if let Some(handle) = running.remove(&model) {
                self.assembly.stop(handle).await;
                tracing::info!(%model, "embedder stopped: no generation needs its model");
            }
        }
        let mut failed = None;
        for model in wanted {
            if running.contains_key(&model) {
                continue;
            }
            match self.embed(&model).await {
                Ok(handle) => drop(running.insert(model, handle)),
                // Other models are embedded all the same.
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn embed(&self, model: &ModelRef) -> Result<ProcessorHandle, ProcessorError> {
        let encoder = self.models.encoder(model).await?;
        let options = self.assembly.options("embedder", group(model), None)?;
        let handle = spawn_stage(Embedder::new(encoder.lane(Lane::Bulk), group(model)), options);
        self.assembly.processors.add(handle.view());
        Ok(handle)
    }

    /// Stops all, at the shutdown.
    pub async fn close(&self) {
        let running = std::mem::take(&mut *self.running.lock().await);
        for handle in running.into_values() {
            self.assembly.stop(handle).await;
        }
    }
}
