//! The one writer: requests that wait together commit together (group commit).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use carbon_core::{Clock, Position, Positions, TopicSpec};
use carbon_schemas::{Fingerprint, SchemaId};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::batch::{Batch, Written};
use super::compact::{self, CompactionReport};
use super::connection::WriterConnection;
use super::definitions;
use super::insert::keep;
use super::state::{Placed, State};
use crate::error::LogError;
use crate::event_log::Group;

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

pub(super) type Reply<T> = oneshot::Sender<Result<T, LogError>>;

#[derive(Debug)]
pub(super) enum Request {
    Append {
        records: Vec<Placed>,
        advance: Option<Advance>,
        reply: Reply<Vec<Position>>,
    },
    EnsureTopics {
        topics: Vec<TopicSpec>,
        reply: Reply<()>,
    },
    DeleteRecords {
        before: Positions,
        reply: Reply<()>,
    },
    PutSchema {
        event: String,
        json: String,
        reply: Reply<SchemaId>,
    },
    Compact {
        reply: Reply<CompactionReport>,
    },
    /// Writes a page that stays the same, to see whether that works.
    Probe {
        reply: Reply<()>,
    },
}

#[derive(Debug)]
pub(super) struct Writer {
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    task: Mutex<Option<JoinHandle<()>>>,
    /// A copy of the sender for the hot path; weak, so that closing drops the last strong one.
    sender: mpsc::WeakSender<Request>,
    closing: AtomicBool,
}

impl Writer {
    pub fn spawn(connection: WriterConnection, state: Arc<State>, clock: Arc<dyn Clock>) -> Self {
        let (sender, requests) = mpsc::channel(1024);
        let task = tokio::spawn(Task { connection, state, clock }.run(requests));
        let weak = sender.downgrade();
        Self {
            requests: Mutex::new(Some(sender)),
            task: Mutex::new(Some(task)),
            sender: weak,
            closing: AtomicBool::new(false),
        }
    }

    pub async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, LogError> {
        let (reply, answer) = oneshot::channel();
        let sender = self.sender.upgrade().ok_or(LogError::Closed)?;
        sender.send(request(reply)).await.map_err(|_| self.ended())?;
        drop(sender);
        answer.await.map_err(|_| self.ended())?
    }

    /// Why nobody answers: the log was closed, or the task panicked.
    fn ended(&self) -> LogError {
        match self.closing.load(Ordering::Acquire) {
            true => LogError::Closed,
            false => LogError::Unavailable("the writer of the log ended by a panic; restart the process".into()),
        }
    }

    /// Fails if the task has ended.
    pub fn check(&self) -> Result<(), LogError> {
        match self.sender.upgrade() {
            Some(sender) if !sender.is_closed() => Ok(()),
            _ => Err(self.ended()),
        }
    }

    /// Takes no more requests; returns when those that were taken are durable.
    pub async fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.requests.lock().await.take();
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "log writer ended badly");
        }
    }
}

struct Task {
    connection: WriterConnection,
    state: Arc<State>,
    clock: Arc<dyn Clock>,
}

/// An append as it was asked.
pub(super) type Asked = (Vec<Placed>, Option<Advance>, Reply<Vec<Position>>);

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
                    let _ = reply.send(self.delete_records(&before).await);
                }
                Request::PutSchema { event, json, reply } => {
                    let _ = reply.send(self.put_schema(&event, &json).await);
                }
                Request::Compact { reply } => {
                    let _ = reply.send(self.compact().await);
                }
                Request::Probe { reply } => {
                    let _ = reply.send(self.probe().await);
                }
            }
        }
        self.connection.close().await;
    }

    /// One transaction for all; a request that cannot be taken is refused alone.
    async fn append(&mut self, group: Vec<Asked>) {
        let now = self.clock.now().0;
        let connection = match self.connection.open().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::error!(%error, "append rejected");
                for (_, _, reply) in group {
                    let _ = reply.send(Err(error.repeated()));
                }
                return;
            }
        };
        let mut batch = Batch::new(now);
        let outcome = batch.write(connection, &self.state, group).await;
        let outcome = self.connection.done(outcome).await;
        let Batch { changed, rows, written, .. } = batch;
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
                    let _ = reply.send(Err(error.repeated()));
                }
            }
        }
    }

    async fn ensure_topics(&mut self, topics: Vec<TopicSpec>) -> Result<(), LogError> {
        definitions::check_topics(&self.state, &topics)?;
        let made = definitions::put_topics(self.connection.open().await?, topics).await;
        for topic in self.connection.done(made).await? {
            let partitions = 0..topic.spec.partitions;
            self.state.put_topic(topic, partitions);
        }
        Ok(())
    }

    async fn put_schema(&mut self, event: &str, json: &str) -> Result<SchemaId, LogError> {
        let schema = carbon_schemas::parse(json).map_err(LogError::Corrupt)?;
        let fingerprint = Fingerprint::of(&schema);
        let put = definitions::put_schema(self.connection.open().await?, fingerprint, event, json).await;
        self.connection.done(put).await?;
        Ok(SchemaId::Fingerprint(fingerprint))
    }

    async fn delete_records(&mut self, before: &Positions) -> Result<(), LogError> {
        let changed = compact::delete_below(self.connection.open().await?, &self.state, before).await;
        self.state.tail().clear();
        self.state.publish(self.connection.done(changed).await?);
        Ok(())
    }

    async fn compact(&mut self) -> Result<CompactionReport, LogError> {
        let now = self.clock.now();
        let compacted = compact::compact(self.connection.open().await?, &self.state, now).await;
        self.state.tail().clear();
        let (report, changed) = self.connection.done(compacted).await?;
        self.state.publish(changed);
        Ok(report)
    }

    async fn probe(&mut self) -> Result<(), LogError> {
        let connection = self.connection.open().await?;
        // Nobody uses the number; setting it writes the first page and syncs it.
        let outcome = sqlx::query("PRAGMA user_version = 0").execute(connection).await;
        let outcome = outcome.map(drop).map_err(LogError::from);
        self.connection.done(outcome).await
    }
}
