//! What waits: items of jobs, in two lanes, and which of them make the next batch.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Lane;
use crate::encoder::{Embedding, Prepared, TextModel};
use crate::{EncoderOptions, InferenceError};

type Answer = Result<Vec<Embedding>, InferenceError>;

/// One call of `encode`: it is answered when its last text is done, or its first one fails.
pub(super) struct Job(Mutex<JobState>);

struct JobState {
    embeddings: Vec<Option<Embedding>>,
    remaining: usize,
    sender: Option<oneshot::Sender<Answer>>,
}

impl Job {
    pub fn new(texts: usize, sender: oneshot::Sender<Answer>) -> Self {
        Self(Mutex::new(JobState { embeddings: vec![None; texts], remaining: texts, sender: Some(sender) }))
    }

    /// The caller has left, or has its answer.
    pub fn is_abandoned(&self) -> bool {
        lock(&self.0).sender.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    pub fn finish(&self, index: usize, embedding: Embedding) {
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

    pub fn fail(&self, error: InferenceError) {
        if let Some(sender) = lock(&self.0).sender.take() {
            let _ = sender.send(Err(error));
        }
    }
}

/// A text that waits.
pub(super) struct Item {
    pub prepared: Prepared,
    pub index: usize,
    pub job: Arc<Job>,
    pub _slot: Reservation,
}

/// Places in a lane's limit, given back on drop.
pub(super) struct Reservation {
    waiting: Arc<AtomicUsize>,
    places: usize,
}

impl Reservation {
    /// One of the places; an empty reservation if all have been taken.
    pub fn take_one(&mut self) -> Reservation {
        let places = self.places.min(1);
        self.places -= places;
        Reservation { waiting: self.waiting.clone(), places }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.places, Ordering::Relaxed);
    }
}

pub(super) struct LaneState {
    pub waiting: Arc<AtomicUsize>,
    limit: usize,
}

#[derive(Default)]
struct Queues {
    interactive: VecDeque<Item>,
    bulk: VecDeque<Item>,
    closed: bool,
}

pub(super) struct Shared {
    pub model: Arc<dyn TextModel>,
    interactive: LaneState,
    bulk: LaneState,
    queues: Mutex<Queues>,
    /// Told when something comes that any worker may take, and when something interactive comes.
    any_work: Condvar,
    interactive_work: Condvar,
    batch_tokens: usize,
    /// Smoothed microseconds that a text has taken, over all workers.
    text_us: AtomicU64,
    workers: u64,
    /// Batches that run now.
    running: AtomicUsize,
}

impl Shared {
    pub fn new(model: Arc<dyn TextModel>, options: &EncoderOptions) -> Self {
        let lane = |limit| LaneState { waiting: Arc::default(), limit };
        Self {
            model,
            interactive: lane(options.interactive_waiting),
            bulk: lane(options.bulk_waiting),
            queues: Mutex::default(),
            any_work: Condvar::new(),
            interactive_work: Condvar::new(),
            batch_tokens: options.batch_tokens,
            text_us: AtomicU64::new(5_000),
            workers: super::worker::threads(options) as u64,
            running: AtomicUsize::new(0),
        }
    }

    pub fn lane(&self, lane: Lane) -> &LaneState {
        match lane {
            Lane::Interactive => &self.interactive,
            Lane::Bulk => &self.bulk,
        }
    }

    /// Takes places for `texts`. A call larger than the limit is let in when nothing else waits.
    pub fn reserve(&self, lane: Lane, texts: usize) -> Result<Reservation, InferenceError> {
        let LaneState { waiting, limit } = self.lane(lane);
        let fits = |now: usize| (now == 0 || now + texts <= *limit).then_some(now + texts);
        match waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(Reservation { waiting: waiting.clone(), places: texts }),
            Err(now) => {
                let ahead = (now + texts).saturating_sub(*limit) as u64;
                let us = ahead * self.text_us.load(Ordering::Relaxed) / self.workers.max(1);
                let retry_after = Duration::from_micros(us).clamp(Duration::from_secs(1), Duration::from_secs(60));
                Err(InferenceError::Overloaded { retry_after })
            }
        }
    }

    pub fn push(&self, lane: Lane, items: Vec<Item>) {
        let mut queues = lock(&self.queues);
        match lane {
            Lane::Interactive => queues.interactive.extend(items),
            Lane::Bulk => queues.bulk.extend(items),
        }
        drop(queues);
        if lane == Lane::Interactive {
            self.interactive_work.notify_one();
        }
        self.any_work.notify_all();
    }

    pub fn close(&self) {
        lock(&self.queues).closed = true;
        self.interactive_work.notify_all();
        self.any_work.notify_all();
    }

    /// Waits for the next batch; `None` when the queue is closed.
    pub fn next_batch(&self, interactive_only: bool) -> Option<(Lane, Vec<Item>)> {
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

    /// Tells whether the batch that begins is alone: none runs, and none waits. Ended by [`Shared::batch_ended`].
    pub fn begins_alone(&self) -> bool {
        let others = self.running.fetch_add(1, Ordering::Relaxed);
        let queues = lock(&self.queues);
        others == 0 && queues.interactive.is_empty() && queues.bulk.is_empty()
    }

    pub fn batch_ended(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn record(&self, texts: usize, took: Duration) {
        let us = took.as_micros() as u64 / (texts.max(1) as u64);
        let before = self.text_us.load(Ordering::Relaxed);
        self.text_us.store((before * 7 + us) / 8, Ordering::Relaxed);
    }
}

/// Texts that are looked at for one batch.
const WINDOW: usize = 512;

/// The oldest text and those nearest to it in length, within the budget of tokens.
fn take_batch(queue: &mut VecDeque<Item>, budget: usize) -> Vec<Item> {
    while queue.front().is_some_and(|item| item.job.is_abandoned()) {
        queue.pop_front();
    }
    let Some(anchor) = queue.front().map(|item| item.prepared.ids.len()) else { return Vec::new() };
    let mut near: Vec<(usize, usize)> = Vec::with_capacity(queue.len().min(WINDOW));
    near.extend(queue.iter().take(WINDOW).enumerate().map(|(at, item)| (item.prepared.ids.len().abs_diff(anchor), at)));
    // Equal lengths stay in their order, so the anchor is first.
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
    // From the back, so that the places before stay what they were.
    for at in chosen.into_iter().rev() {
        batch.extend(queue.remove(at).filter(|item| !item.job.is_abandoned()));
    }
    if batch.is_empty() { take_batch(queue, budget) } else { batch }
}

/// A panic under a lock leaves nothing half done here.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
