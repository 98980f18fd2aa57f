//! What the roles share while they are started.

use std::sync::{Arc, Mutex, PoisonError};

use carbon_log::{DataFolder, EventLog, Group};
use carbon_processors::{Pace, ProjectionSink, WebhookParts, WebhookSink};
use carbon_read_models::Projection;
use carbon_runtime::consume::{
    Options, ProcessorHandle, ProcessorView, SharedRows, Sink, Stage, spawn_shared_sink, spawn_sink, spawn_stage,
};
use carbon_runtime::{GenerationLog, Shutdown};
use carbon_store::{Namespace, Postgres, Site};
use carbon_topology::Topology;
use carbon_webhooks::Webhooks;
use tokio::task::JoinHandle;

use super::platform::failed;
use crate::error::CliError;

/// Where the relational read models lie.
pub enum Rows<'a> {
    /// Files of this process alone.
    Files(&'a DataFolder),
    /// Schemas that the processes of a platform share.
    Postgres {
        database: Postgres,
        /// Whether this process folds, too.
        folds: bool,
        /// Whether others may: the embedded log has one process.
        shared: bool,
    },
}

pub struct Parts {
    pub topology: Arc<Topology>,
    pub shutdown: Shutdown,
    pub log: Arc<dyn EventLog>,
    /// The name of this full copy of the read models, where there may be others.
    pub copy: Option<String>,
    pub views: Arc<Mutex<Vec<ProcessorView>>>,
    pub handles: Vec<ProcessorHandle>,
}

impl Parts {
    /// Opens the active generation of a projection, and folds into it, or follows who does.
    pub async fn projection<P: Projection>(
        &mut self,
        projection: P,
        rows: &Rows<'_>,
        generations: &mut GenerationLog,
    ) -> Result<(Namespace, ProcessorView), CliError> {
        let active = generations.ensure_active(P::NAME, P::VERSION, None).await;
        let generation = active.map_err(|error| failed(&error))?.id;
        let owner = self.topology.owner(P::NAME).map(|processor| processor.name.clone());
        let name = owner.ok_or_else(|| CliError::Failed(format!("the topology has no processor for {}", P::NAME)))?;
        match rows {
            Rows::Files(folder) => {
                let path = folder.read_models().join(generation.as_str());
                let sink = ProjectionSink::open(projection, path).await.map_err(|error| failed(&error))?;
                let namespace = sink.namespace().clone();
                let view = self.sink(&name, sink, &generation)?;
                Ok((namespace, view))
            }
            Rows::Postgres { database, folds, shared } => {
                let site = Site::Schema(database.clone(), generation.as_str().to_owned());
                let sink = ProjectionSink::at(projection, &site).await.map_err(|error| failed(&error))?;
                let namespace = sink.namespace().clone();
                if !shared {
                    let view = self.sink(&name, sink, &generation)?;
                    return Ok((namespace, view));
                }
                let options = self.options(&name, Group::new(&name, &generation))?;
                let (group, topics) = (options.group.clone(), options.topics.clone());
                let own = match folds {
                    true => Some(self.keep(spawn_shared_sink(sink, options))),
                    false => None,
                };
                let (log, shutdown) = (self.log.clone(), self.shutdown.clone());
                let shared = SharedRows { name, group, topics, namespace: namespace.clone(), log, own, shutdown };
                Ok((namespace, shared.follow()))
            }
        }
    }

    /// A sink of a generation; each copy of it has a group of its own.
    pub fn sink(
        &mut self,
        name: &str,
        sink: impl Sink,
        generation: &carbon_core::GenerationId,
    ) -> Result<ProcessorView, CliError> {
        let group = match &self.copy {
            Some(copy) => Group::of_instance(name, generation, copy),
            None => Group::new(name, generation),
        };
        let options = self.options(name, group)?;
        Ok(self.keep(spawn_sink(sink, options)))
    }

    pub fn stage(&mut self, name: &str, stage: impl Stage, group: Group) -> Result<ProcessorView, CliError> {
        let options = self.options(name, group)?;
        Ok(self.keep(spawn_stage(stage, options)))
    }

    /// Follows the registry, and tells webhooks what took effect. All processes share one group: nobody is told twice.
    pub async fn webhooks(
        &mut self,
        folder: &DataFolder,
        (registry, fold): (Namespace, ProcessorView),
        webhooks: Webhooks,
    ) -> Result<JoinHandle<()>, CliError> {
        let options = self.options("webhooks", Group::new("webhooks", "deliveries"))?;
        let (log, group, topics) = (self.log.clone(), options.group.clone(), options.topics.clone());
        let parts = WebhookParts { log, group, topics, registry, fold };
        let sink = WebhookSink::open(&folder.webhooks_file(), parts).await.map_err(|error| failed(&error))?;
        let deliveries = sink.deliveries(webhooks, Pace::default());
        self.keep(spawn_shared_sink(sink, options));
        Ok(tokio::spawn(deliveries.run(self.shutdown.clone())))
    }

    fn keep(&mut self, handle: ProcessorHandle) -> ProcessorView {
        let view = handle.view();
        self.views.lock().unwrap_or_else(PoisonError::into_inner).push(view.clone());
        self.handles.push(handle);
        view
    }

    fn options(&self, name: &str, group: Group) -> Result<Options, CliError> {
        let processor = self.topology.processors.get(name);
        let processor = processor.ok_or_else(|| CliError::Failed(format!("the topology has no processor {name}")))?;
        let topics = processor.consumes.iter().filter_map(|topic| self.topology.topics.get(topic.as_str()));
        Ok(Options {
            name: name.to_owned(),
            group,
            topics: topics.cloned().collect(),
            batch: processor.batch,
            log: self.log.clone(),
            shutdown: self.shutdown.clone(),
        })
    }
}
