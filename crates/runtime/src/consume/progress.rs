//! What a processor shows of itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carbon_core::{GenerationId, Positions, Timestamp, TopicName, TopicPartition};
use carbon_log::{EventLog, Group, LogError};
use tokio::sync::OwnedRwLockWriteGuard;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::run::Gate;
use super::state::State;
use crate::Shutdown;

/// What a processor is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Running,
    /// An attempt failed and is made again.
    Retrying {
        error: String,
        attempt: u32,
    },
    /// Five attempts failed at one position.
    Halted {
        at: String,
        error: String,
    },
    Stopped,
}

/// A processor's progress, as of its last commit.
#[derive(Clone, Debug)]
pub struct Progress {
    pub phase: Phase,
    /// Everything below is processed.
    pub positions: Positions,
    /// Partitions that wait for a newer program (law 13), and what it must know.
    pub halted: BTreeMap<TopicPartition, String>,
    pub records: u64,
    pub batches: u64,
    pub dead_letters: BTreeMap<&'static str, u64>,
    /// Why the read model was thrown away and is rebuilt, if it was (law 4).
    pub rebuilt: Option<String>,
    /// Since when records have been under way without a commit; `None` when none are.
    pub busy_since: Option<Instant>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            phase: Phase::Starting,
            positions: Positions::new(),
            halted: BTreeMap::new(),
            records: 0,
            batches: 0,
            dead_letters: BTreeMap::new(),
            rebuilt: None,
            busy_since: None,
        }
    }
}

impl Progress {
    /// Whether everything below `ends` is processed: the position has passed it, or the partition's end was
    /// seen there and all records before it are done. Before its first assignment a processor has reached nothing,
    /// since its read model may be of another log.
    pub fn has_reached(&self, ends: &Positions) -> bool {
        ends.iter().all(|(at, end)| self.positions.get(at).is_some_and(|next| next >= end))
    }

    /// How many offsets below `end` are not processed.
    pub fn lag_of(&self, at: &TopicPartition, end: u64) -> u64 {
        end.saturating_sub(self.positions.next(at))
    }
}

/// Where a generation is filled to, while it is.
#[derive(Clone, Debug, Default)]
pub struct FillTarget(Arc<Mutex<Option<Positions>>>);

impl FillTarget {
    pub fn set(&self, target: Option<Positions>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    pub fn get(&self) -> Option<Positions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What others may see of a running processor.
#[derive(Clone, Debug)]
pub struct ProcessorView {
    pub name: String,
    /// The generation that it fills, where it fills one.
    pub generation: Option<GenerationId>,
    pub group: Group,
    /// The topics that it consumes.
    pub topics: Vec<TopicName>,
    /// Whether others may hold a part of the group's partitions: the log knows its position then.
    pub shared: bool,
    pub progress: watch::Receiver<Progress>,
    pub fill: FillTarget,
}

/// How far a processor is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lag {
    pub records: u64,
    /// The age of the oldest record that is not processed.
    pub oldest_event_age_s: Option<f64>,
}

impl Lag {
    /// The lag of a reader at `positions`.
    pub async fn of(
        log: &dyn EventLog,
        topics: &[TopicName],
        positions: &Positions,
        now: Timestamp,
    ) -> Result<Self, LogError> {
        let (mut records, mut oldest) = (0, None);
        for (at, end) in end_offsets(log, topics).await?.iter() {
            let next = positions.next(at);
            let behind = end.saturating_sub(next);
            records += behind;
            if behind > 0
                && let Some(record) = log.read(at, next, 1).await?.first()
            {
                oldest = oldest.max(Some(record.timestamp.age_ms(now)));
            }
        }
        Ok(Self { records, oldest_event_age_s: oldest.map(|ms| ms as f64 / 1e3) })
    }
}

/// The end offsets of topics.
pub async fn end_offsets(log: &dyn EventLog, topics: &[TopicName]) -> Result<Positions, LogError> {
    let mut ends = Positions::new();
    for topic in topics {
        ends.merge(&log.ends(topic).await?);
    }
    Ok(ends)
}

impl ProcessorView {
    pub fn new(name: String, group: Group, topics: Vec<TopicName>, progress: watch::Receiver<Progress>) -> Self {
        Self { name, generation: None, group, topics, shared: false, progress, fill: FillTarget::default() }
    }

    /// What the processor is doing right now.
    pub fn state(&self) -> State {
        State::of(&self.progress.borrow(), self.fill.get().as_ref())
    }

    /// The end offsets of the topics that it consumes.
    pub async fn ends(&self, log: &dyn EventLog) -> Result<Positions, LogError> {
        end_offsets(log, &self.topics).await
    }

    /// Compares the positions with the end offsets.
    pub async fn lag(&self, log: &dyn EventLog, now: Timestamp) -> Result<Lag, LogError> {
        Lag::of(log, &self.topics, &self.positions(log).await?, now).await
    }

    /// The positions of the group.
    pub async fn positions(&self, log: &dyn EventLog) -> Result<Positions, LogError> {
        match self.shared {
            true => log.committed(&self.group).await,
            false => Ok(self.progress.borrow().positions.clone()),
        }
    }

    /// Waits until everything below `ends` is processed; false when the time is over, or the processor.
    pub async fn reached(&self, ends: &Positions, within: Duration) -> bool {
        let mut progress = self.progress.clone();
        let reached = tokio::time::timeout(within, progress.wait_for(|now| now.has_reached(ends))).await;
        matches!(reached, Ok(Ok(_)))
    }
}

/// A running processor.
#[derive(Debug)]
pub struct ProcessorHandle {
    pub(super) view: ProcessorView,
    pub(super) task: JoinHandle<()>,
    pub(super) stop: Shutdown,
    pub(super) gate: Gate,
}

impl ProcessorHandle {
    pub fn view(&self) -> ProcessorView {
        self.view.clone()
    }

    /// Waits for the commit under way, and holds up the next until the guard is dropped.
    pub async fn hold(&self) -> OwnedRwLockWriteGuard<()> {
        self.gate.close().await
    }

    /// Stops this processor alone.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits for the end of the task, after [`Self::stop`] or the shutdown of the process.
    pub async fn join(self) -> Result<(), LogError> {
        let ended = self.task.await;
        ended.map_err(|error| LogError::Unavailable(format!("processor {} ended badly: {error}", self.view.name)))
    }
}
