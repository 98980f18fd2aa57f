//! The scheduler: the waiting texts of both priority classes, their limits, and the choice of the next batch.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Lane;
use crate::encoder::{Embedding, Prepared, TextModel};
use crate::{EncoderOptions, InferenceError};

/// The answer to a call of `encode`.
type Answer = Result<Vec<Embedding>, InferenceError>;

/// A call of `encode`. It is answered when all of its texts are encoded or one of them fails.
pub(super) struct Call(Mutex<CallState>);

/// The state of a call.
struct CallState {
    /// One per text; `None` until the text is encoded.
    embeddings: Vec<Option<Embedding>>,
    /// Number of texts that are not encoded yet.
    remaining: usize,
    /// `None` once the call is answered.
    sender: Option<oneshot::Sender<Answer>>,
}

impl Call {
    pub fn new(texts: usize, sender: oneshot::Sender<Answer>) -> Self {
        Self(Mutex::new(CallState { embeddings: vec![None; texts], remaining: texts, sender: Some(sender) }))
    }

    /// True if the call was answered or its caller was dropped: its other texts need not be encoded.
    pub fn is_finished(&self) -> bool {
        lock(&self.0).sender.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Stores the embedding of a text, and answers the call if it was the last one.
    pub fn finish_text(&self, index: usize, embedding: Embedding) {
        let mut state = lock(&self.0);
        if let Some(slot @ None) = state.embeddings.get_mut(index) {
            *slot = Some(embedding);
            state.remaining -= 1;
        }
        if state.remaining == 0
            && let Some(sender) = state.sender.take()
        {
            let embeddings = std::mem::take(&mut state.embeddings).into_iter().flatten().collect();
            let _ = sender.send(Ok(embeddings));
        }
    }

    /// Answers the call with an error, if it was not answered.
    pub fn fail(&self, error: InferenceError) {
        if let Some(sender) = lock(&self.0).sender.take() {
            let _ = sender.send(Err(error));
        }
    }
}

/// A waiting text.
pub(super) struct QueuedText {
    pub prepared: Prepared,
    /// Index of the text in its call.
    pub index: usize,
    pub call: Arc<Call>,
    /// The text's share of the limit.
    pub _slot: Reservation,
}

/// Reserved capacity of a priority class, released on drop.
pub(super) struct Reservation {
    waiting: Arc<AtomicUsize>,
    /// Number of texts.
    slots: usize,
}

impl Reservation {
    /// Splits off one slot; an empty reservation if none is left.
    pub fn take_one(&mut self) -> Reservation {
        let slots = self.slots.min(1);
        self.slots -= slots;
        Reservation { waiting: self.waiting.clone(), slots }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.slots, Ordering::Relaxed);
    }
}

/// The limit of waiting texts of a priority class.
pub(super) struct WaitingLimit {
    /// Number of accepted texts that are not encoded yet, the running ones included.
    pub waiting: Arc<AtomicUsize>,
    limit: usize,
}

/// The waiting texts, oldest first.
#[derive(Default)]
struct Queues {
    interactive: VecDeque<QueuedText>,
    bulk: VecDeque<QueuedText>,
    closed: bool,
}

/// The state that callers and workers of a queue share.
pub(super) struct Scheduler {
    pub model: Arc<dyn TextModel>,
    interactive: WaitingLimit,
    bulk: WaitingLimit,
    queues: Mutex<Queues>,
    /// Notified when texts of any class are queued. The workers for both classes wait on it.
    any_work: Condvar,
    /// Notified when interactive texts are queued. The interactive-only worker waits on it.
    interactive_work: Condvar,
    /// Maximum tokens of a batch.
    batch_tokens: usize,
    /// Moving average of the time per text on one worker, in microseconds.
    text_us: AtomicU64,
    /// Number of workers for both classes.
    workers: u64,
    /// Number of running batches.
    running: AtomicUsize,
}

impl Scheduler {
    pub fn new(model: Arc<dyn TextModel>, options: &EncoderOptions) -> Self {
        let limit = |limit| WaitingLimit { waiting: Arc::default(), limit };
        Self {
            model,
            interactive: limit(options.interactive_waiting),
            bulk: limit(options.bulk_waiting),
            queues: Mutex::default(),
            any_work: Condvar::new(),
            interactive_work: Condvar::new(),
            batch_tokens: options.batch_tokens,
            text_us: AtomicU64::new(5_000),
            workers: super::worker::threads(options) as u64,
            running: AtomicUsize::new(0),
        }
    }

    /// The limit of a priority class.
    pub fn limit(&self, lane: Lane) -> &WaitingLimit {
        match lane {
            Lane::Interactive => &self.interactive,
            Lane::Bulk => &self.bulk,
        }
    }

    /// Reserves capacity for `texts` texts. Fails with [`InferenceError::Overloaded`] if the limit is exceeded. A call
    /// larger than the limit is accepted if no other text of the class is pending.
    pub fn reserve(&self, lane: Lane, texts: usize) -> Result<Reservation, InferenceError> {
        let WaitingLimit { waiting, limit } = self.limit(lane);
        let fits = |now: usize| (now == 0 || now + texts <= *limit).then_some(now + texts);
        match waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(Reservation { waiting: waiting.clone(), slots: texts }),
            Err(now) => {
                // The time until the texts beyond the limit are encoded.
                let excess = (now + texts).saturating_sub(*limit) as u64;
                let us = excess * self.text_us.load(Ordering::Relaxed) / self.workers.max(1);
                let retry_after = Duration::from_micros(us).clamp(Duration::from_secs(1), Duration::from_secs(60));
                Err(InferenceError::Overloaded { retry_after })
            }
        }
    }

    /// Queues texts and wakes workers.
    pub fn push(&self, lane: Lane, texts: Vec<QueuedText>) {
        let mut queues = lock(&self.queues);
        match lane {
            Lane::Interactive => queues.interactive.extend(texts),
            Lane::Bulk => queues.bulk.extend(texts),
        }
        drop(queues);
        if lane == Lane::Interactive {
            self.interactive_work.notify_one();
        }
        self.any_work.notify_all();
    }

    /// Ends all workers after their current batch.
    pub fn close(&self) {
        lock(&self.queues).closed = true;
        self.interactive_work.notify_all();
        self.any_work.notify_all();
    }

    /// Waits for the next batch, interactive texts first; `None` if the queue is closed.
    pub fn next_batch(&self, interactive_only: bool) -> Option<(Lane, Vec<QueuedText>)> {
        let mut queues = lock(&self.queues);
        loop {
            if queues.closed {
                return None;
            }
            for lane in [Lane::Interactive, Lane::Bulk] {
                let queue = match lane {
                    Lane::Interactive => &mut queues.interactive,
                    Lane::Bulk if interactive_only => continue,
                    Lane::Bulk => &mut queues.bulk,
                };
                let batch = take_batch(queue, self.batch_tokens);
                if !batch.is_empty() {
                    return Some((lane, batch));
                }
            }
            let condition = if interactive_only { &self.interactive_work } else { &self.any_work };
            queues = condition.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Counts a batch as running. True if no other batch runs and no text waits. Pair it with [`Scheduler::end_batch`].
    pub fn begin_batch(&self) -> bool {
        let others = self.running.fetch_add(1, Ordering::Relaxed);
        let queues = lock(&self.queues);
        others == 0 && queues.interactive.is_empty() && queues.bulk.is_empty()
    }

    /// Ends a batch that [`Scheduler::begin_batch`] counted.
    pub fn end_batch(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Updates the moving average with a batch of `texts` that took `took`.
    pub fn record_duration(&self, texts: usize, took: Duration) {
        let us = took.as_micros() as u64 / (texts.max(1) as u64);
        let before = self.text_us.load(Ordering::Relaxed);
        self.text_us.store((before * 7 + us) / 8, Ordering::Relaxed);
    }
}

/// Maximum number of waiting texts that are considered for a batch.
const WINDOW: usize = 512;

/// Removes the next batch from `queue`: the oldest text, and the texts with the most similar length, of at most
/// `budget` tokens together. Texts of finished calls are dropped.
fn take_batch(queue: &mut VecDeque<QueuedText>, budget: usize) -> Vec<QueuedText> {
    while queue.front().is_some_and(|text| text.call.is_finished()) {
        queue.pop_front();
    }
    let Some(anchor) = queue.front().map(|text| text.prepared.ids.len()) else { return Vec::new() };
    let mut near: Vec<(usize, usize)> = Vec::with_capacity(queue.len().min(WINDOW));
    near.extend(queue.iter().take(WINDOW).enumerate().map(|(at, text)| (text.prepared.ids.len().abs_diff(anchor), at)));
    // Texts of equal length stay in order, so the oldest text is first.
    near.sort_unstable();
    let mut tokens = 0;
    let mut chosen: Vec<usize> = Vec::new();
    for (_, at) in near {
        let length = queue[at].prepared.ids.len();
        if !chosen.is_empty() && tokens + length > budget {
            break;
        }
        tokens += length;
        chosen.push(at);
    }
    chosen.sort_unstable();
    let mut batch = Vec::with_capacity(chosen.len());
    // From the back, so that the indexes of the others stay valid.
    for at in chosen.into_iter().rev() {
        batch.extend(queue.remove(at).filter(|text| !text.call.is_finished()));
    }
    if batch.is_empty() { take_batch(queue, budget) } else { batch }
}

/// Locks a mutex. Poisoning is ignored: the guarded state is consistent after a panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
