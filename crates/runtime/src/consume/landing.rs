//! A batch on its way, beside the loop; and the waiting between attempts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use carbon_core::{Classify as _, Positions, Retry};
use carbon_log::NewRecord;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::batch::{Worker, WorkerError};
use super::error::ProcessorError;
use super::progress::{Phase, Progress};
use crate::Shutdown;

/// What became of a batch.
pub(super) enum Landed {
    At(Positions),
    /// The position is somebody else's.
    Lost {
        actual: Positions,
        from: Positions,
    },
    /// A shutdown came between two attempts.
    GivenUp,
}

/// A batch that is being committed, for as often as it takes.
pub(super) struct Landing(JoinHandle<Result<Landed, ProcessorError>>);

/// A batch that is ready, and where it begins and ends.
pub(super) struct Prepared<R> {
    pub ready: R,
    pub records: usize,
    pub letters: Vec<NewRecord>,
    pub from: Positions,
    pub upto: Positions,
}

impl Landing {
    pub fn start<W: Worker>(worker: Arc<W>, batch: Prepared<W::Ready>, backoff: Backoff) -> Self {
        Self(tokio::spawn(land(worker, batch, backoff)))
    }

    pub fn has_ended(&self) -> bool {
        self.0.is_finished()
    }

    pub async fn end(&mut self) -> Result<Landed, ProcessorError> {
        match (&mut self.0).await {
            Ok(landed) => landed,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Ok(Landed::GivenUp),
            },
        }
    }
}

async fn land<W: Worker>(
    worker: Arc<W>,
    batch: Prepared<W::Ready>,
    mut backoff: Backoff,
) -> Result<Landed, ProcessorError> {
    let Prepared { ready, records, letters, from, upto } = batch;
    let committed = loop {
        let began = Instant::now();
        match worker.commit(&ready, &letters, &from, &upto).await {
            Ok(committed) => {
                let seconds = began.elapsed().as_secs_f64();
                metrics::histogram!("processor_commit_seconds", "processor" => backoff.name.clone()).record(seconds);
                break committed;
            }
            Err(WorkerError::Lost { actual }) => return Ok(Landed::Lost { actual, from }),
            Err(WorkerError::Failed(error)) => {
                backoff.wait_after(&error).await;
                if backoff.shutdown.is_cancelled() {
                    return Ok(Landed::GivenUp);
                }
            }
        }
    };
    backoff.progress.send_modify(|now| {
        now.positions.merge(&upto);
        now.phase = Phase::Running;
        now.records += records as u64;
        now.batches += 1;
    });
    metrics::histogram!("processor_batch_size", "processor" => backoff.name.clone()).record(records as f64);
    worker.after_commit(committed).await?;
    Ok(Landed::At(upto))
}

/// Between attempts: 50 ms, doubling to 10 s; what will not mend itself waits the longest time at once.
pub(super) struct Backoff {
    name: String,
    progress: watch::Sender<Progress>,
    shutdown: Shutdown,
    attempt: u32,
}

impl Backoff {
    pub fn new(name: String, progress: watch::Sender<Progress>, shutdown: Shutdown) -> Self {
        Self { name, progress, shutdown, attempt: 0 }
    }

    /// One for another thing that may fail.
    pub fn fresh(&self) -> Self {
        Self::new(self.name.clone(), self.progress.clone(), self.shutdown.clone())
    }

    pub fn succeeded(&mut self) {
        self.attempt = 0;
    }

    pub async fn wait_after(&mut self, error: &ProcessorError) {
        self.attempt += 1;
        const LONGEST: Duration = Duration::from_secs(10);
        let doubled = Duration::from_millis(25 << self.attempt.min(9)).min(LONGEST);
        let wait = if error.retry() == Retry::Later { doubled } else { LONGEST };
        let (attempt, wait_ms) = (self.attempt, wait.as_millis() as u64);
        tracing::error!(processor = %self.name, %error, attempt, wait_ms, "attempt failed");
        self.progress.send_modify(|now| now.phase = Phase::Retrying { error: error.to_string(), attempt });
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
