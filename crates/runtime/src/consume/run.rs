//! How a processor is started, and what surrounds its sessions: restarts, backoff, halts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use carbon_core::{GenerationId, Partitioner, Positions, TopicName, TopicPartition};
use carbon_log::{EventLog, Group};
use carbon_schemas::Feed;
use carbon_topology::{Batch, Topic};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

use super::batch::Worker;
use super::error::ProcessorError;
use super::faults::{Faults, HALTED_RETRY};
use super::flight::Flight;
use super::landing::Backoff;
use super::progress::{Phase, ProcessorHandle, ProcessorView, Progress};
use super::sink::{Sink, SinkWorker};
use super::stage::{Stage, StageWorker};
use crate::Shutdown;
use crate::panics::caught;

/// Lets a switch of generations stand between two commits of a processor: it then knows what is committed.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<RwLock<()>>);

impl Gate {
    /// Held by a commit.
    pub(super) async fn enter(&self) -> OwnedRwLockReadGuard<()> {
        self.0.clone().read_owned().await
    }

    /// Waits for the commit under way, and holds up the next until the guard is dropped.
    pub async fn close(&self) -> OwnedRwLockWriteGuard<()> {
        self.0.clone().write_owned().await
    }
}

/// How a processor runs.
#[derive(Clone)]
pub struct Options {
    pub name: String,
    /// The generation that it fills, where it fills one.
    pub generation: Option<GenerationId>,
    pub group: Group,
    /// The topics that it consumes.
    pub topics: Vec<Topic>,
    pub batch: Batch,
    pub log: Arc<dyn EventLog>,
    pub shutdown: Shutdown,
    pub gate: Gate,
    /// How long a halted processor waits before it tries again.
    pub halted_retry: Duration,
}

impl Options {
    pub fn new(
        name: impl Into<String>,
        group: Group,
        topics: Vec<Topic>,
        batch: Batch,
        log: Arc<dyn EventLog>,
        shutdown: Shutdown,
    ) -> Self {
        let (name, gate) = (name.into(), Gate::default());
        Self { name, generation: None, group, topics, batch, log, shutdown, gate, halted_retry: HALTED_RETRY }
    }
}

/// Starts a sink whose group this process has to itself.
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
    let topics: Vec<_> = options.topics.iter().map(|topic| topic.spec.name.clone()).collect();
    let mut view = ProcessorView::new(options.name.clone(), options.group.clone(), topics, progress);
    view.shared = shared;
    view.generation = options.generation.clone();
    let decoders = W::In::decoders(&|name| {
        let topic = options.topics.iter().find(|topic| topic.spec.name.as_str() == name);
        topic.map_or((1, Partitioner::default()), |topic| (topic.spec.partitions, topic.spec.partitioner))
    });
    let name: Arc<str> = options.name.as_str().into();
    let generation: Arc<str> = options.generation.as_ref().map_or("", GenerationId::as_str).into();
    let (stop, gate) = (options.shutdown.child_token(), options.gate.clone());
    let backoff = Backoff::new(name, generation, sender.clone(), stop.clone());
    let worker = Arc::new(worker);
    let run = Loop {
        flight: Flight::new(worker.clone(), options.log.clone(), options.gate.clone(), backoff.fresh()),
        worker,
        options: Options { shutdown: stop.clone(), ..options },
        decoders,
        progress: sender,
        committed: Positions::new(),
        ended: Positions::new(),
        at_end: BTreeSet::new(),
        advice_due: None,
        backoff,
        faults: Faults::default(),
    };
    ProcessorHandle { view, task: tokio::spawn(run.run()), stop, gate }
}

pub(super) struct Loop<W: Worker> {
    pub worker: Arc<W>,
    pub options: Options,
    pub decoders: <W::In as Feed>::Decoders,
    pub progress: watch::Sender<Progress>,
    /// The records between their decoding and their commit.
    pub flight: Flight<W>,
    /// Where the worker's own checkpoint stands: a batch's compare-and-swap begins there.
    pub committed: Positions,
    /// Ends that were seen and are not passed yet.
    pub ended: Positions,
    /// Partitions that are at their end, as far as this session has seen.
    pub at_end: BTreeSet<TopicPartition>,
    /// When the group's offsets are next committed; `None` when the log knows them.
    pub advice_due: Option<tokio::time::Instant>,
    pub backoff: Backoff,
    pub faults: Faults,
}

/// Why a session ended.
pub(super) enum Left {
    Shutdown,
    /// Another member has the position, or the stream ended: join again.
    Rejoin,
}

impl<W: Worker> Loop<W> {
    async fn run(mut self) {
        while !self.options.shutdown.is_cancelled() {
            let left = caught(self.session()).await.unwrap_or_else(|panic| Err(panic.into()));
            self.clear();
            match left {
                Ok(Left::Shutdown) => break,
                Ok(Left::Rejoin) => {}
                Err(error) => self.failed(error).await,
            }
        }
        self.flight.say_what_is_owed();
        self.progress.send_modify(|now| {
            now.phase = Phase::Stopped;
            now.busy_since = None;
        });
    }

    /// Joins the group and consumes until the partitions are lost, the stream ends, or something fails.
    async fn session(&mut self) -> Result<Left, ProcessorError> {
        let topics: Vec<TopicName> = self.options.topics.iter().map(|topic| topic.spec.name.clone()).collect();
        let stream = self.options.log.subscribe(&self.options.group, &topics).await?;
        self.consume(stream).await
    }

    /// Forgets what was under way: the next session starts from the checkpoint.
    fn clear(&mut self) {
        self.flight.abandon();
        self.committed = Positions::new();
        self.ended = Positions::new();
        self.at_end.clear();
        self.advice_due = None;
        self.progress.send_modify(|now| now.busy_since = None);
    }

    /// Waits after an error; the fifth internal one at a position halts the processor there.
    async fn failed(&mut self, error: ProcessorError) {
        if !error.is_internal() {
            return self.backoff.wait_after(&error).await;
        }
        let (name, generation) = (self.options.name.clone(), self.generation());
        metrics::counter!("processor_restarts_total", "processor" => name, "generation" => generation).increment(1);
        let from = error.positions().cloned().unwrap_or_default();
        let upto = self.flight.last_upto();
        if !self.faults.count(&from, upto.as_ref()) {
            return self.backoff.wait_after(&error).await;
        }
        let at = from.to_string();
        tracing::error!(processor = %self.options.name, generation = self.generation(), at, %error, "halted");
        self.progress.send_modify(|now| now.phase = Phase::Halted { at, error: error.to_string() });
        self.backoff.wait(self.options.halted_retry).await;
    }

    pub fn generation(&self) -> String {
        self.options.generation.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// The partitions that wait for a newer program.
    pub fn waits_for_newer(&self, at: &TopicPartition) -> bool {
        self.progress.borrow().halted.contains_key(at)
    }

    pub fn set_halted(&self, at: TopicPartition, needs: String) {
        self.progress.send_modify(|now| {
            now.halted.insert(at, needs);
        });
    }

    pub fn forget_halted(&self, partitions: &[TopicPartition]) {
        let halted = |halted: &mut BTreeMap<TopicPartition, String>| halted.retain(|at, _| !partitions.contains(at));
        self.progress.send_modify(|now| halted(&mut now.halted));
    }
}
