//! Subscriptions: one thread polls each consumer, off the async threads. Rebalances become messages; the thread
//! waits for their answers.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use carbon_core::{Positions, TopicPartition};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaRespErr};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::client::{PATIENCE, error_line, list, lock, log_line, partitions, positions, reason, unavailable};
use super::ends::{Ends, Gap};
use super::reader::record;
use crate::error::LogError;
use crate::event_log::Group;
use crate::record::Record;
use crate::stream::{Delivery, RecordStream};

/// What one delivery holds at the most.
const BATCH_RECORDS: usize = 1000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How long the thread sleeps where nothing comes; also how soon it sees that nobody listens any more.
const IDLE: Duration = Duration::from_millis(100);

/// What a member may do in the group's name.
#[derive(Default)]
pub(super) struct Grant {
    /// Another one with each rebalance, and no two members have the same.
    pub epoch: u64,
    pub owned: BTreeSet<TopicPartition>,
}

impl Grant {
    fn renew(&mut self) {
        static EPOCHS: AtomicU64 = AtomicU64::new(1);
        self.epoch = EPOCHS.fetch_add(1, Ordering::Relaxed);
    }
}

/// A member of a group, seen by those who commit in its name.
#[derive(Default)]
pub(super) struct Member {
    consumer: Mutex<Weak<BaseConsumer<Context>>>,
    grant: Mutex<Grant>,
}

impl Member {
    pub fn grant(&self) -> MutexGuard<'_, Grant> {
        lock(&self.grant)
    }

    fn consumer(&self) -> MutexGuard<'_, Weak<BaseConsumer<Context>>> {
        lock(&self.consumer)
    }

    pub fn is_alive(&self) -> bool {
        self.consumer().strong_count() > 0
    }

    /// The member's id and generation as of now: a rebalance that leaves it what it has changes them before the
    /// thread that polls knows. `None` where it is no member, or was put out: then it would look like one who never
    /// was one, whom the brokers let pass.
    pub fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        let consumer = self.consumer().upgrade()?;
        let metadata = consumer.group_metadata();
        if consumer.assignment_lost() { None } else { metadata }
    }

    pub fn commit(&self, list: &TopicPartitionList) -> KafkaResult<()> {
        let consumer = self.consumer().upgrade().ok_or(KafkaError::Canceled)?;
        consumer.commit(list, CommitMode::Sync)
    }
}

/// A gap that was read, and to where it holds no record, if it holds none.
type Answer = (Gap, Option<u64>);

/// What the thread and the library's callbacks share.
pub(super) struct Context {
    sender: mpsc::Sender<Result<Delivery, LogError>>,
    handle: Handle,
    closed: CancellationToken,
    member: Arc<Member>,
    pending: Mutex<Vec<Record>>,
    ends: Mutex<Ends>,
    /// Gaps that were read, and to where they hold no record.
    read: Arc<Mutex<Vec<Answer>>>,
    inner: Weak<Inner>,
    /// Nobody listens any more.
    gone: AtomicBool,
}

impl Context {
    fn new(inner: &Arc<Inner>, sender: mpsc::Sender<Result<Delivery, LogError>>, member: Arc<Member>) -> Self {
        Self {
            sender,
            handle: Handle::current(),
            closed: inner.closed.clone(),
            member,
            pending: Mutex::default(),
            ends: Mutex::default(),
            read: Arc::default(),
            inner: Arc::downgrade(inner),
            gone: AtomicBool::new(false),
        }
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed) || self.closed.is_cancelled() || self.sender.is_closed()
    }

    /// Waits for something of the async side, or for the close.
    fn wait<T>(&self, what: impl Future<Output = Option<T>>) -> Option<T> {
        let answer = self.handle.block_on(async {
            tokio::select! {
                biased;
                () = self.closed.cancelled() => None,
                answer = what => answer,
            }
        });
        if answer.is_none() {
            self.gone.store(true, Ordering::Relaxed);
        }
        answer
    }

    fn give(&self, delivery: Result<Delivery, LogError>) -> Option<()> {
        self.wait(async { self.sender.send(delivery).await.ok() })
    }

    /// Hands on what was polled.
    fn flush(&self) {
        let records = std::mem::take(&mut *lock(&self.pending));
        if !records.is_empty() && !self.is_gone() {
            self.give(Ok(Delivery::Records(records)));
        }
    }

    fn tell_ends(&self, ends: impl IntoIterator<Item = (TopicPartition, u64)>) {
        for (at, next) in ends {
            self.flush();
            self.give(Ok(Delivery::Ended { at, next }));
        }
    }

    /// Reads gaps off this thread, which has records to poll; one after the other, by one reader.
    fn read_gaps(&self, gaps: Vec<Gap>) {
        let (Some(inner), read) = (self.inner.upgrade(), self.read.clone()) else { return };
        self.handle.spawn(async move {
            for gap in gaps {
                let end = inner.end_of_nothing(&gap.at, gap.from).await;
                let end = end.unwrap_or_else(|error| {
                    tracing::debug!(%error, at = %gap.at, "a gap cannot be read");
                    None
                });
                lock(&read).push((gap, end));
            }
        });
    }

    fn tell_gaps(&self) {
        let read = std::mem::take(&mut *lock(&self.read));
        let mut ended = lock(&self.ends).reached();
        ended.extend(read.iter().filter_map(|(gap, end)| lock(&self.ends).read(gap, *end)));
        self.tell_ends(ended);
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, tpl: &mut TopicPartitionList) -> Result<(), LogError> {
        let added = partitions(tpl);
        let start = if added.is_empty() || self.is_gone() { None } else { self.start(consumer, &added)? };
        if let Some(start) = start {
            for at in &added {
                let next = start.next(at);
                lock(&self.ends).begin(at.clone(), next);
                let offset = Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX));
                tpl.set_partition_offset(at.topic.as_str(), super::client::number(at.partition), offset)
                    .map_err(|error| unavailable("an offset cannot be set", &error))?;
            }
        }
        consumer.incremental_assign(tpl).map_err(|error| unavailable("partitions cannot be assigned", &error))?;
        let mut grant = self.member.grant();
        grant.renew();
        grant.owned.extend(added);
        Ok(())
    }

    /// Where to start: by the answer, else by the group's offsets, else at the beginning.
    fn start(&self, consumer: &BaseConsumer<Self>, added: &[TopicPartition]) -> Result<Option<Positions>, LogError> {
        let (start, answer) = oneshot::channel();
        self.flush();
        if self.give(Ok(Delivery::Assigned { partitions: added.to_vec(), start })).is_none() {
            return Ok(None);
        }
        let Some(mut start) = self.wait(async { answer.await.ok() }) else { return Ok(None) };
        let unknown: Positions = added.iter().filter(|at| start.get(at).is_none()).map(|at| (at.clone(), 0)).collect();
        if !unknown.is_empty() {
            let committed = consumer.committed_offsets(list(&unknown)?, PATIENCE);
            let committed = committed.map_err(|error| unavailable("a group's offsets cannot be read", &error))?;
            start.merge(&positions(&committed, |_| Some(0)));
        }
        Ok(Some(start))
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, tpl: &TopicPartitionList) -> Result<(), LogError> {
        let removed = partitions(tpl);
        if consumer.assignment_lost() {
            // Somebody else may have them already: nothing is committed for them from here on.
            self.member.grant().owned.retain(|at| !removed.contains(at));
        }
        self.flush();
        if !removed.is_empty() && !self.is_gone() {
            let (done, acknowledged) = oneshot::channel();
            if self.give(Ok(Delivery::Revoked { partitions: removed.clone(), done })).is_some() {
                self.wait(async { acknowledged.await.ok() });
            }
        }
        {
            let mut grant = self.member.grant();
            grant.renew();
            grant.owned.retain(|at| !removed.contains(at));
        }
        removed.iter().for_each(|at| lock(&self.ends).forget(at));
        consumer.incremental_unassign(tpl).map_err(|error| unavailable("partitions cannot be given up", &error))
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log_line(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        error_line(&error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let gaps = lock(&self.ends).statistics(statistics);
        if !gaps.is_empty() {
            self.read_gaps(gaps);
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, tpl: &mut TopicPartitionList) {
        let outcome = match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assigned(consumer, tpl),
            _ => self.revoked(consumer, tpl),
        };
        if let Err(error) = outcome {
            // The stream ends; whoever reads joins again.
            self.give(Err(error));
            self.gone.store(true, Ordering::Relaxed);
        }
    }
}

impl Inner {
    pub(super) fn subscribe(self: &Arc<Self>, group: &Group, topics: &[&str]) -> Result<RecordStream, LogError> {
        let (sender, deliveries) = mpsc::channel(2);
        let member = Arc::new(Member::default());
        let context = Context::new(self, sender, member.clone());
        let consumer: BaseConsumer<Context> = self
            .options
            .member(group)
            .create_with_context(context)
            .map_err(|error| unavailable("a member cannot be made", &error))?;
        let consumer = Arc::new(consumer);
        *member.consumer() = Arc::downgrade(&consumer);
        consumer.subscribe(topics).map_err(|error| unavailable("topics cannot be subscribed to", &error))?;
        self.add_member(group, member);
        self.poll(consumer)?;
        Ok(RecordStream::new(deliveries))
    }

    pub(super) fn follow(self: &Arc<Self>, from: &Positions) -> Result<RecordStream, LogError> {
        let (sender, deliveries) = mpsc::channel(2);
        let context = Context::new(self, sender, Arc::default());
        for (at, next) in from.iter() {
            lock(&context.ends).begin(at.clone(), next);
        }
        let consumer: BaseConsumer<Context> = self
            .options
            .follower()
            .create_with_context(context)
            .map_err(|error| unavailable("a follower cannot be made", &error))?;
        consumer.assign(&list(from)?).map_err(|error| unavailable("partitions cannot be followed", &error))?;
        self.poll(Arc::new(consumer))?;
        Ok(RecordStream::new(deliveries))
    }

    fn poll(&self, consumer: Arc<BaseConsumer<Context>>) -> Result<(), LogError> {
        let token = self.threads.token();
        let run = move || {
            run(&consumer);
            consumer.context().gone.store(true, Ordering::Relaxed);
            // Leaves the group.
            drop(consumer);
            drop(token);
        };
        let thread = std::thread::Builder::new().name("kafka-poll".into()).spawn(run);
        thread.map(drop).map_err(|source| LogError::Io { path: "a thread for the kafka client".into(), source })
    }
}

fn run(consumer: &BaseConsumer<Context>) {
    let context = consumer.context();
    let mut bytes = 0;
    let mut began = Instant::now();
    let mut wait = IDLE;
    while !context.is_gone() {
        match consumer.poll(wait) {
            Some(Ok(message)) => {
                wait = Duration::ZERO;
                let Some(record) = record(&message) else { continue };
                lock(&context.ends).delivered(&record.position);
                bytes += record.bytes();
                let mut pending = lock(&context.pending);
                if pending.is_empty() {
                    began = Instant::now();
                }
                pending.push(record);
                let full = pending.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES || began.elapsed() >= IDLE;
                drop(pending);
                if full {
                    context.flush();
                    bytes = 0;
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                context.flush();
                bytes = 0;
                let ended = lock(&context.ends).ended(partition);
                context.tell_ends(ended);
            }
            Some(Err(error)) => {
                if let Some(error) = fatal(&error) {
                    context.flush();
                    context.give(Err(error));
                    return;
                }
                tracing::debug!(%error, "kafka poll");
            }
            None => {
                context.flush();
                bytes = 0;
                context.tell_gaps();
                wait = IDLE;
            }
        }
    }
}

/// What does not mend itself by polling on.
fn fatal(error: &KafkaError) -> Option<LogError> {
    if error.rdkafka_error_code() == Some(Code::FencedInstanceId) {
        let message = "another process uses the instance name of this data folder; was the folder copied? stop one, \
                       and delete the file `instance` in its data folder";
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
    let ended = unreadable || matches!(error, KafkaError::MessageConsumptionFatal(_));
    ended.then(|| LogError::Unavailable(format!("kafka: records cannot be read: {}", reason(error))))
}
