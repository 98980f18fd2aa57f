//! The one writer: requests that wait together commit together (group commit).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use carbon_core::{Clock, Position, Positions, TopicName, TopicPartition, TopicSpec};
use carbon_schemas::{Fingerprint, SchemaId};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, QueryBuilder, Sqlite, Transaction};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::compact::{self, CompactionReport};
use super::insert::{AT_ONCE, Row, at_once, insert, keep, store_offsets, store_partitions};
use super::row_id;
use super::state::{Partition, Placed, State, Topic};
use crate::error::LogError;
use crate::event_log::Group;
use crate::topics::{cleanup_name, partitioner_name, refuse_difference};

/// What one commit takes at the most.
const GROUP_RECORDS: usize = 4096;
const GROUP_BYTES: usize = 16 * 1024 * 1024;

/// The move of a group's offsets.
#[derive(Debug)]
pub(super) struct Advance {
    pub group: Group,
    /// Compared first, for stages; sinks' commits are advice and just overwrite.
    pub from: Option<Positions>,
    pub upto: Positions,
}

type Reply<T> = oneshot::Sender<Result<T, LogError>>;

#[derive(Debug)]
pub(super) enum Request {
    Append { records: Vec<Placed>, advance: Option<Advance>, reply: Reply<Vec<Position>> },
    EnsureTopics { topics: Vec<TopicSpec>, reply: Reply<()> },
    DeleteRecords { before: Positions, reply: Reply<()> },
    PutSchema { event: String, json: String, reply: Reply<SchemaId> },
    Compact { reply: Reply<CompactionReport> },
}

#[derive(Debug)]
pub(super) struct Writer {
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    task: Mutex<Option<JoinHandle<()>>>,
    /// A copy of the sender for the hot path; weak, so that closing drops the last strong one.
    sender: mpsc::WeakSender<Request>,
}

impl Writer {
    pub fn spawn(connection: SqliteConnection, state: Arc<State>, clock: Arc<dyn Clock>) -> Self {
        let (sender, requests) = mpsc::channel(1024);
        let task = tokio::spawn(Task { connection, state, clock }.run(requests));
        let weak = sender.downgrade();
        Self { requests: Mutex::new(Some(sender)), task: Mutex::new(Some(task)), sender: weak }
    }

    pub async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, LogError> {
        let (reply, answer) = oneshot::channel();
        let sender = self.sender.upgrade().ok_or(LogError::Closed)?;
        sender.send(request(reply)).await.map_err(|_| LogError::Closed)?;
        drop(sender);
        answer.await.map_err(|_| LogError::Closed)?
    }

    /// Takes no more requests; returns when those that were taken are durable.
    pub async fn close(&self) {
        self.requests.lock().await.take();
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "log writer ended badly");
        }
    }
}

struct Task {
    connection: SqliteConnection,
    state: Arc<State>,
    clock: Arc<dyn Clock>,
}

/// An append as it was asked.
type Asked = (Vec<Placed>, Option<Advance>, Reply<Vec<Position>>);

/// An append whose records are written in the open transaction.
struct Written {
    positions: Result<Vec<Position>, LogError>,
    reply: Reply<Vec<Position>>,
}

impl Task {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut held = None;
        loop {
            let request = match held.take() {
                Some(request) => request,
                None => match requests.recv().await {
                    Some(request) => request,
                    None => break,
                },
            };
            match request {
                Request::Append { records, advance, reply } => {
                    let mut group = vec![(records, advance, reply)];
                    let size = |records: &[Placed]| {
                        records.iter().map(|r| r.value.as_ref().map_or(0, Vec::len)).sum::<usize>()
                    };
                    let (mut count, mut bytes) = (group[0].0.len(), size(&group[0].0));
                    while count < GROUP_RECORDS && bytes < GROUP_BYTES {
                        match requests.try_recv() {
                            Ok(Request::Append { records, advance, reply }) => {
                                count += records.len();
                                bytes += size(&records);
                                group.push((records, advance, reply));
                            }
                            Ok(other) => {
                                held = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.append(group).await;
                }
                Request::EnsureTopics { topics, reply } => {
                    let _ = reply.send(self.ensure_topics(topics).await);
                }
                Request::DeleteRecords { before, reply } => {
                    let answer = compact::delete_below(&mut self.connection, &self.state, &before).await;
                    self.state.tail().clear();
                    let _ = reply.send(answer.map(|changed| self.state.publish(changed)));
                }
                Request::PutSchema { event, json, reply } => {
                    let _ = reply.send(put_schema(&mut self.connection, &event, &json).await);
                }
                Request::Compact { reply } => {
                    let now = self.clock.now();
                    let answer = compact::compact(&mut self.connection, &self.state, now).await;
                    self.state.tail().clear();
                    let _ = reply.send(answer.map(|(report, changed)| {
                        self.state.publish(changed);
                        report
                    }));
                }
            }
        }
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "log file was not closed cleanly");
        }
    }

    /// One transaction for all; a request that cannot be taken is refused alone.
    async fn append(&mut self, group: Vec<Asked>) {
        let mut changed = BTreeMap::new();
        let (mut written, mut rows) = (Vec::new(), Vec::new());
        let outcome = self.write(group, &mut changed, &mut rows, &mut written).await;
        match outcome {
            Ok(()) => {
                keep(&mut self.state.tail(), rows);
                self.state.publish(changed);
                for Written { positions, reply } in written {
                    let _ = reply.send(positions);
                }
            }
            Err(error) => {
                tracing::error!(%error, "append failed");
                for Written { reply, .. } in written {
                    let _ = reply.send(Err(LogError::Unavailable(error.to_string())));
                }
            }
        }
    }

    async fn write(
        &mut self,
        group: Vec<Asked>,
        changed: &mut BTreeMap<TopicPartition, Partition>,
        rows: &mut Vec<Row>,
        written: &mut Vec<Written>,
    ) -> Result<(), LogError> {
        let now = self.clock.now().0;
        let mut advances: BTreeMap<(String, TopicPartition), u64> = BTreeMap::new();
        let mut compared = Vec::new();
        for (records, advance, reply) in group {
            match advance {
                Some(advance) if advance.from.is_some() => compared.push((records, advance, reply)),
                advance => {
                    advances.extend(advance.into_iter().flat_map(moves));
                    let positions = Ok(number(&self.state, records, now, changed, rows));
                    written.push(Written { positions, reply });
                }
            }
        }
        if compared.is_empty() && advances.is_empty() && rows.len() <= AT_ONCE {
            return at_once(&mut self.connection, rows, changed).await;
        }
        // From here on every reply is answered by way of `written`, also when a statement fails.
        let mut parked: Vec<_> = compared.into_iter().map(Some).collect();
        let outcome = async {
            let mut tx = self.connection.begin_with("BEGIN IMMEDIATE").await?;
            for slot in &mut parked {
                let Some((records, advance, reply)) = slot.take() else { continue };
                let known = offsets(&mut tx, &self.state, &advance.group).await;
                let known = match known {
                    Ok(known) => known,
                    Err(error) => {
                        written.push(Written { positions: Err(LogError::Closed), reply });
                        return Err(error);
                    }
                };
                let mut actual = known;
                // What this transaction has moved already.
                for ((group, at), next) in &advances {
                    if group == advance.group.as_str() {
                        actual.set(at.clone(), *next);
                    }
                }
                let from = advance.from.clone().unwrap_or_default();
                let positions = if advance.upto.iter().all(|(at, _)| actual.next(at) == from.next(at)) {
                    advances.extend(moves(advance));
                    Ok(number(&self.state, records, now, changed, rows))
                } else {
                    Err(LogError::Fenced { group: advance.group.to_string(), actual })
                };
                written.push(Written { positions, reply });
            }
            insert(&mut tx, rows).await?;
            store_partitions(&mut tx, changed).await?;
            store_offsets(&mut tx, &self.state, &advances).await?;
            Ok(tx.commit().await?)
        }
        .await;
        for (_, _, reply) in parked.into_iter().flatten() {
            written.push(Written { positions: Err(LogError::Closed), reply });
        }
        outcome
    }

    async fn ensure_topics(&mut self, topics: Vec<TopicSpec>) -> Result<(), LogError> {
        let mut made = Vec::new();
        let mut tx = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        for spec in topics {
            if let Ok(known) = self.state.topic(&spec.name) {
                refuse_difference(&known.spec, &spec)?;
            }
            let id: i64 = sqlx::query_scalar(
                "INSERT INTO topic (name, partitions, cleanup, partitioner, retention_ms, min_compaction_lag_ms, \
                 delete_retention_ms) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO UPDATE SET \
                 cleanup = excluded.cleanup, retention_ms = excluded.retention_ms, \
                 min_compaction_lag_ms = excluded.min_compaction_lag_ms, \
                 delete_retention_ms = excluded.delete_retention_ms RETURNING id",
            )
            .bind(spec.name.as_str())
            .bind(i64::from(spec.partitions))
            .bind(cleanup_name(spec.cleanup))
            .bind(partitioner_name(spec.partitioner))
            .bind(spec.retention.retention_ms)
            .bind(spec.retention.min_compaction_lag_ms)
            .bind(spec.retention.delete_retention_ms)
            .fetch_one(&mut *tx)
            .await?;
            let mut insert =
                QueryBuilder::new("INSERT OR IGNORE INTO partition (topic, partition, start, next, timestamp) ");
            insert.push_values(0..spec.partitions, |mut row, partition| {
                row.push_bind(id).push_bind(i64::from(partition)).push("0, 0, 0");
            });
            insert.build().execute(&mut *tx).await?;
            made.push(Topic { id, spec });
        }
        tx.commit().await?;
        for topic in made {
            let partitions = 0..topic.spec.partitions;
            self.state.put_topic(topic, partitions);
        }
        Ok(())
    }
}

fn moves(advance: Advance) -> Vec<((String, TopicPartition), u64)> {
    let group = advance.group.to_string();
    advance.upto.iter().map(|(at, next)| ((group.clone(), at.clone()), next)).collect()
}

/// Gives each record its offset and its time, which never goes back within a partition.
fn number(
    state: &State,
    records: Vec<Placed>,
    now: i64,
    changed: &mut BTreeMap<TopicPartition, Partition>,
    rows: &mut Vec<Row>,
) -> Vec<Position> {
    let mut positions = Vec::with_capacity(records.len());
    for record in records {
        let at = record.at.clone();
        // `place` found the partition before.
        let Some(partition) = changed.get(&at).copied().or_else(|| state.partition(&at).ok()) else { continue };
        let timestamp = now.max(partition.timestamp);
        rows.push((row_id(partition.topic_id, at.partition, partition.next), timestamp, record));
        positions.push(Position::new(at.topic.clone(), at.partition, partition.next));
        changed.insert(at, Partition { next: partition.next + 1, timestamp, ..partition });
    }
    positions
}

async fn offsets(tx: &mut Transaction<'_, Sqlite>, state: &State, group: &Group) -> Result<Positions, LogError> {
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as("SELECT topic, partition, next FROM group_offset WHERE grp = $1")
        .bind(group.as_str())
        .fetch_all(&mut **tx)
        .await?;
    Ok(name_offsets(state, rows))
}

/// Turns rows of `group_offset` into positions.
pub(super) fn name_offsets(state: &State, rows: Vec<(i64, i64, i64)>) -> Positions {
    let names: HashMap<i64, TopicName> = state.topics().into_iter().map(|topic| (topic.id, topic.spec.name)).collect();
    rows.into_iter()
        .filter_map(|(topic, partition, next)| {
            Some((TopicPartition::new(names.get(&topic)?.clone(), partition as u32), next as u64))
        })
        .collect()
}

async fn put_schema(connection: &mut SqliteConnection, event: &str, json: &str) -> Result<SchemaId, LogError> {
    let schema = carbon_schemas::parse(json).map_err(LogError::Corrupt)?;
    let fingerprint = Fingerprint::of(&schema);
    sqlx::query("INSERT OR IGNORE INTO schema (fingerprint, event, json) VALUES ($1, $2, $3)")
        .bind(fingerprint.0.to_vec())
        .bind(event)
        .bind(json)
        .execute(connection)
        .await?;
    Ok(SchemaId::Fingerprint(fingerprint))
}
