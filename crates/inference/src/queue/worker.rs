//! The worker threads of a queue: each takes batches from the scheduler and runs the model.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::Lane;
use super::scheduler::{QueuedText, Scheduler};
use crate::encoder::Embedding;
use crate::{EncoderOptions, InferenceError};

/// Number of threads that take texts of both priority classes.
pub(super) fn threads(options: &EncoderOptions) -> usize {
    match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

/// Starts the threads. One additional thread takes interactive texts only: a query shares the cores with the running
/// batches and does not wait until one of them ends.
pub(super) fn spawn(
    scheduler: &Arc<Scheduler>,
    label: Arc<str>,
    options: &EncoderOptions,
) -> Result<(), InferenceError> {
    let all_cores = all_cores_pool(threads(options))?;
    for number in 0..=threads(options) {
        let (scheduler, label, all_cores) = (scheduler.clone(), label.clone(), all_cores.clone());
        let interactive_only = number == 0;
        let name = if interactive_only { "encode-query".to_owned() } else { format!("encode-{number}") };
        std::thread::Builder::new()
            .name(name)
            .spawn(move || work(&scheduler, &label, all_cores.as_deref(), interactive_only))
            .map_err(|error| InferenceError::Broken(format!("a worker thread cannot be started: {error}")))?;
    }
    Ok(())
}

/// A thread pool over all cores, for a batch that runs alone: it lowers latency and uses more CPU time. `None` if there
/// is only one thread.
fn all_cores_pool(threads: usize) -> Result<Option<Arc<rayon::ThreadPool>>, InferenceError> {
    if threads < 2 {
        return Ok(None);
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|at| format!("encode-wide-{at}"));
    let pool = pool.build().map_err(|error| {
        InferenceError::Broken(format!("the thread pool of the encoder cannot be started: {error}"))
    })?;
    Ok(Some(Arc::new(pool)))
}

/// The loop of a worker thread; it ends when the queue is closed.
fn work(scheduler: &Scheduler, label: &str, all_cores: Option<&rayon::ThreadPool>, interactive_only: bool) {
    // The parallel loops of the network run on this thread only. Concurrent batches use the cores better than one batch
    // whose loops are split.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    if let Err(error) = &pool {
        tracing::warn!(%error, "worker thread has no pool of its own; encoding uses the global thread pool");
    }
    let batch_size = metrics::histogram!("batch_size_histogram", "model" => label.to_owned());
    while let Some((lane, batch)) = scheduler.next_batch(interactive_only) {
        let started = Instant::now();
        batch_size.record(batch.len() as f64);
        let texts = batch.len();
        let alone = scheduler.begin_batch();
        match all_cores {
            Some(pool) if alone => pool.install(|| run(scheduler, batch)),
            _ => run(scheduler, batch),
        }
        scheduler.end_batch();
        let took = started.elapsed();
        if lane == Lane::Bulk {
            scheduler.record_duration(texts, took);
        }
        tracing::trace!(texts, lane = lane.as_str(), ms = took.as_secs_f64() * 1e3, "batch encoded");
    }
}

/// Runs the model on a batch and answers the calls of its texts.
fn run(scheduler: &Scheduler, mut batch: Vec<QueuedText>) {
    let ids: Vec<&[u32]> = batch.iter().map(|text| text.prepared.ids.as_slice()).collect();
    let result = catch_panic(|| {
        fail::fail_point!("encoder::run", |reason| Err(InferenceError::Broken(reason.unwrap_or_default())));
        scheduler.model.run(&ids)
    });
    let result = result.unwrap_or_else(|panic| Err(InferenceError::Broken(panic)));
    match result {
        Ok(vectors) if vectors.len() == batch.len() => {
            for (text, vector) in batch.into_iter().zip(vectors) {
                let QueuedText { prepared, index, call, _slot } = text;
                drop(_slot);
                call.finish_text(index, Embedding { vector, tokens: prepared.tokens, truncated: prepared.truncated });
            }
        }
        Ok(vectors) => {
            let reason = format!("the model returned {} vectors for {} texts", vectors.len(), batch.len());
            batch.iter().for_each(|text| text.call.fail(InferenceError::Broken(reason.clone())));
        }
        // Retry each text alone: a text that fails must not fail the calls of other texts.
        Err(_) if batch.len() > 1 => batch.drain(..).for_each(|text| run(scheduler, vec![text])),
        Err(error) => {
            tracing::error!(%error, "encoding a text failed");
            if let Some(text) = batch.pop() {
                text.call.fail(error);
            }
        }
    }
}

/// Runs code of the model and converts a panic to an error, so that the thread continues.
pub(super) fn catch_panic<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| format!("panicked: {}", message(panic.as_ref())))
}

/// The message of a panic.
fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
