//! Where the events go: batches into the log, what is there already left out, and a count of everything.

use std::collections::HashSet;
use std::sync::Arc;

use carbon_core::{TenantId, Timestamp, derived_id};
use carbon_log::{EventLog, NewRecord, Value};
use carbon_schemas::{CodecError, Event};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::report::{Kind, Report};
use crate::error::CliError;

/// Records and bytes of one append.
const RECORDS: usize = 500;
const BYTES: usize = 4 * 1024 * 1024;

/// What one event may hold of a list, well below every limit of one.
const ITEMS: usize = 1000;
const ITEM_BYTES: usize = 2 * 1024 * 1024;

/// Where an event says that its row was last changed, in milliseconds.
pub fn at(millis: i64) -> Timestamp {
    Timestamp(millis)
}

pub struct Sink {
    pub tenant: TenantId,
    pub report: Report,
    /// `None`: nothing is written, all is counted.
    log: Option<Arc<dyn EventLog>>,
    /// Derived ids of events that the log holds.
    known: HashSet<Uuid>,
    pending: Vec<NewRecord>,
    pending_bytes: usize,
}

impl Sink {
    pub fn new(tenant: TenantId, report: Report, log: Option<Arc<dyn EventLog>>, known: HashSet<Uuid>) -> Self {
        Self { tenant, report, log, known, pending: Vec::new(), pending_bytes: 0 }
    }

    /// The id of what is said of a row: the same row has the same at every import, whatever the database's address.
    pub fn id(&self, table: &str, parts: &[&str]) -> Uuid {
        let mut all = vec!["import", "mlflow", self.tenant.as_str(), table];
        all.extend(parts);
        derived_id(&all)
    }

    pub fn has(&self, event_id: Uuid) -> bool {
        self.known.contains(&event_id)
    }

    /// Appends an event that stands for so many rows of each kind; whether it is in the log, now or before. What the
    /// limits refuse is reported under `name`.
    pub async fn put<E: Event>(&mut self, event: &E, rows: &[(Kind, u64)], name: &str) -> Result<bool, CliError> {
        if self.known.contains(&event.event_id()) {
            for (kind, count) in rows {
                self.report.of(*kind).already_there += count;
            }
            return Ok(true);
        }
        let record = match NewRecord::event(event) {
            Ok(record) => record,
            Err(error) => {
                for (kind, count) in rows {
                    self.report.refuse(*kind, *count, name, &reason(&error));
                }
                return Ok(false);
            }
        };
        for (kind, count) in rows {
            self.report.of(*kind).written += count;
        }
        self.report.events += 1;
        self.known.insert(event.event_id());
        if let Value::Body { avro, .. } = &record.value {
            self.pending_bytes += avro.len();
        }
        self.pending.push(record);
        if self.pending.len() >= RECORDS || self.pending_bytes >= BYTES {
            self.flush().await?;
        }
        Ok(true)
    }

    /// Appends what became of a row that is counted already; where it is refused, the row is there without it.
    pub async fn put_state<E: Event>(&mut self, event: &E, kind: Kind, name: &str) -> Result<(), CliError> {
        if let Err(reason) = event.check() {
            self.report.refuse_part(kind, name, &reason);
            return Ok(());
        }
        self.put(event, &[], name).await.map(drop)
    }

    /// Appends what waits; it is durable when this returns.
    pub async fn flush(&mut self) -> Result<(), CliError> {
        self.pending_bytes = 0;
        let records = std::mem::take(&mut self.pending);
        let (Some(log), false) = (&self.log, records.is_empty()) else { return Ok(()) };
        log.append(records).await.map(drop).map_err(|error| {
            CliError::Failed(format!("{error}; run the same command again, it goes on where this one stopped"))
        })
    }

    /// Puts a list of one kind, in as many events as the limits want. Where an event is refused, its items are tried one
    /// by one, so that only those are left out that are refused themselves.
    pub async fn put_list<T, E>(&mut self, list: List<'_, T>, event: impl Fn(Uuid, Vec<T>) -> E) -> Result<(), CliError>
    where
        T: Clone + Serialize,
        E: Event,
    {
        for batch in batches(list.items, list.size) {
            let of = |sink: &Self, items: &[T]| sink.id(list.table, &[list.owner, &digest(items)]);
            let whole = event(of(self, &batch), batch.clone());
            if self.has(whole.event_id()) || batch.len() == 1 || whole.check().is_ok() {
                self.put(&whole, &[(list.kind, batch.len() as u64)], &named(list.owner, list.name, &batch)).await?;
                continue;
            }
            let (mut good, mut bad) = (Vec::new(), Vec::new());
            for item in batch {
                match event(Uuid::nil(), vec![item.clone()]).check() {
                    Ok(()) => good.push(item),
                    Err(_) => bad.push(item),
                }
            }
            for item in bad {
                let name = named(list.owner, list.name, std::slice::from_ref(&item));
                self.put(&event(Uuid::nil(), vec![item]), &[(list.kind, 1)], &name).await?;
            }
            if !good.is_empty() {
                let count = good.len() as u64;
                self.put(&event(of(self, &good), good), &[(list.kind, count)], list.owner).await?;
            }
        }
        Ok(())
    }
}

/// Items of one owner.
pub struct List<'a, T> {
    pub kind: Kind,
    /// Distinguishes the ids of one owner's lists.
    pub table: &'static str,
    pub owner: &'a str,
    pub items: Vec<T>,
    pub size: fn(&T) -> usize,
    pub name: fn(&T) -> &str,
}

fn named<T>(owner: &str, name: fn(&T) -> &str, items: &[T]) -> String {
    match items {
        [one] => format!("{owner} {}", name(one)),
        _ => owner.to_owned(),
    }
}

fn batches<T>(items: Vec<T>, size: fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut all, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    for item in items {
        let more = size(&item);
        if !batch.is_empty() && (batch.len() == ITEMS || bytes + more > ITEM_BYTES) {
            all.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += more;
        batch.push(item);
    }
    if !batch.is_empty() {
        all.push(batch);
    }
    all
}

/// What a list says: an import of a store that has moved on since appends what is new.
fn digest<T: Serialize>(items: &[T]) -> String {
    let text = serde_json::to_vec(items).unwrap_or_default();
    format!("{:x}", Sha256::digest(text))
}

/// Without the event's name: the report says the kind.
fn reason(error: &CodecError) -> String {
    match error {
        CodecError::Invalid { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use carbon_schemas::events::{KeyValue, RunKind, RunLogged};

    use super::*;

    fn sink() -> Sink {
        Sink::new(TenantId::default_tenant(), Report::default(), None, HashSet::new())
    }

    async fn put(sink: &mut Sink, params: &[KeyValue]) {
        let tenant = sink.tenant.clone();
        let list = List {
            kind: Kind::Params,
            table: "params",
            owner: "r",
            items: params.to_vec(),
            size: |pair: &KeyValue| pair.key.len() + pair.value.len(),
            name: |pair| &pair.key,
        };
        let event = |id, params| RunLogged { params, ..RunLogged::of(id, at(0), &tenant, "r", RunKind::Logged) };
        sink.put_list(list, event).await.unwrap();
    }

    #[tokio::test]
    async fn a_repeat_is_already_there_and_only_the_culprit_is_refused() {
        let mut sink = sink();
        let mut params: Vec<_> = (0..1500).map(|n| KeyValue::new(format!("p{n}"), "x")).collect();
        params[3].value = "x".repeat(30_000);
        put(&mut sink, &params).await;
        let counts = sink.report.of(Kind::Params).clone();
        assert_eq!((counts.written, counts.refused, counts.already_there), (1499, 1, 0));
        assert_eq!(sink.report.events, 2);
        assert!(sink.report.refusals[0].reason.contains("30000 bytes"), "{:?}", sink.report.refusals);
        assert_eq!(sink.report.refusals[0].id, "r p3");
        put(&mut sink, &params).await;
        assert_eq!((sink.report.of(Kind::Params).already_there, sink.report.events), (1499, 2));
        // One more row: what changed is said, the batch before it is not said again.
        params.push(KeyValue::new("new", "x"));
        put(&mut sink, &params).await;
        assert_eq!(sink.report.events, 3);
    }

    #[test]
    fn batches_keep_count_and_bytes() {
        let size = |item: &usize| *item;
        assert_eq!(
            batches((0..2500).map(|_| 1).collect(), size).iter().map(Vec::len).collect::<Vec<_>>(),
            [1000, 1000, 500]
        );
        assert_eq!(
            batches(vec![ITEM_BYTES - 1, 1, 1, 9 * ITEM_BYTES], size),
            [vec![ITEM_BYTES - 1, 1], vec![1], vec![9 * ITEM_BYTES]]
        );
        assert!(batches(Vec::new(), size).is_empty());
    }

    #[test]
    fn ids_are_of_the_tenant_and_the_row() {
        let sink = sink();
        assert_eq!(sink.id("runs", &["a"]), sink.id("runs", &["a"]));
        let mut other = self::sink();
        other.tenant = TenantId::parse("acme").unwrap();
        assert_ne!(sink.id("runs", &["a"]), other.id("runs", &["a"]));
        assert_ne!(sink.id("runs", &["a"]), sink.id("params", &["a"]));
        assert_eq!(sink.id("runs", &["a"]).get_version_num(), 5);
    }
}
