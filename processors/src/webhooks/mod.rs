//! Webhooks: others are told what took effect in the registry (law 9). What is to be told lies in a small file of its own with
//! the position that it was made from, in one transaction; [`deliver`] works it off. Nothing of it is rebuilt from the log:
//! a delivery is never replayed.

mod deliver;
mod outbox;
mod told;

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
pub use outbox::MOST_PENDING;
pub use told::WebhookRecord;

use outbox::Pending;

/// How long a batch waits for the registry before it is tried again.
const PATIENCE: Duration = Duration::from_secs(10);

/// What webhooks work with.
#[derive(Clone)]
pub struct WebhookParts {
    pub log: Arc<dyn EventLog>,
    pub group: Group,
    /// The topics that are followed.
    pub topics: Vec<Topic>,
    /// The registry of this process.
    pub registry: Arc<Serving<Rows>>,
}

impl WebhookParts {
    /// The end offsets of some topics of the registry.
    async fn ends(&self, registry: &Rows, of: &[&str]) -> Result<Positions, LogError> {
        let topics = registry.view.topics.iter().filter(|topic| of.contains(&topic.as_str()));
        end_offsets(&*self.log, &topics.cloned().collect::<Vec<_>>()).await
    }
}

/// Writes down who is to be told of what.
pub struct WebhookSink {
    parts: WebhookParts,
    outbox: SqliteNamespace,
    wake: Arc<Notify>,
}

impl WebhookSink {
    /// Opens the file of what is to be told.
    pub async fn open(path: &Path, parts: WebhookParts) -> Result<Self, StoreError> {
        Ok(Self { parts, outbox: outbox::open(path).await?, wake: Arc::default() })
    }

    /// What works off what this writes down.
    pub fn deliveries(&self, webhooks: carbon_webhooks::Webhooks, pace: Pace) -> Deliveries {
        Deliveries::new(self.outbox.clone(), self.parts.clone(), webhooks, pace, self.wake.clone())
    }

    /// The deliveries that a batch asks for. Records are taken in the order of their time: topics follow each other then
    /// as they did for who wrote them.
    async fn pending(&self, registry: &Namespace, batch: &[WebhookRecord]) -> Result<Vec<Pending>, ProcessorError> {
        let mut records: Vec<&WebhookRecord> = batch.iter().collect();
        records.sort_by_key(|record| record.time());
        let mut pending = Vec::new();
        for record in records {
            let Some(scope) = record.scope() else { continue };
            let position = record.position().to_string();
            let told = told::told(registry, &scope, record).await?;
            for (ordinal, (event, data)) in told.iter().enumerate() {
                let body = body(*event, record.time(), data);
                let (event, at) = (event.to_string(), record.happened());
                for webhook in webhooks_told_of(registry, &scope, &event, at).await? {
                    let delivery = derived_id(&["webhooks", &webhook, &position, &ordinal.to_string()]);
                    let tenant = scope.tenant().clone();
                    pending.push(Pending { tenant, webhook, delivery, body: body.clone() });
                }
            }
        }
        Ok(pending)
    }

    /// Where to go on: the further of what lies in the file and what the log knows of the group (another process may have
    /// gone on meanwhile); a partition of which neither knows begins at its end, and the log is told so.
    async fn start(&self, known: &Positions) -> Result<Positions, LogError> {
        let mut start = known.clone();
        start.merge(&self.parts.log.committed(&self.parts.group).await?);
        let mut begun = Positions::new();
        for topic in &self.parts.topics {
            for (at, end) in self.parts.log.ends(&topic.spec.name).await?.iter() {
                if start.get(at).is_none() {
                    start.set(at.clone(), end);
                    begun.set(at.clone(), end);
                }
            }
        }
        self.parts.log.commit(&self.parts.group, &begun).await?;
        Ok(start)
    }
}

#[async_trait]
impl Sink for WebhookSink {
    type In = WebhookRecord;

    async fn checkpoint(&self) -> Result<Checkpoint, ProcessorError> {
        let known = self.outbox.checkpoint().await?;
        if let Some(log) = &known.log
            && self.parts.log.recognise(log, &known.positions).await?.is_some()
        {
            // Of another log: the caller sees it too, and resets.
            return Ok(known);
        }
        let start = self.start(&known.positions).await?;
        if start != known.positions {
            match self.outbox.begin_at(self.parts.log.identity(), &known.positions, &start).await {
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
        // Whom to notify, and what a promotion amounts to, other topics say: the registry must have folded those too.
        let asked = [WebhookChanged::NAME, ModelRegistered::NAME, ModelPromoted::NAME];
        let mut ends = self.parts.ends(&registry, &asked).await.map_err(ProcessorError::from)?;
        ends.merge(upto);
        if !registry.view.reached(&ends, PATIENCE).await {
            let behind = format!("the registry has not folded {ends} yet");
            return Err(ProcessorError::unavailable(behind).into());
        }
        let pending = self.pending(&registry.namespace, batch).await?;
        let mut tables = self.outbox.begin_at(log, from, upto).await?;
        outbox::put(&mut tables, &pending).await.map_err(ProcessorError::from)?;
        tables.commit().await.map_err(ProcessorError::from)?;
        if !pending.is_empty() {
            self.wake.notify_one();
        }
        Ok(Vec::new())
    }
}
