//! The threads that encode.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::Lane;
use super::lanes::{Item, Shared};
use crate::encoder::Embedding;
use crate::{EncoderOptions, InferenceError};

/// Threads that take work of both lanes.
pub(super) fn threads(options: &EncoderOptions) -> usize {
    match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

/// Starts the threads. One more serves the interactive lane alone: a query then shares the cores
/// with the batches that run, and does not wait for one of them to end.
pub(super) fn spawn(shared: &Arc<Shared>, label: Arc<str>, options: &EncoderOptions) -> Result<(), InferenceError> {
    let wide = wide(threads(options))?;
    for number in 0..=threads(options) {
        let (shared, label, wide) = (shared.clone(), label.clone(), wide.clone());
        let interactive_only = number == 0;
        let name = if interactive_only { "encode-query".to_owned() } else { format!("encode-{number}") };
        std::thread::Builder::new()
            .name(name)
            .spawn(move || work(&shared, &label, wide.as_deref(), interactive_only))
            .map_err(|error| InferenceError::Broken(format!("no thread to encode on: {error}")))?;
    }
    Ok(())
}

/// All cores for one batch that is alone: it ends sooner, at some loss of throughput that nobody waits for.
fn wide(threads: usize) -> Result<Option<Arc<rayon::ThreadPool>>, InferenceError> {
    if threads < 2 {
        return Ok(None);
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|at| format!("encode-wide-{at}"));
    let pool = pool.build().map_err(|error| InferenceError::Broken(format!("no threads to encode on: {error}")))?;
    Ok(Some(Arc::new(pool)))
}

fn work(shared: &Shared, label: &str, wide: Option<&rayon::ThreadPool>, interactive_only: bool) {
    // The network's parallel loops run on this very thread: batches side by side keep the cores
    // busier than one batch whose every step is divided.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    if let Err(error) = &pool {
        tracing::warn!(%error, "encoding shares the global thread pool");
    }
    let batch_size = metrics::histogram!("batch_size_histogram", "model" => label.to_owned());
    while let Some((lane, batch)) = shared.next_batch(interactive_only) {
        let started = Instant::now();
        batch_size.record(batch.len() as f64);
        let texts = batch.len();
        let alone = shared.begins_alone();
        match wide {
            Some(wide) if alone => wide.install(|| run(shared, batch)),
            _ => run(shared, batch),
        }
        shared.batch_ended();
        let took = started.elapsed();
        if lane == Lane::Bulk {
            shared.record(texts, took);
        }
        tracing::trace!(texts, lane = lane.as_str(), ms = took.as_secs_f64() * 1e3, "batch encoded");
    }
}

fn run(shared: &Shared, mut batch: Vec<Item>) {
    let ids: Vec<&[u32]> = batch.iter().map(|item| item.prepared.ids.as_slice()).collect();
    let result = guarded(|| {
        fail::fail_point!("encoder::run", |what| Err(InferenceError::Broken(what.unwrap_or_default())));
        shared.model.run(&ids)
    });
    let result = result.unwrap_or_else(|panic| Err(InferenceError::Broken(panic)));
    match result {
        Ok(vectors) if vectors.len() == batch.len() => {
            for (item, vector) in batch.into_iter().zip(vectors) {
                let Item { prepared, index, job, _slot } = item;
                drop(_slot);
                job.finish(index, Embedding { vector, tokens: prepared.tokens, truncated: prepared.truncated });
            }
        }
        Ok(vectors) => {
            let reason = format!("{} vectors for {} texts", vectors.len(), batch.len());
            batch.iter().for_each(|item| item.job.fail(InferenceError::Broken(reason.clone())));
        }
        // Each text alone, so that one of them cannot fail those of other callers.
        Err(_) if batch.len() > 1 => batch.drain(..).for_each(|item| run(shared, vec![item])),
        Err(error) => {
            tracing::error!(%error, "encoding failed");
            if let Some(item) = batch.pop() {
                item.job.fail(error);
            }
        }
    }
}

/// Runs code of the model; its panic becomes an error, and the thread goes on.
pub(super) fn guarded<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| format!("panicked: {}", message(panic.as_ref())))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
