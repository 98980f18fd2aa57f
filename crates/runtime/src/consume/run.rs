//! The loop itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carbon_core::{Partitioner, Positions, TopicName, TopicPartition};
use carbon_log::{Delivery, EventLog, Group, NewRecord, Record, RecordStream};
use carbon_schemas::{DecodeError, Event as _, Feed};
use carbon_topology::{Batch, Topic};
use tokio::sync::watch;

use super::batch::{Worker, WorkerError};
use super::error::ProcessorError;
use super::landing::{Backoff, Landed, Landing, Prepared, landed};
use super::progress::{Phase, ProcessorHandle, ProcessorView, Progress};
use super::sink::{Sink, SinkWorker};
use super::stage::{Stage, StageWorker};
use crate::Shutdown;
use crate::dead_letters::dead_letter;

/// How a processor runs.
#[derive(Clone)]
pub struct Options {
    pub name: String,
    pub group: Group,
    /// The topics that it consumes.
    pub topics: Vec<Topic>,
    pub batch: Batch,
    pub log: Arc<dyn EventLog>,
    pub shutdown: Shutdown,
}

pub fn spawn_sink<S: Sink>(sink: S, options: Options) -> ProcessorHandle {
    let worker = SinkWorker::new(sink, options.log.clone(), options.group.clone());
    spawn(worker, options, false)
}

/// A sink whose group several processes share: each partition is one member's at a time.
pub fn spawn_shared_sink<S: Sink>(sink: S, options: Options) -> ProcessorHandle {
    let worker = SinkWorker::new(sink, options.log.clone(), options.group.clone());
    spawn(worker, options, true)
}

pub fn spawn_stage<S: Stage>(stage: S, options: Options) -> ProcessorHandle {
    let worker = StageWorker { stage, log: options.log.clone(), group: options.group.clone() };
    spawn(worker, options, true)
}

fn spawn<W: Worker>(worker: W, options: Options, shared: bool) -> ProcessorHandle {
    let (sender, progress) = watch::channel(Progress::default());
    let (name, group) = (options.name.clone(), options.group.clone());
    let topics: Vec<_> = options.topics.iter().map(|topic| topic.spec.name.clone()).collect();
    let view = ProcessorView { name, group, topics, shared, progress };
    let decoders = W::In::decoders(&|name| {
        let topic = options.topics.iter().find(|topic| topic.spec.name.as_str() == name);
        topic.map_or((1, Partitioner::default()), |topic| (topic.spec.partitions, topic.spec.partitioner))
    });
    let backoff = Backoff::new(options.name.clone(), sender.clone(), options.shutdown.clone());
    let run = Loop {
        worker: Arc::new(worker),
        options,
        decoders,
        progress: sender,
        pending: Vec::new(),
        letters: Vec::new(),
        landing: None,
        committed: Positions::new(),
        ended: Positions::new(),
        advice_due: None,
        backoff,
    };
    ProcessorHandle { view, task: tokio::spawn(run.run()) }
}

struct Loop<W: Worker> {
    worker: Arc<W>,
    options: Options,
    decoders: <W::In as Feed>::Decoders,
    progress: watch::Sender<Progress>,
    pending: Vec<W::In>,
    letters: Vec<NewRecord>,
    /// The batch that lands while the next one is made ready.
    landing: Option<Landing>,
    /// Where the worker's own checkpoint stands: a batch's compare-and-swap begins there.
    committed: Positions,
    /// Ends that were seen and are not passed yet.
    ended: Positions,
    /// When the log is next told how far this is; `None` when it knows.
    advice_due: Option<tokio::time::Instant>,
    backoff: Backoff,
}

/// How often the log is told how far a sink is.
const ADVICE: Duration = Duration::from_secs(1);

/// Why the stream was left.
enum Left {
    Shutdown,
    /// The position is somebody else's, or the stream broke: join again.
    Rejoin,
}

impl<W: Worker> Loop<W> {
    async fn run(mut self) {
        let shutdown = self.options.shutdown.clone();
        while !shutdown.is_cancelled() {
            let topics: Vec<TopicName> = self.options.topics.iter().map(|topic| topic.spec.name.clone()).collect();
            let left = match self.options.log.subscribe(&self.options.group, &topics).await {
                Ok(stream) => self.consume(stream).await,
                Err(error) => Err(error.into()),
            };
            // What is on its way ends before anything is read again.
            let left = match self.settle().await {
                Ok(_) => left,
                Err(error) => left.and(Err(error)),
            };
            self.pending.clear();
            self.letters.clear();
            self.committed = Positions::new();
            self.ended = Positions::new();
            self.advice_due = None;
            match left {
                Ok(Left::Shutdown) => break,
                Ok(Left::Rejoin) => {}
                Err(error) => self.backoff.wait_after(&error).await,
            }
        }
        self.progress.send_modify(|now| now.phase = Phase::Stopped);
    }

    async fn consume(&mut self, mut stream: RecordStream) -> Result<Left, ProcessorError> {
        let shutdown = self.options.shutdown.clone();
        loop {
            let due = self.advice_due;
            let delivery = tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    if self.flush().await? {
                        self.settle().await?;
                    }
                    self.advise().await?;
                    return Ok(Left::Shutdown);
                }
                landed = landed(&mut self.landing) => {
                    if !self.settled(landed)? || !self.flush().await? || !self.pass_idle().await? {
                        return Ok(Left::Rejoin);
                    }
                    continue;
                }
                delivery = stream.next() => delivery,
                () = tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => {
                    self.advise().await?;
                    continue;
                }
            };
            let mut delivery = match delivery {
                Some(delivery) => delivery?,
                None => return Ok(if shutdown.is_cancelled() { Left::Shutdown } else { Left::Rejoin }),
            };
            let began = Instant::now();
            loop {
                if !self.take(delivery).await? {
                    return Ok(Left::Rejoin);
                }
                // Under load a batch fills up to N records or T; an empty queue commits at once.
                let lingered = began.elapsed() >= self.options.batch.linger && !self.holds();
                let full = self.pending.len() >= self.options.batch.records || lingered;
                match stream.try_next() {
                    Some(next) if !full => delivery = next?,
                    Some(next) => {
                        if !self.flush().await? {
                            return Ok(Left::Rejoin);
                        }
                        delivery = next?;
                    }
                    None => break,
                }
            }
            if (!self.holds() && !self.flush().await?) || !self.pass_idle().await? {
                return Ok(Left::Rejoin);
            }
        }
    }

    /// Whether nothing is gained by a flush: it would wait for the batch that lands.
    fn holds(&self) -> bool {
        !W::PREPARES && self.landing.as_ref().is_some_and(|landing| !landing.has_ended())
    }

    /// Takes one message; false when the partitions are gone.
    async fn take(&mut self, delivery: Delivery) -> Result<bool, ProcessorError> {
        match delivery {
            Delivery::Assigned { partitions, start } => {
                if !self.flush().await? || !self.settle().await? {
                    return Ok(false);
                }
                let (positions, rebuilt) = self.worker.start(&partitions).await?;
                // A cooperative rebalance adds to what is here already.
                positions.iter().for_each(|(at, next)| self.committed.set(at.clone(), next));
                self.progress.send_modify(|now| {
                    positions.iter().for_each(|(at, next)| now.positions.set(at.clone(), next));
                    now.phase = Phase::Running;
                    now.halted.retain(|at, _| !partitions.contains(at));
                    now.rebuilt = rebuilt.or(now.rebuilt.take());
                });
                if self.worker.owes_advice(&positions) {
                    self.advice_due.get_or_insert_with(tokio::time::Instant::now);
                }
                tracing::debug!(processor = %self.options.name, group = %self.options.group, %positions, "assigned");
                let _ = start.send(positions);
                if let Err(error) = self.worker.open().await {
                    tracing::debug!(processor = %self.options.name, %error, "not opened beforehand");
                }
            }
            Delivery::Records(records) => {
                for record in records {
                    self.decode(record).await?;
                }
            }
            Delivery::Ended { at, next } => {
                self.ended.set(at, next);
            }
            Delivery::Revoked { partitions, done } => {
                let landed = match self.flush().await {
                    Ok(true) => self.settle().await,
                    other => other,
                };
                self.advise().await?;
                for at in &partitions {
                    self.committed.remove(at);
                    self.ended.remove(at);
                }
                self.progress.send_modify(|now| {
                    partitions.iter().for_each(|at| now.positions.remove(at));
                    now.halted.retain(|at, _| !partitions.contains(at));
                });
                let _ = done.send(());
                return landed;
            }
        }
        Ok(true)
    }

    /// Passes all ends where nothing is on its way.
    async fn pass_idle(&mut self) -> Result<bool, ProcessorError> {
        match self.landing {
            None => self.pass_ends(&[]).await,
            Some(_) => Ok(true),
        }
    }

    /// Passes the ends that were seen, but those of partitions that have records on their way.
    async fn pass_ends(&mut self, on_their_way: &[&[W::In]]) -> Result<bool, ProcessorError> {
        if self.ended.is_empty() {
            return Ok(true);
        }
        let records = on_their_way.iter().copied().flatten().chain(&self.pending);
        let busy: BTreeSet<_> = records.map(|record| record.position().topic_partition()).collect();
        for (at, next) in std::mem::take(&mut self.ended).iter() {
            if busy.contains(at) {
                self.ended.set(at.clone(), next);
            } else if !self.progress.borrow().halted.contains_key(at) && !self.pass(at.clone(), next).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The end of a partition was seen: what lies before it was compacted away, or is a transaction's marker.
    async fn pass(&mut self, at: TopicPartition, next: u64) -> Result<bool, ProcessorError> {
        if self.progress.borrow().positions.next(&at) >= next {
            return Ok(true);
        }
        let from = Positions::from_iter([(at.clone(), self.committed.next(&at))]);
        let upto = Positions::from_iter([(at.clone(), next)]);
        match self.worker.pass(&from, &upto).await {
            Ok(true) => self.committed.set(at.clone(), next),
            Ok(false) => {}
            Err(WorkerError::Lost { actual }) => return Ok(self.lost(&actual, &from)),
            Err(WorkerError::Failed(error)) => return Err(error),
        }
        self.progress.send_modify(|now| now.positions.set(at, next));
        self.advice_due.get_or_insert_with(|| tokio::time::Instant::now() + ADVICE);
        Ok(true)
    }

    fn lost(&self, actual: &Positions, from: &Positions) -> bool {
        tracing::warn!(processor = %self.options.name, %actual, %from, "position moved by another; joining again");
        false
    }

    async fn decode(&mut self, record: Record) -> Result<(), ProcessorError> {
        if self.progress.borrow().halted.contains_key(&record.position.topic_partition()) {
            return Ok(());
        }
        let decoded = loop {
            match W::In::decode(&mut self.decoders, &record.raw()) {
                Ok(decoded) => break self.worker.check(decoded),
                Err(DecodeError::NeedSchema(id)) => {
                    // A registry that does not answer is waited for, by the retry of the whole stream.
                    let schema = self.options.log.schema(id).await?;
                    W::In::learn(&mut self.decoders, record.position.topic.as_str(), id, schema.as_deref());
                }
                Err(DecodeError::Newer { position, needs }) => {
                    tracing::error!(processor = %self.options.name, %position, needs, "halted: a newer program wrote this record");
                    self.progress.send_modify(|now| {
                        now.halted.insert(position.topic_partition(), needs);
                    });
                    return Ok(());
                }
            }
        };
        if let Some(poison) = decoded.poison()
            && self.worker.reports(&record.position)
        {
            let (reason, position) = (poison.reason.as_str(), &record.position);
            tracing::warn!(processor = %self.options.name, %position, reason, message = %poison.message, "dead letter");
            metrics::counter!("dead_letters_total", "processor" => self.options.name.clone(), "reason" => reason)
                .increment(1);
            // A poisonous dead letter ends here: reporting it would go in a circle.
            if record.position.topic.as_str() != carbon_schemas::events::DeadLetter::NAME {
                self.letters.push(dead_letter(&self.options.name, &record, poison)?);
            }
            self.progress.send_modify(|now| *now.dead_letters.entry(reason).or_default() += 1);
        }
        self.pending.push(decoded);
        Ok(())
    }

    /// Makes what is pending ready, in batches, and lets each land. False when the position is lost.
    async fn flush(&mut self) -> Result<bool, ProcessorError> {
        let mut letters = std::mem::take(&mut self.letters);
        let mut pending = std::mem::take(&mut self.pending);
        while !pending.is_empty() {
            let rest = pending.split_off(pending.len().min(self.options.batch.records));
            let batch = Arc::new(std::mem::replace(&mut pending, rest));
            let Some(ready) = self.prepare(&batch).await else { return Ok(false) };
            if !self.settle().await? || !self.pass_ends(&[&batch, &pending]).await? {
                return Ok(false);
            }
            let mut upto = Positions::new();
            batch.iter().for_each(|record| upto.advance_past(record.position()));
            let from: Positions = upto.iter().map(|(at, _)| (at.clone(), self.committed.next(at))).collect();
            // All letters go with the first batch: they may come early, never late.
            let letters = std::mem::take(&mut letters);
            let prepared = Prepared { ready, records: batch.len(), letters, from, upto };
            self.landing = Some(Landing::start(self.worker.clone(), prepared, self.backoff.fresh()));
        }
        Ok(true)
    }

    /// Tries until it succeeds; `None` at a shutdown.
    async fn prepare(&mut self, batch: &Arc<Vec<W::In>>) -> Option<W::Ready> {
        loop {
            match self.worker.prepare(batch).await {
                Ok(ready) => {
                    self.backoff.succeeded();
                    return Some(ready);
                }
                Err(error) => self.backoff.wait_after(&error).await,
            }
            if self.options.shutdown.is_cancelled() {
                return None;
            }
        }
    }

    /// Waits for the batch that lands. False when the position is lost.
    async fn settle(&mut self) -> Result<bool, ProcessorError> {
        match self.landing.is_some() {
            true => {
                let landed = landed(&mut self.landing).await;
                self.settled(landed)
            }
            false => Ok(true),
        }
    }

    fn settled(&mut self, landed: Result<Landed, ProcessorError>) -> Result<bool, ProcessorError> {
        match landed? {
            Landed::At(upto) => {
                self.committed.merge(&upto);
                self.advice_due.get_or_insert_with(|| tokio::time::Instant::now() + ADVICE);
                Ok(true)
            }
            Landed::Lost { actual, from } => Ok(self.lost(&actual, &from)),
            Landed::GivenUp => Ok(false),
        }
    }

    async fn advise(&mut self) -> Result<(), ProcessorError> {
        if self.advice_due.take().is_some() {
            // With the ends that were seen, so that who asks the log sees no lag where there is none.
            let mut positions = self.committed.clone();
            let seen = self.progress.borrow().positions.clone();
            positions.merge(&seen);
            self.worker.advise(&positions).await?;
        }
        Ok(())
    }
}
