//! The stream of a topic's events that one tenant may see.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::response::sse::Event;
use carbon_core::{Positions, TenantScope};
use carbon_log::{Delivery, EventLog, LogError, Record, RecordStream};
use carbon_runtime::Shutdown;

use super::render::{RenderRecord, Rendered};

/// Reads records of a topic and renders them as server-sent events.
pub(super) struct EventStream {
    records: RecordStream,
    log: Arc<dyn EventLog>,
    renderer: Box<dyn RenderRecord>,
    scope: TenantScope,
    /// The records below these positions were sent, or belong to other tenants.
    done: Positions,
    /// The positions at which the stream ends; `None` if it follows the topic.
    until: Option<Positions>,
    buffered: VecDeque<Record>,
    shutdown: Shutdown,
    failed: bool,
}

impl EventStream {
    pub fn new(
        records: RecordStream,
        log: Arc<dyn EventLog>,
        renderer: Box<dyn RenderRecord>,
        scope: TenantScope,
        begin: Positions,
        until: Option<Positions>,
        shutdown: Shutdown,
    ) -> Self {
        Self { records, log, renderer, scope, done: begin, until, buffered: VecDeque::new(), shutdown, failed: false }
    }

    /// Returns the next event that the tenant may see, or `None` at the end. If the log fails, returns an event named
    /// `error`, and then `None`.
    pub async fn next(&mut self) -> Option<Event> {
        if self.failed {
            return None;
        }
        match self.advance().await {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "read of the log failed; the event stream ends");
                self.failed = true;
                Some(Event::default().event("error").data(serde_json::json!({"detail": error.to_string()}).to_string()))
            }
        }
    }

    async fn advance(&mut self) -> Result<Option<Event>, LogError> {
        loop {
            while let Some(record) = self.buffered.pop_front() {
                let at = record.position.topic_partition();
                if self.until.as_ref().is_some_and(|until| record.position.offset >= until.next(&at)) {
                    continue;
                }
                let data = self.render(&record).await?;
                self.done.advance_past(&record.position);
                if let Some(data) = data {
                    return Ok(Some(Event::default().id(self.done.to_done_string()).data(data)));
                }
            }
            if self.until.as_ref().is_some_and(|until| self.done.covers(until)) {
                return Ok(None);
            }
            let delivery = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(None),
                delivery = self.records.next() => delivery,
            };
            match delivery {
                None => return Ok(None),
                Some(Ok(Delivery::Records(records))) => self.buffered.extend(records),
                // Compaction has removed the records in between.
                Some(Ok(Delivery::Ended { at, next })) => self.done.merge(&[(at, next)].into_iter().collect()),
                Some(Ok(Delivery::Assigned { .. } | Delivery::Revoked { .. })) => {}
                Some(Err(error)) => return Err(error),
            }
        }
    }

    /// Returns the JSON of a record; `None` if the tenant may not see the record.
    async fn render(&mut self, record: &Record) -> Result<Option<String>, LogError> {
        loop {
            match self.renderer.render(record, self.scope.tenant()) {
                Rendered::Data(data) => return Ok(Some(data)),
                Rendered::Hidden => return Ok(None),
                Rendered::NeedSchema(id) => {
                    let json = self.log.schema(id).await?;
                    self.renderer.add_schema(id, json.as_deref());
                }
            }
        }
    }
}
