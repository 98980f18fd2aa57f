//! A batch that is being committed, beside the loop; and the waiting between attempts.

use std::sync::Arc;
use std::time::Duration;

use carbon_core::{Classify as _, Positions, Retry};
use carbon_log::{EventLog, NewRecord};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::batch::{Worker, WorkerError};
use super::error::ProcessorError;
use super::progress::{Phase, Progress};
use super::run::Gate;
use crate::Shutdown;
use crate::panics::caught;

/// What became of a batch.
pub(super) enum Landed {
    /// It is committed up to `upto`; these notifications could not be appended.
    At { upto: Positions, owed: Vec<NewRecord> },
    /// Another member has moved the position.
    Lost { actual: Positions, from: Positions },
    /// A shutdown came between two attempts.
    GivenUp,
}

/// A batch that is being committed. External errors are retried for ever; an internal one ends it. Dropped, it is
/// abandoned: its commit has happened or not, and the checkpoint says which.
pub(super) struct Landing(JoinHandle<Result<Landed, ProcessorError>>);

impl Drop for Landing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A batch that is ready, and where it begins and ends.
pub(super) struct Prepared<R> {
    pub ready: R,
    pub records: usize,
    pub letters: Vec<NewRecord>,
    pub from: Positions,
    pub upto: Positions,
}

impl Landing {
    pub fn start<W: Worker>(
        worker: Arc<W>,
        log: Arc<dyn EventLog>,
        batch: Prepared<W::Ready>,
        gate: Gate,
        backoff: Backoff,
    ) -> Self {
        Self(tokio::spawn(land(worker, log, batch, gate, backoff)))
    }

    pub async fn end(&mut self) -> Result<Landed, ProcessorError> {
        // The task catches its panics; only an abort or the end of the runtime is left.
        (&mut self.0).await.unwrap_or(Ok(Landed::GivenUp))
    }
}

async fn land<W: Worker>(
    worker: Arc<W>,
    log: Arc<dyn EventLog>,
    batch: Prepared<W::Ready>,
    gate: Gate,
    mut backoff: Backoff,
) -> Result<Landed, ProcessorError> {
    let Prepared { ready, records, mut letters, from, upto } = batch;
    loop {
        let began = Instant::now();
        let commits = gate.enter().await;
        match caught(worker.commit(&ready, &mut letters, &from, &upto)).await {
            Ok(Ok(notices)) => {
                backoff.landed(began, records, &upto);
                drop(commits);
                return Ok(Landed::At { owed: notify(&*log, notices).await, upto });
            }
            Ok(Err(WorkerError::Lost { actual })) => return Ok(Landed::Lost { actual, from }),
            Ok(Err(WorkerError::Failed(error))) if error.is_internal() => return Err(error.at(&from)),
            Ok(Err(WorkerError::Failed(error))) => {
                drop(commits);
                backoff.wait_after(&error).await;
                if backoff.shutdown.is_cancelled() {
                    return Ok(Landed::GivenUp);
                }
            }
            Err(panic) => return Err(ProcessorError::from(panic).at(&from)),
        }
    }
}

/// Appends what others are told after a commit; answers what could not be appended.
async fn notify(log: &dyn EventLog, notices: Vec<NewRecord>) -> Vec<NewRecord> {
    if notices.is_empty() {
        return notices;
    }
    match log.append(notices.clone()).await {
        Ok(_) => Vec::new(),
        Err(error) => {
            tracing::warn!(%error, owed = notices.len(), "notifications not appended; retrying");
            notices
        }
    }
}

/// Between attempts: 50 ms, doubling to 10 s; an error that does not go by itself waits 10 s at once.
pub(super) struct Backoff {
    name: Arc<str>,
    generation: Arc<str>,
    progress: watch::Sender<Progress>,
    pub shutdown: Shutdown,
    attempt: u32,
}

impl Backoff {
    pub fn new(name: Arc<str>, generation: Arc<str>, progress: watch::Sender<Progress>, shutdown: Shutdown) -> Self {
        Self { name, generation, progress, shutdown, attempt: 0 }
    }

    /// One for another thing that may fail.
    pub fn fresh(&self) -> Self {
        Self::new(self.name.clone(), self.generation.clone(), self.progress.clone(), self.shutdown.clone())
    }

    pub fn succeeded(&mut self) {
        self.attempt = 0;
    }

    pub fn attempts(&self) -> u32 {
        self.attempt
    }

    fn landed(&self, began: Instant, records: usize, upto: &Positions) {
        let labels = [("processor", self.name.to_string()), ("generation", self.generation.to_string())];
        metrics::histogram!("processor_commit_seconds", &labels).record(began.elapsed().as_secs_f64());
        metrics::histogram!("processor_batch_size", &labels).record(records as f64);
        self.progress.send_modify(|now| {
            now.positions.merge(upto);
            now.phase = Phase::Running;
            now.records += records as u64;
            now.batches += 1;
            now.busy_since = Some(Instant::now());
        });
    }

    /// Shows the error, and answers how long to wait.
    pub fn failed(&mut self, error: &ProcessorError) -> Duration {
        self.attempt += 1;
        const LONGEST: Duration = Duration::from_secs(10);
        let doubled = Duration::from_millis(25 << self.attempt.min(9)).min(LONGEST);
        let transient = error.retry() == Retry::Later || error.is_internal();
        let wait = if transient { doubled } else { LONGEST };
        let (attempt, wait_ms) = (self.attempt, wait.as_millis() as u64);
        tracing::error!(processor = %self.name, generation = %self.generation, %error, attempt, wait_ms, "attempt failed; retrying");
        self.progress.send_modify(|now| now.phase = Phase::Retrying { error: error.to_string(), attempt });
        wait
    }

    pub async fn wait_after(&mut self, error: &ProcessorError) {
        let wait = self.failed(error);
        self.wait(wait).await;
    }

    pub async fn wait(&self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.shutdown.cancelled() => {}
        }
    }
}

/// The end of the batch that lands; never, where there is none.
pub(super) async fn landed(landing: &mut Option<Landing>) -> Result<Landed, ProcessorError> {
    match landing {
        Some(running) => {
            let landed = running.end().await;
            *landing = None;
            landed
        }
        None => std::future::pending().await,
    }
}
