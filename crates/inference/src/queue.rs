//! The queue of a model. It batches texts, runs interactive texts before bulk ones, and rejects texts beyond a limit.

mod scheduler;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use carbon_core::ModelRef;
use tokio::sync::oneshot;

use crate::encoder::{Embedding, Encoder, PrepareError, TextModel};
use crate::{EncoderOptions, InferenceError};
use scheduler::{Call, QueuedText, Reservation, Scheduler};

/// The priority class of a text. Every waiting interactive text is encoded before the bulk ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Latency counts: a request waits for the vector of its query.
    Interactive,
    /// Throughput counts: the texts of a stream.
    Bulk,
}

impl Lane {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Lane::Interactive => "interactive",
            Lane::Bulk => "bulk",
        }
    }
}

/// A loaded model with its worker threads. The threads end when the last handle is dropped.
pub struct EncodeQueue {
    model: ModelRef,
    /// The model's reference, as a metric label.
    label: Arc<str>,
    scheduler: Arc<Scheduler>,
}

impl EncodeQueue {
    /// Starts the worker threads.
    pub(crate) fn start(
        model: ModelRef,
        network: Arc<dyn TextModel>,
        options: &EncoderOptions,
    ) -> Result<Arc<Self>, InferenceError> {
        let label: Arc<str> = model.to_string().into();
        let scheduler = Arc::new(Scheduler::new(network, options));
        // If a thread cannot be started, dropping the queue ends those that were.
        let queue = Arc::new(Self { model, label: label.clone(), scheduler: scheduler.clone() });
        worker::spawn(&scheduler, label, options)?;
        Ok(queue)
    }

    pub fn model(&self) -> &ModelRef {
        &self.model
    }

    pub fn dimension(&self) -> usize {
        self.scheduler.model.dimension()
    }

    /// Number of accepted texts of a priority class that are not encoded yet, the running ones included.
    pub fn waiting(&self, lane: Lane) -> usize {
        self.scheduler.limit(lane).waiting.load(Ordering::Relaxed)
    }

    /// Returns an encoder whose texts have this priority class.
    pub fn lane(self: &Arc<Self>, lane: Lane) -> Arc<dyn Encoder> {
        Arc::new(ClassEncoder { queue: self.clone(), lane })
    }

    async fn encode(&self, lane: Lane, texts: &[String]) -> Result<Vec<Embedding>, InferenceError> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let reservation = self.scheduler.reserve(lane, texts.len())?;
        let (sender, receiver) = oneshot::channel();
        let call = Arc::new(Call::new(texts.len(), sender));
        if texts.iter().map(String::len).sum::<usize>() <= INLINE_BYTES {
            enqueue(&self.scheduler, lane, &call, reservation, texts);
        } else {
            let (scheduler, texts) = (self.scheduler.clone(), texts.to_vec());
            tokio::task::spawn_blocking(move || enqueue(&scheduler, lane, &call, reservation, &texts));
        }
        // The sender is dropped without an answer only if a worker thread died.
        receiver
            .await
            .unwrap_or_else(|_| Err(InferenceError::Broken("a worker thread ended without an answer".to_owned())))
    }
}

/// Maximum bytes of text that are tokenised on the caller's async thread: 4 KiB. More is tokenised on a blocking
/// thread.
const INLINE_BYTES: usize = 4096;
/// Number of texts that are tokenised before they are queued. Workers start on them while the rest is tokenised.
const CHUNK: usize = 64;

/// Tokenises the texts of a call and queues them. If one text fails, the call fails.
fn enqueue(scheduler: &Scheduler, lane: Lane, call: &Arc<Call>, mut reservation: Reservation, texts: &[String]) {
    for (chunk, first) in texts.chunks(CHUNK).zip((0..).step_by(CHUNK)) {
        if call.is_finished() {
            return;
        }
        let mut queued = Vec::with_capacity(chunk.len());
        for (text, index) in chunk.iter().zip(first..) {
            let prepared = worker::catch_panic(|| scheduler.model.prepare(text));
            match prepared {
                Ok(Ok(prepared)) => {
                    queued.push(QueuedText { prepared, index, call: call.clone(), _slot: reservation.take_one() });
                }
                Ok(Err(PrepareError::NotEmbeddable(reason))) => {
                    return call.fail(InferenceError::NotEmbeddable { index, reason });
                }
                Ok(Err(PrepareError::Tokenizer(reason))) | Err(reason) => {
                    return call.fail(InferenceError::Broken(reason));
                }
            }
        }
        scheduler.push(lane, queued);
    }
}

/// The [`Encoder`] of a queue for one priority class.
struct ClassEncoder {
    queue: Arc<EncodeQueue>,
    lane: Lane,
}

#[async_trait::async_trait]
impl Encoder for ClassEncoder {
    fn model(&self) -> &ModelRef {
        &self.queue.model
    }

    fn dimension(&self) -> usize {
        self.queue.dimension()
    }

    async fn encode(&self, texts: &[String]) -> Result<Vec<Embedding>, InferenceError> {
        let started = Instant::now();
        let model = self.queue.label.to_string();
        let result = self.queue.encode(self.lane, texts).await;
        match &result {
            Ok(_) => {
                let ms = started.elapsed().as_secs_f64() * 1e3;
                metrics::histogram!("embedding_gen_latency_ms", "model" => model, "lane" => self.lane.as_str())
                    .record(ms);
            }
            Err(error) => {
                metrics::counter!("embedding_failures_total", "model" => model, "reason" => error.code()).increment(1);
            }
        }
        result
    }
}

impl Drop for EncodeQueue {
    fn drop(&mut self) {
        self.scheduler.close();
    }
}
