//! Subscriptions and followers. One thread polls each consumer, so that librdkafka's blocking calls stay off the async
//! threads. Each rebalance becomes a delivery, and the polling thread waits for the subscriber's answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use carbon_core::{Positions, TopicPartition};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaRespErr};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::{
    REQUEST_TIMEOUT, kafka_offset, lock, partition_list, partition_number, partitions, positions, reason, trace_error,
    trace_log, unavailable,
};
use super::end_tracker::{EndTracker, Gap};
use super::groups::ConsumerGroups;
use super::member::Member;
use super::options::KafkaOptions;
use super::reader::{ReaderPool, record};
use crate::error::LogError;
use crate::event_log::Group;
use crate::record::Record;
use crate::stream::{Delivery, RecordStream};

/// Maximum number of records in one delivery.
const MAX_DELIVERY_RECORDS: usize = 1000;
/// Size of the keys and values at which a delivery is sent: 4 MiB.
const MAX_DELIVERY_BYTES: usize = 4 * 1024 * 1024;
/// Number of deliveries that a stream buffers.
const BUFFERED_DELIVERIES: usize = 2;
/// How long one poll waits for a record. Also the maximum time that a polled record waits for more records, and the
/// interval at which the thread checks whether the stream was dropped.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// Owns the polling threads of this process's subscriptions and followers.
pub(super) struct Subscriptions {
    options: Arc<KafkaOptions>,
    groups: Arc<ConsumerGroups>,
    readers: Arc<ReaderPool>,
    /// Holds one token per polling thread.
    threads: TaskTracker,
    closed: CancellationToken,
}

impl Subscriptions {
    /// The threads end when `closed` is cancelled.
    pub fn new(
        options: Arc<KafkaOptions>,
        groups: Arc<ConsumerGroups>,
        readers: Arc<ReaderPool>,
        closed: CancellationToken,
    ) -> Self {
        Self { options, groups, readers, threads: TaskTracker::new(), closed }
    }

    /// Joins a group, and reads the topics as its member.
    pub fn subscribe(&self, group: &Group, topics: &[&str]) -> Result<RecordStream, LogError> {
        let member = Arc::new(Member::default());
        let (context, stream) = self.context(member.clone());
        let consumer: BaseConsumer<SubscriptionContext> = self
            .options
            .member(group)
            .create_with_context(context)
            .map_err(|error| unavailable("creating a group member failed", &error))?;
        let consumer = Arc::new(consumer);
        member.set_consumer(&consumer);
        consumer.subscribe(topics).map_err(|error| unavailable("subscribing to topics failed", &error))?;
        self.groups.add_member(group, member);
        self.spawn_polling(consumer)?;
        Ok(stream)
    }

    /// Reads partitions from these positions on, without a group.
    pub fn follow(&self, from: &Positions) -> Result<RecordStream, LogError> {
        let (context, stream) = self.context(Arc::default());
        for (at, next) in from.iter() {
            lock(&context.ends).start(at.clone(), next);
        }
        let consumer: BaseConsumer<SubscriptionContext> = self
            .options
            .follower()
            .create_with_context(context)
            .map_err(|error| unavailable("creating a follower failed", &error))?;
        consumer.assign(&partition_list(from)?).map_err(|error| unavailable("assigning partitions failed", &error))?;
        self.spawn_polling(Arc::new(consumer))?;
        Ok(stream)
    }

    fn context(&self, member: Arc<Member>) -> (SubscriptionContext, RecordStream) {
        let (sender, deliveries) = mpsc::channel(BUFFERED_DELIVERIES);
        let context = SubscriptionContext {
            sender,
            handle: Handle::current(),
            closed: self.closed.clone(),
            member,
            pending: Mutex::default(),
            ends: Mutex::default(),
            gap_reads: Arc::default(),
            readers: Arc::downgrade(&self.readers),
            stopped: AtomicBool::new(false),
        };
        (context, RecordStream::new(deliveries))
    }

    fn spawn_polling(&self, consumer: Arc<BaseConsumer<SubscriptionContext>>) -> Result<(), LogError> {
        let token = self.threads.token();
        let run = move || {
            poll_until_stopped(&consumer);
            consumer.context().stopped.store(true, Ordering::Relaxed);
            // The consumer leaves its group before the thread counts as ended.
            drop(consumer);
            drop(token);
        };
        let thread = std::thread::Builder::new().name("kafka-poll".into()).spawn(run);
        thread
            .map(drop)
            .map_err(|source| LogError::Io { path: "starting a kafka polling thread failed".into(), source })
    }

    /// Waits until all threads have ended. They end once `closed` is cancelled.
    pub async fn close(&self) {
        self.threads.close();
        if tokio::time::timeout(REQUEST_TIMEOUT, self.threads.wait()).await.is_err() {
            tracing::warn!("kafka polling thread did not end in time; closing without it");
        }
    }
}

/// A gap that was read, with the end offset of its partition. `None` if the gap contains a record, or the read failed.
type GapRead = (Gap, Option<u64>);

/// Owns the state that the polling thread shares with the callbacks of librdkafka.
pub(super) struct SubscriptionContext {
    sender: mpsc::Sender<Result<Delivery, LogError>>,
    handle: Handle,
    closed: CancellationToken,
    member: Arc<Member>,
    /// Records that were polled and not sent yet.
    pending: Mutex<Vec<Record>>,
    ends: Mutex<EndTracker>,
    /// Finished reads of gaps, which the polling thread has not processed yet.
    gap_reads: Arc<Mutex<Vec<GapRead>>>,
    /// Weak: a subscription does not keep a dropped log's clients open.
    readers: Weak<ReaderPool>,
    /// The stream was dropped, or has failed.
    stopped: AtomicBool,
}

impl SubscriptionContext {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.closed.is_cancelled() || self.sender.is_closed()
    }

    /// Blocks until the future is ready or the log is closed. `None` stops the subscription.
    fn wait<T>(&self, future: impl Future<Output = Option<T>>) -> Option<T> {
        let answer = self.handle.block_on(async {
            tokio::select! {
                biased;
                () = self.closed.cancelled() => None,
                answer = future => answer,
            }
        });
        if answer.is_none() {
            self.stopped.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Sends a delivery. Blocks while the stream's buffer is full. `None` if the stream was dropped or the log is
    /// closed.
    fn send(&self, delivery: Result<Delivery, LogError>) -> Option<()> {
        self.wait(async { self.sender.send(delivery).await.ok() })
    }

    /// Sends the pending records.
    fn flush(&self) {
        let records = std::mem::take(&mut *lock(&self.pending));
        if !records.is_empty() && !self.is_stopped() {
            self.send(Ok(Delivery::Records(records)));
        }
    }

    fn send_ends(&self, ends: impl IntoIterator<Item = (TopicPartition, u64)>) {
        for (at, next) in ends {
            self.flush();
            self.send(Ok(Delivery::Ended { at, next }));
        }
    }

    /// Reads gaps in a task, one after the other. The polling thread goes on meanwhile.
    fn spawn_gap_reads(&self, gaps: Vec<Gap>) {
        let (Some(readers), gap_reads) = (self.readers.upgrade(), self.gap_reads.clone()) else { return };
        self.handle.spawn(async move {
            for gap in gaps {
                let end = readers.end_without_records(&gap.at, gap.from).await;
                let end = end.unwrap_or_else(|error| {
                    tracing::debug!(%error, at = %gap.at, "reading the gap before an end offset failed; retrying");
                    None
                });
                lock(&gap_reads).push((gap, end));
            }
        });
    }

    /// Sends the ends that the statistics and the finished gap reads have confirmed.
    fn send_confirmed_ends(&self) {
        let gap_reads = std::mem::take(&mut *lock(&self.gap_reads));
        let mut ends = lock(&self.ends).reached();
        ends.extend(gap_reads.iter().filter_map(|(gap, end)| lock(&self.ends).gap_was_read(gap, *end)));
        self.send_ends(ends);
    }

    /// Handles an assignment: asks the subscriber where to start, and assigns the partitions to the consumer.
    fn assigned(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) -> Result<(), LogError> {
        let added = partitions(list);
        let start = if added.is_empty() || self.is_stopped() { None } else { self.start(consumer, &added)? };
        if let Some(start) = start {
            for at in &added {
                let next = start.next(at);
                lock(&self.ends).start(at.clone(), next);
                list.set_partition_offset(at.topic.as_str(), partition_number(at.partition), kafka_offset(next))
                    .map_err(|error| unavailable("setting a start offset failed", &error))?;
            }
        }
        consumer.incremental_assign(list).map_err(|error| unavailable("assigning partitions failed", &error))?;
        let mut ownership = self.member.ownership();
        ownership.renew_epoch();
        ownership.partitions.extend(added);
        Ok(())
    }

    /// The start positions: the subscriber's, else the group's committed offsets, else 0. `None` if the subscription
    /// has stopped.
    fn start(&self, consumer: &BaseConsumer<Self>, added: &[TopicPartition]) -> Result<Option<Positions>, LogError> {
        let (start, answer) = oneshot::channel();
        self.flush();
        if self.send(Ok(Delivery::Assigned { partitions: added.to_vec(), start })).is_none() {
            return Ok(None);
        }
        let Some(mut start) = self.wait(async { answer.await.ok() }) else { return Ok(None) };
        let missing: Positions = added.iter().filter(|at| start.get(at).is_none()).map(|at| (at.clone(), 0)).collect();
        if !missing.is_empty() {
            let committed = consumer.committed_offsets(partition_list(&missing)?, REQUEST_TIMEOUT);
            let committed = committed.map_err(|error| unavailable("reading the offsets of a group failed", &error))?;
            start.merge(&positions(&committed, |_| Some(0)));
        }
        Ok(Some(start))
    }

    /// Handles a revocation: waits for the subscriber's acknowledgement, and unassigns the partitions.
    fn revoked(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<(), LogError> {
        let removed = partitions(list);
        if consumer.assignment_lost() {
            // Another member may own the partitions already, so nothing may be committed for them any more.
            self.member.ownership().partitions.retain(|at| !removed.contains(at));
        }
        self.flush();
        if !removed.is_empty() && !self.is_stopped() {
            let (done, acknowledged) = oneshot::channel();
            if self.send(Ok(Delivery::Revoked { partitions: removed.clone(), done })).is_some() {
                self.wait(async { acknowledged.await.ok() });
            }
        }
        {
            let mut ownership = self.member.ownership();
            ownership.renew_epoch();
            ownership.partitions.retain(|at| !removed.contains(at));
        }
        removed.iter().for_each(|at| lock(&self.ends).remove(at));
        consumer.incremental_unassign(list).map_err(|error| unavailable("unassigning partitions failed", &error))
    }
}

impl ClientContext for SubscriptionContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        trace_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        trace_error(&error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let gaps = lock(&self.ends).statistics(statistics);
        if !gaps.is_empty() {
            self.spawn_gap_reads(gaps);
        }
    }
}

impl ConsumerContext for SubscriptionContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let outcome = match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assigned(consumer, list),
            _ => self.revoked(consumer, list),
        };
        if let Err(error) = outcome {
            // The error ends the stream. The subscriber has to subscribe again.
            self.send(Err(error));
            self.stopped.store(true, Ordering::Relaxed);
        }
    }
}

/// Polls the consumer and sends deliveries until the subscription stops or fails.
fn poll_until_stopped(consumer: &BaseConsumer<SubscriptionContext>) {
    let context = consumer.context();
    let mut bytes = 0;
    let mut oldest_pending = Instant::now();
    let mut timeout = POLL_TIMEOUT;
    while !context.is_stopped() {
        match consumer.poll(timeout) {
            Some(Ok(message)) => {
                timeout = Duration::ZERO;
                let Some(record) = record(&message) else { continue };
                lock(&context.ends).delivered(&record.position);
                bytes += record.bytes();
                let mut pending = lock(&context.pending);
                if pending.is_empty() {
                    oldest_pending = Instant::now();
                }
                pending.push(record);
                let full = pending.len() >= MAX_DELIVERY_RECORDS
                    || bytes >= MAX_DELIVERY_BYTES
                    || oldest_pending.elapsed() >= POLL_TIMEOUT;
                drop(pending);
                if full {
                    context.flush();
                    bytes = 0;
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                context.flush();
                bytes = 0;
                let ended = lock(&context.ends).end_event(partition);
                context.send_ends(ended);
            }
            Some(Err(error)) => {
                if let Some(error) = fatal(&error) {
                    context.flush();
                    context.send(Err(error));
                    return;
                }
                tracing::debug!(%error, "kafka poll failed; polling again");
            }
            None => {
                context.flush();
                bytes = 0;
                context.send_confirmed_ends();
                timeout = POLL_TIMEOUT;
            }
        }
    }
}

/// The error that ends the stream; `None` if polling again may succeed.
fn fatal(error: &KafkaError) -> Option<LogError> {
    if error.rdkafka_error_code() == Some(Code::FencedInstanceId) {
        let message = "another process uses the instance name of this data folder; was the folder copied? stop one of \
                       the processes, and delete the file `instance` in its data folder";
        return Some(LogError::Unavailable(message.into()));
    }
    let unreadable = matches!(
        error.rdkafka_error_code(),
        Some(
            Code::UnknownTopic
                | Code::UnknownTopicOrPartition
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
        )
    );
    let fatal = unreadable || matches!(error, KafkaError::MessageConsumptionFatal(_));
    fatal.then(|| LogError::Unavailable(format!("kafka: reading records failed: {}", reason(error))))
}
