//! What a processor shows of itself.

use std::collections::BTreeMap;
use std::time::Duration;

use carbon_core::{Positions, Timestamp, TopicName, TopicPartition};
use carbon_log::{EventLog, Group, LogError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a processor is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Running,
    /// An attempt failed and will be made again.
    Retrying {
        error: String,
        attempt: u32,
    },
    Stopped,
}

/// A processor's state, as of its last commit.
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

/// What others may see of a running processor.
#[derive(Clone, Debug)]
pub struct ProcessorView {
    pub name: String,
    pub group: Group,
    /// The topics that it consumes.
    pub topics: Vec<TopicName>,
    /// Whether others may hold a part of the group's partitions: how far it is, the log knows then.
    pub shared: bool,
    pub progress: watch::Receiver<Progress>,
}

/// How far a processor is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lag {
    pub records: u64,
    /// The age of the oldest record that is not processed.
    pub oldest_event_age_s: Option<f64>,
}

impl Lag {
    /// The lag of who stands at `positions`.
    pub async fn of(
        log: &dyn EventLog,
        topics: &[TopicName],
        positions: &Positions,
        now: Timestamp,
    ) -> Result<Self, LogError> {
        let (mut records, mut oldest) = (0, None);
        for (at, end) in ends(log, topics).await?.iter() {
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

async fn ends(log: &dyn EventLog, topics: &[TopicName]) -> Result<Positions, LogError> {
    let mut ends = Positions::new();
    for topic in topics {
        ends.merge(&log.ends(topic).await?);
    }
    Ok(ends)
}

impl ProcessorView {
    /// The ends of the topics that it consumes.
    pub async fn ends(&self, log: &dyn EventLog) -> Result<Positions, LogError> {
        ends(log, &self.topics).await
    }

    /// Compares the positions with the log's ends.
    pub async fn lag(&self, log: &dyn EventLog, now: Timestamp) -> Result<Lag, LogError> {
        Lag::of(log, &self.topics, &self.positions(log).await?, now).await
    }

    /// How far the group is.
    async fn positions(&self, log: &dyn EventLog) -> Result<Positions, LogError> {
        match self.shared {
            true => log.committed(&self.group).await,
            false => Ok(self.progress.borrow().positions.clone()),
        }
    }

    /// How many offsets below `ends` are not processed; where there are some, it looks again within this time. `None`
    /// before the first assignment.
    pub async fn left(&self, log: &dyn EventLog, ends: &Positions, within: Duration) -> Result<Option<u64>, LogError> {
        let mut progress = self.progress.clone();
        let deadline = tokio::time::Instant::now() + within;
        loop {
            progress.mark_unchanged();
            let positions = self.positions(log).await?;
            let left = ends.iter().map(|(at, end)| end.saturating_sub(positions.next(at))).sum();
            let assigned = self.shared || ends.iter().all(|(at, _)| positions.get(at).is_some());
            if (left == 0 && assigned) || tokio::time::Instant::now() >= deadline {
                return Ok(assigned.then_some(left));
            }
            // Others' progress is not seen here: the deadline ends the wait for it.
            let _ = tokio::time::timeout_at(deadline, progress.changed()).await;
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
}

impl ProcessorHandle {
    pub fn view(&self) -> ProcessorView {
        self.view.clone()
    }

    /// Waits for the end of the task, after the shutdown was asked for.
    pub async fn join(self) -> Result<(), LogError> {
        let ended = self.task.await;
        ended.map_err(|error| LogError::Unavailable(format!("processor {} ended badly: {error}", self.view.name)))
    }
}
