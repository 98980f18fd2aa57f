//! Webhooks: an effect handler that sends HTTP requests about changes that took effect in the registry (law 9).
//!
//! The sink writes deliveries to the [`outbox`], a SQLite file, in one transaction with its checkpoint. [`deliver`]
//! sends them. The outbox is not rebuilt from the log: a delivery is never replayed.

mod deliver;
mod outbox;
mod payloads;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use carbon_core::{Positions, derived_id};
use carbon_log::{EventLog, Group, LogError, NewRecord};
use carbon_read_models::registry::queries::webhooks_told_of;
use carbon_runtime::consume::{ProcessorError, Sink, SinkError, end_offsets};
use carbon_runtime::{Rows, Serving, failpoint};
use carbon_schemas::events::{ModelPromoted, ModelRegistered, WebhookChanged};
use carbon_schemas::{Event as _, Feed as _};
use carbon_store::{Checkpoint, CheckpointError, Namespace, SqliteNamespace, StoreError};
use carbon_topology::Topic;
use carbon_webhooks::body;
use tokio::sync::Notify;

pub use deliver::{Deliveries, Pace};
pub use outbox::MAX_PENDING_DELIVERIES;
pub use payloads::WebhookRecord;

use outbox::NewDelivery;

/// How long a batch waits for the registry to catch up before it fails and is retried.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(10);

/// The log, group and registry that webhooks use.
#[derive(Clone)]
pub struct WebhookParts {
    pub log: Arc<dyn EventLog>,
    pub group: Group,
    /// The topics that the sink consumes.
    pub topics: Vec<Topic>,
    /// The registry of this process.
    pub registry: Arc<Serving<Rows>>,
}

impl WebhookParts {
    /// The end offsets of those topics of the registry that `names` lists.
    async fn end_offsets(&self, registry: &Rows, names: &[&str]) -> Result<Positions, LogError> {
        let topics = registry.view.topics.iter().filter(|topic| names.contains(&topic.as_str()));
        end_offsets(&*self.log, &topics.cloned().collect::<Vec<_>>()).await
    }
}

/// The sink: it writes the deliveries that records cause to the outbox.
pub struct WebhookSink {
    parts: WebhookParts,
    outbox: SqliteNamespace,
    /// Wakes [`Deliveries`] after a commit.
    wake: Arc<Notify>,
}

impl WebhookSink {
    /// Opens the outbox at `path`.
    pub async fn open(path: &Path, parts: WebhookParts) -> Result<Self, StoreError> {
        Ok(Self { parts, outbox: outbox::open(path).await?, wake: Arc::default() })
    }

    /// The task that sends the deliveries of this sink.
    pub fn deliveries(&self, webhooks: carbon_webhooks::Webhooks, pace: Pace) -> Deliveries {
        Deliveries::new(self.outbox.clone(), self.parts.clone(), webhooks, pace, self.wake.clone())
    }

    /// The deliveries of a batch, ordered by the records' log-append time. That restores the order in which a client
    /// wrote to different topics.
    async fn new_deliveries(
        &self,
        registry: &Namespace,
        batch: &[WebhookRecord],
    ) -> Result<Vec<NewDelivery>, ProcessorError> {
        let mut records: Vec<&WebhookRecord> = batch.iter().collect();
        records.sort_by_key(|record| record.time());
        let mut deliveries = Vec::new();
        for record in records {
            let Some(scope) = record.scope() else { continue };
            let position = record.position().to_string();
            let payloads = payloads::payloads(registry, &scope, record).await?;
            for (ordinal, (event, data)) in payloads.iter().enumerate() {
                let body = body(*event, record.time(), data);
                let (event, at) = (event.to_string(), record.latest_time());
                for webhook in webhooks_told_of(registry, &scope, &event, at).await? {
                    let delivery = derived_id(&["webhooks", &webhook, &position, &ordinal.to_string()]);
                    let tenant = scope.tenant().clone();
                    deliveries.push(NewDelivery { tenant, webhook, delivery, body: body.clone() });
                }
            }
        }
        Ok(deliveries)
    }

    /// The positions to resume from: the greater of the checkpoint and the group's committed offset, because another
    /// process may have continued meanwhile. A partition with neither starts at its end, and that offset is committed.
    async fn resume_positions(&self, checkpoint: &Positions) -> Result<Positions, LogError> {
        let mut start = checkpoint.clone();
        start.merge(&self.parts.log.committed(&self.parts.group).await?);
        let mut new_partitions = Positions::new();
        for topic in &self.parts.topics {
            for (at, end) in self.parts.log.ends(&topic.spec.name).await?.iter() {
                if start.get(at).is_none() {
                    start.set(at.clone(), end);
                    new_partitions.set(at.clone(), end);
                }
            }
        }
        self.parts.log.commit(&self.parts.group, &new_partitions).await?;
        Ok(start)
    }
}

#[async_trait]
impl Sink for WebhookSink {
    type In = WebhookRecord;

    async fn checkpoint(&self) -> Result<Checkpoint, ProcessorError> {
        let stored = self.outbox.checkpoint().await?;
        if let Some(log) = &stored.log
            && self.parts.log.recognise(log, &stored.positions).await?.is_some()
        {
            // The checkpoint is of another log. The caller recognises that as well, and resets this sink.
            return Ok(stored);
        }
        let start = self.resume_positions(&stored.positions).await?;
        if start != stored.positions {
            match self.outbox.begin_at(self.parts.log.identity(), &stored.positions, &start).await {
                Ok(tables) => tables.commit().await?,
                Err(CheckpointError::Store(error)) => return Err(error.into()),
                Err(error @ CheckpointError::Moved { .. }) => return Err(ProcessorError::internal(error.to_string())),
            }
        }
        Ok(Checkpoint { log: Some(self.parts.log.identity().to_owned()), positions: start })
    }

    async fn reset(&self) -> Result<(), ProcessorError> {
        Ok(self.outbox.clear().await?)
    }

    async fn apply(
        &self,
        log: &str,
        batch: &[WebhookRecord],
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<NewRecord>, SinkError> {
        failpoint("webhooks::apply").await.map_err(|error| ProcessorError::of(&error))?;
        let registry = self.parts.registry.get().map_err(|error| ProcessorError::of(&error))?;
        // The webhooks to notify and the effect of a promotion depend on other topics, so the registry must have folded
        // these topics to their ends as well.
        let topics = [WebhookChanged::NAME, ModelRegistered::NAME, ModelPromoted::NAME];
        let mut ends = self.parts.end_offsets(&registry, &topics).await.map_err(ProcessorError::from)?;
        ends.merge(upto);
        if !registry.view.reached(&ends, REGISTRY_TIMEOUT).await {
            let behind = format!("the registry has not folded {ends} yet");
            return Err(ProcessorError::unavailable(behind).into());
        }
        let deliveries = self.new_deliveries(&registry.namespace, batch).await?;
        let mut tables = self.outbox.begin_at(log, from, upto).await?;
        outbox::insert(&mut tables, &deliveries).await.map_err(ProcessorError::from)?;
        tables.commit().await.map_err(ProcessorError::from)?;
        if !deliveries.is_empty() {
            self.wake.notify_one();
        }
        Ok(Vec::new())
    }
}
