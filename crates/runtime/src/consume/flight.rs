//! The records between their decoding and their commit: pending, being prepared, prepared, landing. At most one batch is
//! in each of the last three.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use carbon_core::{Positions, TopicPartition};
use carbon_log::{EventLog, NewRecord};
use carbon_schemas::Feed;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::batch::Worker;
use super::error::ProcessorError;
use super::landing::{Backoff, Landed, Landing, Prepared, landed};
use super::run::Gate;
use crate::panics::caught;

/// Notifications that are owed at most; then the oldest are dropped, and that is logged and counted.
const MOST_OWED: usize = 10_000;

/// How long preparing a batch may take.
const LONGEST_PREPARE: Duration = Duration::from_secs(60);
/// How often preparing is tried, over about 3 s, before the processor leaves its group to join again.
const ATTEMPTS_IN_PLACE: u32 = 6;
/// How long after a failed append the notifications are appended again.
const OWED_RETRY: Duration = Duration::from_secs(1);

pub(super) type Ready<W> = Result<<W as Worker>::Ready, ProcessorError>;

pub(super) struct Flight<W: Worker> {
    worker: Arc<W>,
    log: Arc<dyn EventLog>,
    gate: Gate,
    backoff: Backoff,
    pending: Vec<W::In>,
    letters: Vec<NewRecord>,
    preparing: Option<Preparing<W>>,
    prepared: Option<Prepared<W::Ready>>,
    landing: Option<Landing>,
    /// Where the batches that are prepared or land end.
    ahead: Positions,
    /// When preparing is tried again after an error.
    retry_at: Option<Instant>,
    /// Notifications whose append failed.
    owed: Vec<NewRecord>,
    owed_at: Option<Instant>,
    last_upto: Option<Positions>,
}

/// What happened to a batch under way.
pub(super) enum Arrival<W: Worker> {
    Landed(Result<Landed, ProcessorError>),
    Prepared(Ready<W>),
}

/// A batch that is being prepared on a task of its own, so that the loop sees a rebalance or a shutdown meanwhile.
struct Preparing<W: Worker> {
    batch: Arc<Vec<W::In>>,
    task: JoinHandle<Ready<W>>,
    /// When it is given up.
    until: Instant,
}

impl<W: Worker> Drop for Preparing<W> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<W: Worker> Flight<W> {
    pub fn new(worker: Arc<W>, log: Arc<dyn EventLog>, gate: Gate, backoff: Backoff) -> Self {
        Self {
            worker,
            log,
            gate,
            backoff,
            pending: Vec::new(),
            letters: Vec::new(),
            preparing: None,
            prepared: None,
            landing: None,
            ahead: Positions::new(),
            retry_at: None,
            owed: Vec::new(),
            owed_at: None,
            last_upto: None,
        }
    }

    pub fn push(&mut self, record: W::In) {
        self.pending.push(record);
    }

    pub fn push_letter(&mut self, letter: NewRecord) {
        self.letters.push(letter);
    }

    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether no record is under way.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.preparing.is_none() && self.prepared.is_none() && self.landing.is_none()
    }

    /// Whether a batch could start now.
    pub fn is_free(&self) -> bool {
        self.preparing.is_none() && self.prepared.is_none() && (W::PREPARES || self.landing.is_none())
    }

    /// Whether a batch lands: it holds the checkpoint.
    pub fn is_landing(&self) -> bool {
        self.landing.is_some()
    }

    /// Whether preparing failed and waits for its next attempt.
    pub fn is_retrying(&self) -> bool {
        self.retry_at.is_some()
    }

    /// The partitions that have records under way.
    pub fn partitions(&self) -> BTreeSet<TopicPartition> {
        let mut busy: BTreeSet<_> = self.ahead.iter().map(|(at, _)| at.clone()).collect();
        let preparing = self.preparing.iter().flat_map(|preparing| preparing.batch.iter());
        busy.extend(preparing.chain(&self.pending).map(|record| record.position().topic_partition()));
        busy
    }

    /// Where the last batch that was started ends.
    pub fn last_upto(&self) -> Option<Positions> {
        self.last_upto.clone()
    }

    /// When there is something to do that no message announces.
    pub fn due(&self) -> Option<Instant> {
        [self.retry_at, self.owed_at].into_iter().flatten().min()
    }

    /// Starts what can start: the prepared batch lands, and up to `most` pending records are prepared. `committed` is
    /// where the worker's checkpoint stands. With `careful` nothing is prepared beside a batch that lands: if preparing
    /// failed, that batch would be abandoned each time.
    pub fn start(&mut self, most: usize, careful: bool, committed: &Positions) {
        self.land(committed);
        let waits = self.retry_at.is_some_and(|at| Instant::now() < at) || (careful && self.is_landing());
        if self.pending.is_empty() || !self.is_free() || waits {
            return;
        }
        self.retry_at = None;
        let rest = self.pending.split_off(self.pending.len().min(most));
        let batch = Arc::new(std::mem::replace(&mut self.pending, rest));
        self.last_upto = Some(upto_of(&batch));
        if let Some(ready) = self.worker.ready(&batch) {
            self.put(ready, &batch);
            return self.land(committed);
        }
        let (worker, records) = (self.worker.clone(), batch.clone());
        let prepare = async move {
            match caught(worker.prepare(&records)).await {
                Ok(ready) => ready,
                Err(panic) => Err(panic.into()),
            }
        };
        self.preparing =
            Some(Preparing { batch, task: tokio::spawn(prepare), until: Instant::now() + LONGEST_PREPARE });
    }

    /// Waits until a batch has landed or is prepared; never, where none is under way. Safe to cancel.
    pub async fn next(&mut self) -> Arrival<W> {
        let prepare = async {
            match &mut self.preparing {
                Some(preparing) => match tokio::time::timeout_at(preparing.until, &mut preparing.task).await {
                    Ok(ready) => ready.unwrap_or_else(|_| Err(ProcessorError::unavailable("preparing was cancelled"))),
                    Err(_) => Err(ProcessorError::unavailable("a batch was not prepared within 60 s")),
                },
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            landed = landed(&mut self.landing) => Arrival::Landed(landed),
            ready = prepare => Arrival::Prepared(ready),
        }
    }

    /// What came of preparing. After an external error the batch is pending again; after six it ends the session.
    pub fn was_prepared(&mut self, ready: Ready<W>) -> Result<(), ProcessorError> {
        let Some(preparing) = self.preparing.take() else { return Ok(()) };
        match ready {
            Ok(ready) => {
                self.backoff.succeeded();
                self.put(ready, &preparing.batch);
                Ok(())
            }
            Err(error) if error.is_internal() => Err(error.at(&first_of(&preparing.batch))),
            // Elsewhere another member may succeed; here a rebalance would not be seen.
            Err(error) if self.backoff.attempts() >= ATTEMPTS_IN_PLACE => Err(error),
            Err(error) => {
                self.retry_at = Some(Instant::now() + self.backoff.failed(&error));
                self.unprepare(preparing);
                Ok(())
            }
        }
    }

    fn put(&mut self, ready: W::Ready, batch: &[W::In]) {
        let upto = upto_of(batch);
        // All letters go with the next batch: they may come early, never late.
        let letters = std::mem::take(&mut self.letters);
        self.ahead.merge(&upto);
        self.prepared = Some(Prepared { ready, records: batch.len(), letters, from: Positions::new(), upto });
    }

    fn unprepare(&mut self, preparing: Preparing<W>) {
        let batch = preparing.batch.clone();
        drop(preparing);
        // The task may hold it for a moment longer.
        let mut batch = Arc::try_unwrap(batch).unwrap_or_else(|shared| (*shared).clone());
        batch.append(&mut self.pending);
        self.pending = batch;
    }

    fn land(&mut self, committed: &Positions) {
        if self.landing.is_some() {
            return;
        }
        let Some(mut prepared) = self.prepared.take() else { return };
        prepared.from = prepared.upto.iter().map(|(at, _)| (at.clone(), committed.next(at))).collect();
        let (worker, log, gate) = (self.worker.clone(), self.log.clone(), self.gate.clone());
        self.landing = Some(Landing::start(worker, log, prepared, gate, self.backoff.fresh()));
    }

    /// A batch landed up to these positions; its notifications may still be owed.
    pub fn landed(&mut self, upto: &Positions, owed: Vec<NewRecord>) {
        let done: Vec<_> =
            self.ahead.iter().filter(|(at, next)| upto.next(at) >= *next).map(|(at, _)| at.clone()).collect();
        done.iter().for_each(|at| self.ahead.remove(at));
        if !owed.is_empty() {
            self.owed.extend(owed);
            self.owed_at.get_or_insert_with(|| Instant::now() + OWED_RETRY);
        }
        if self.owed.len() > MOST_OWED {
            let dropped = self.owed.len() - MOST_OWED;
            self.owed.drain(..dropped);
            tracing::error!(dropped, "notifications dropped: too many wait for the log");
            metrics::counter!("notifications_dropped_total").increment(dropped as u64);
        }
    }

    /// Appends the notifications that are owed; after a failure they stay owed for another second.
    pub async fn pay(&mut self) {
        if self.owed.is_empty() || self.owed_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        match self.log.append(self.owed.clone()).await {
            Ok(_) => {
                self.owed.clear();
                self.owed_at = None;
            }
            Err(error) => {
                tracing::warn!(%error, owed = self.owed.len(), "notifications not appended; retrying");
                self.owed_at = Some(Instant::now() + OWED_RETRY);
            }
        }
    }

    pub fn say_what_is_owed(&self) {
        if !self.owed.is_empty() {
            tracing::warn!(owed = self.owed.len(), "notifications were not appended before the processor stopped");
        }
    }

    /// Gives up what has not landed, but not what is owed.
    pub fn abandon(&mut self) {
        self.backoff.succeeded();
        self.pending.clear();
        self.letters.clear();
        self.preparing = None;
        self.prepared = None;
        self.landing = None;
        self.ahead = Positions::new();
        self.retry_at = None;
    }

    /// Gives up what is not prepared.
    pub fn drop_unprepared(&mut self) {
        self.pending.clear();
        self.preparing = None;
        self.retry_at = None;
    }
}

fn upto_of<I: Feed>(batch: &[I]) -> Positions {
    let mut upto = Positions::new();
    batch.iter().for_each(|record| upto.advance_past(record.position()));
    upto
}

/// The first position of each partition in a batch.
fn first_of<I: Feed>(batch: &[I]) -> Positions {
    batch.iter().rev().map(|record| (record.position().topic_partition(), record.position().offset)).collect()
}
