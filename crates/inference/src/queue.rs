//! The queue before a model: two lanes, small batches, a limit.

mod lanes;
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
use lanes::{Item, Job, Reservation, Shared};

/// Who waits for a vector. Interactive texts go before bulk ones, whatever waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// A person or a request waits: a query.
    Interactive,
    /// Throughput counts: texts of a stream.
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

/// A loaded model with its worker threads. They end when the last handle is dropped.
pub struct EncodeQueue {
    model: ModelRef,
    label: Arc<str>,
    shared: Arc<Shared>,
}

impl EncodeQueue {
    pub(crate) fn start(
        model: ModelRef,
        network: Arc<dyn TextModel>,
        options: &EncoderOptions,
    ) -> Result<Arc<Self>, InferenceError> {
        let label: Arc<str> = model.to_string().into();
        let shared = Arc::new(Shared::new(network, options));
        // Made first, so that its drop ends the threads if one cannot be started.
        let queue = Arc::new(Self { model, label: label.clone(), shared: shared.clone() });
        worker::spawn(&shared, label, options)?;
        Ok(queue)
    }

    pub fn model(&self) -> &ModelRef {
        &self.model
    }

    pub fn dimension(&self) -> usize {
        self.shared.model.dimension()
    }

    /// Texts that wait in a lane.
    pub fn waiting(&self, lane: Lane) -> usize {
        self.shared.lane(lane).waiting.load(Ordering::Relaxed)
    }

    /// The encoder whose texts wait in `lane`.
    pub fn lane(self: &Arc<Self>, lane: Lane) -> Arc<dyn Encoder> {
        Arc::new(LaneEncoder { queue: self.clone(), lane })
    }

    async fn encode(&self, lane: Lane, texts: &[String]) -> Result<Vec<Embedding>, InferenceError> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let reservation = self.shared.reserve(lane, texts.len())?;
        let (sender, receiver) = oneshot::channel();
        let job = Arc::new(Job::new(texts.len(), sender));
        if texts.iter().map(String::len).sum::<usize>() <= INLINE_BYTES {
            enqueue(&self.shared, lane, &job, reservation, texts);
        } else {
            let (shared, texts) = (self.shared.clone(), texts.to_vec());
            tokio::task::spawn_blocking(move || enqueue(&shared, lane, &job, reservation, &texts));
        }
        // The sender is gone without an answer only if a thread has died.
        receiver.await.unwrap_or_else(|_| Err(InferenceError::Broken("a text was lost".to_owned())))
    }
}

/// So much text is tokenised where the caller runs; more would hold up its thread.
const INLINE_BYTES: usize = 4096;
/// Workers begin while the rest is still tokenised.
const CHUNK: usize = 64;

fn enqueue(shared: &Shared, lane: Lane, job: &Arc<Job>, mut reservation: Reservation, texts: &[String]) {
    for (chunk, first) in texts.chunks(CHUNK).zip((0..).step_by(CHUNK)) {
        if job.is_abandoned() {
            return;
        }
        let mut items = Vec::with_capacity(chunk.len());
        for (text, index) in chunk.iter().zip(first..) {
            let prepared = worker::guarded(|| shared.model.prepare(text));
            match prepared {
                Ok(Ok(prepared)) => {
                    items.push(Item { prepared, index, job: job.clone(), _slot: reservation.take_one() });
                }
                Ok(Err(PrepareError::NotEmbeddable(reason))) => {
                    return job.fail(InferenceError::NotEmbeddable { index, reason });
                }
                Ok(Err(PrepareError::Broken(reason))) | Err(reason) => {
                    return job.fail(InferenceError::Broken(reason));
                }
            }
        }
        shared.push(lane, items);
    }
}

struct LaneEncoder {
    queue: Arc<EncodeQueue>,
    lane: Lane,
}

#[async_trait::async_trait]
impl Encoder for LaneEncoder {
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
        self.shared.close();
    }
}
