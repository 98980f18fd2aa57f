//! The writer task: the only task that writes to the log file. It commits waiting appends together (group commit).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use carbon_core::{Clock, Position, Positions, TopicSpec};
use carbon_schemas::{Fingerprint, SchemaId};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::compact::{self, CompactionReport};
use super::connection::WriterConnection;
use super::definitions;
use super::group_commit::{GroupCommit, PendingReply};
use super::insert::cache_appended;
use super::state::{LogState, PackedRecord};
use crate::error::LogError;
use crate::event_log::Group;

/// Number of records at which a commit takes no more appends.
const MAX_COMMIT_RECORDS: usize = 4096;
/// Size of the values at which a commit takes no more appends: 16 MiB.
const MAX_COMMIT_BYTES: usize = 16 * 1024 * 1024;

/// Maximum number of requests in the channel.
const QUEUED_REQUESTS: usize = 1024;

/// A commit of a group's offsets.
#[derive(Debug)]
pub(super) struct Advance {
    pub group: Group,
    /// For a stage: the offsets must be here, otherwise the request is fenced. `None` for a sink, whose commits are
    /// advisory: the offsets are overwritten.
    pub from: Option<Positions>,
    pub upto: Positions,
}

/// The channel for a request's answer.
pub(super) type Reply<T> = oneshot::Sender<Result<T, LogError>>;

/// A request to the writer task.
#[derive(Debug)]
pub(super) enum Request {
    Append {
        records: Vec<PackedRecord>,
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
    /// Writes a page without changing it, to test whether writes work.
    Probe {
        reply: Reply<()>,
    },
}

/// Owns the writer task and the channel to it.
#[derive(Debug)]
pub(super) struct LogWriter {
    /// The only strong sender. `None` after the close, which ends the task.
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    task: Mutex<Option<JoinHandle<()>>>,
    /// The sender without a lock, for requests. Weak, so that the close drops the last strong sender.
    sender: mpsc::WeakSender<Request>,
    closing: AtomicBool,
}

impl LogWriter {
    /// Starts the writer task.
    pub fn spawn(connection: WriterConnection, state: Arc<LogState>, clock: Arc<dyn Clock>) -> Self {
        let (sender, requests) = mpsc::channel(QUEUED_REQUESTS);
        let task = tokio::spawn(WriterTask { connection, state, clock }.run(requests));
        let weak = sender.downgrade();
        Self {
            requests: Mutex::new(Some(sender)),
            task: Mutex::new(Some(task)),
            sender: weak,
            closing: AtomicBool::new(false),
        }
    }

    /// Sends a request and waits for the answer.
    pub async fn request<T>(&self, new_request: impl FnOnce(Reply<T>) -> Request) -> Result<T, LogError> {
        let (reply, answer) = oneshot::channel();
        let sender = self.sender.upgrade().ok_or(LogError::Closed)?;
        sender.send(new_request(reply)).await.map_err(|_| self.ended())?;
        drop(sender);
        answer.await.map_err(|_| self.ended())?
    }

    /// The error for a task that has ended: the log was closed, or the task panicked.
    fn ended(&self) -> LogError {
        match self.closing.load(Ordering::Acquire) {
            true => LogError::Closed,
            false => LogError::Unavailable("the log's writer task ended with a panic; restart the process".into()),
        }
    }

    /// Fails if the task has ended.
    pub fn check(&self) -> Result<(), LogError> {
        match self.sender.upgrade() {
            Some(sender) if !sender.is_closed() => Ok(()),
            _ => Err(self.ended()),
        }
    }

    /// Rejects new requests, and waits until the accepted ones are durable.
    pub async fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.requests.lock().await.take();
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "log writer task ended with a panic");
        }
    }
}

/// The state of the writer task.
struct WriterTask {
    connection: WriterConnection,
    state: Arc<LogState>,
    clock: Arc<dyn Clock>,
}

/// The fields of [`Request::Append`].
pub(super) type AppendRequest = (Vec<PackedRecord>, Option<Advance>, Reply<Vec<Position>>);

impl WriterTask {
    /// Handles requests until the channel is closed.
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut next = None;
        loop {
            let request = match next.take() {
                Some(request) => request,
                None => match requests.recv().await {
                    Some(request) => request,
                    None => break,
                },
            };
            match request {
                Request::Append { records, advance, reply } => {
                    let mut group = vec![(records, advance, reply)];
                    let size = |records: &[PackedRecord]| {
                        records.iter().map(|r| r.value.as_ref().map_or(0, Vec::len)).sum::<usize>()
                    };
                    let (mut count, mut bytes) = (group[0].0.len(), size(&group[0].0));
                    while count < MAX_COMMIT_RECORDS && bytes < MAX_COMMIT_BYTES {
                        match requests.try_recv() {
                            Ok(Request::Append { records, advance, reply }) => {
                                count += records.len();
                                bytes += size(&records);
                                group.push((records, advance, reply));
                            }
                            Ok(other) => {
                                next = Some(other);
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

    /// Commits the appends in one transaction. A fenced request is rejected alone.
    async fn append(&mut self, group: Vec<AppendRequest>) {
        let now = self.clock.now().0;
        let connection = match self.connection.open().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::error!(%error, "append rejected: the log file is not writable");
                for (_, _, reply) in group {
                    let _ = reply.send(Err(error.repeated()));
                }
                return;
            }
        };
        let mut commit = GroupCommit::new(now);
        let outcome = commit.write(connection, &self.state, group).await;
        let outcome = self.connection.finish(outcome).await;
        let GroupCommit { changed, rows, replies, .. } = commit;
        match outcome {
            Ok(()) => {
                cache_appended(&mut self.state.recent(), rows);
                self.state.publish(changed);
                for PendingReply { positions, reply } in replies {
                    let _ = reply.send(positions);
                }
            }
            Err(error) => {
                tracing::error!(%error, "append failed");
                for PendingReply { reply, .. } in replies {
                    let _ = reply.send(Err(error.repeated()));
                }
            }
        }
    }

    async fn ensure_topics(&mut self, topics: Vec<TopicSpec>) -> Result<(), LogError> {
        definitions::check_topics(&self.state, &topics)?;
        let stored = definitions::put_topics(self.connection.open().await?, topics).await;
        for topic in self.connection.finish(stored).await? {
            let partitions = 0..topic.spec.partitions;
            self.state.put_topic(topic, partitions);
        }
        Ok(())
    }

    async fn put_schema(&mut self, event: &str, json: &str) -> Result<SchemaId, LogError> {
        let schema = carbon_schemas::parse(json).map_err(LogError::Corrupt)?;
        let fingerprint = Fingerprint::of(&schema);
        let put = definitions::put_schema(self.connection.open().await?, fingerprint, event, json).await;
        self.connection.finish(put).await?;
        Ok(SchemaId::Fingerprint(fingerprint))
    }

    async fn delete_records(&mut self, before: &Positions) -> Result<(), LogError> {
        let changed = compact::delete_below(self.connection.open().await?, &self.state, before).await;
        self.state.recent().clear();
        self.state.publish(self.connection.finish(changed).await?);
        Ok(())
    }

    async fn compact(&mut self) -> Result<CompactionReport, LogError> {
        let now = self.clock.now();
        let compacted = compact::compact(self.connection.open().await?, &self.state, now).await;
        self.state.recent().clear();
        let (report, changed) = self.connection.finish(compacted).await?;
        self.state.publish(changed);
        Ok(report)
    }

    /// Tests whether writes work.
    async fn probe(&mut self) -> Result<(), LogError> {
        let connection = self.connection.open().await?;
        // `user_version` is not used otherwise. Setting it writes the first page and syncs it.
        let outcome = sqlx::query("PRAGMA user_version = 0").execute(connection).await;
        let outcome = outcome.map(drop).map_err(LogError::from);
        self.connection.finish(outcome).await
    }
}
