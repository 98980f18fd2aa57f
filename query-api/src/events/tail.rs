//! The stream itself.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::response::sse::Event;
use carbon_core::{Positions, TenantScope};
use carbon_log::{Delivery, EventLog, LogError, Record, RecordStream};
use carbon_runtime::Shutdown;

use super::show::{Show, Shown};

pub(super) struct Tail {
    records: RecordStream,
    log: Arc<dyn EventLog>,
    show: Box<dyn Show>,
    scope: TenantScope,
    /// Everything below is shown, or was not the tenant's.
    done: Positions,
    /// Where to end, if not to follow.
    until: Option<Positions>,
    waiting: VecDeque<Record>,
    shutdown: Shutdown,
    failed: bool,
}

impl Tail {
    pub fn new(
        records: RecordStream,
        log: Arc<dyn EventLog>,
        show: Box<dyn Show>,
        scope: TenantScope,
        begin: Positions,
        until: Option<Positions>,
        shutdown: Shutdown,
    ) -> Self {
        Self { records, log, show, scope, done: begin, until, waiting: VecDeque::new(), shutdown, failed: false }
    }

    /// The next event that the tenant may see; `None` at the end.
    pub async fn next(&mut self) -> Option<Event> {
        if self.failed {
            return None;
        }
        match self.advance().await {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "events cannot be read on");
                self.failed = true;
                Some(Event::default().event("error").data(serde_json::json!({"detail": error.to_string()}).to_string()))
            }
        }
    }

    async fn advance(&mut self) -> Result<Option<Event>, LogError> {
        loop {
            while let Some(record) = self.waiting.pop_front() {
                let at = record.position.topic_partition();
                if self.until.as_ref().is_some_and(|until| record.position.offset >= until.next(&at)) {
                    continue;
                }
                let data = self.data(&record).await?;
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
                Some(Ok(Delivery::Records(records))) => self.waiting.extend(records),
                // What lies between was compacted away.
                Some(Ok(Delivery::Ended { at, next })) => self.done.merge(&[(at, next)].into_iter().collect()),
                Some(Ok(Delivery::Assigned { .. } | Delivery::Revoked { .. })) => {}
                Some(Err(error)) => return Err(error),
            }
        }
    }

    async fn data(&mut self, record: &Record) -> Result<Option<String>, LogError> {
        loop {
            match self.show.show(record, self.scope.tenant()) {
                Shown::Data(data) => return Ok(Some(data)),
                Shown::Hidden => return Ok(None),
                Shown::NeedSchema(id) => {
                    let json = self.log.schema(id).await?;
                    self.show.learn(id, json.as_deref());
                }
            }
        }
    }
}
