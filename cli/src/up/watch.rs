//! What watches the running parts: readiness, gauges, compaction.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carbon_core::{Classify as _, Clock as _, GenerationId, Positions, SystemClock};
use carbon_log::{EmbeddedLog, EventLog};
use carbon_runtime::consume::ProcessorView;
use carbon_runtime::{Health, Shutdown};
use carbon_search::HybridIndex;

const STEP: Duration = Duration::from_millis(500);

/// The store is ready when its read models have folded what the log held at the start.
pub async fn store(log: Arc<dyn EventLog>, views: [ProcessorView; 3], health: Arc<Health>) {
    for view in &views {
        catch_up(&log, view, &health, "store").await;
    }
    health.set("store", true, "read models follow the log");
}

/// The index is ready when queries see what the log held at the start.
pub async fn index(
    log: Arc<dyn EventLog>,
    embedder: Option<ProcessorView>,
    indexer: ProcessorView,
    (index, generation): (Arc<dyn HybridIndex>, GenerationId),
    health: Arc<Health>,
) {
    if let Some(embedder) = &embedder {
        catch_up(&log, embedder, &health, "index").await;
    }
    catch_up(&log, &indexer, &health, "index").await;
    // What is committed is seen a moment later, with the next view.
    if let Ok(sources) = index.source_positions(&generation).await {
        let far = tokio::time::Instant::now() + Duration::from_secs(3600);
        if let Err(error) = index.reached(&generation, &sources, far).await {
            tracing::error!(%error, "the index cannot be asked how far it is");
        }
    }
    health.set("index", true, "follows the log");
}

/// The ends of a processor's topic, from a log that may be away for a while.
async fn ends(log: &Arc<dyn EventLog>, view: &ProcessorView) -> Option<Positions> {
    loop {
        match view.ends(&**log).await {
            Ok(ends) => return Some(ends),
            Err(error) if error.retry() == carbon_core::Retry::Later => {
                tracing::warn!(%error, processor = %view.name, "ends cannot be told yet");
                tokio::time::sleep(STEP).await;
            }
            Err(error) => {
                tracing::error!(%error, processor = %view.name, "ends cannot be told");
                return None;
            }
        }
    }
}

/// Waits until a processor has reached the end that its topic has now, and says how far it is meanwhile.
async fn catch_up(log: &Arc<dyn EventLog>, view: &ProcessorView, health: &Health, part: &str) {
    let Some(ends) = ends(log, view).await else { return };
    loop {
        let left = match view.left(&**log, &ends, STEP).await {
            Ok(Some(0)) => return,
            Ok(Some(left)) => format!("{left} records to go"),
            Ok(None) => "waits for its partitions".into(),
            Err(error) => error.to_string(),
        };
        if view.progress.has_changed().is_err() {
            return;
        }
        health.set(part, false, format!("{}: {left}", view.name));
    }
}

/// Keeps the gauges of lag and age current for whoever scrapes them.
pub async fn gauges(log: Arc<dyn EventLog>, views: Arc<Mutex<Vec<ProcessorView>>>, shutdown: Shutdown) {
    const EVERY: Duration = Duration::from_secs(5);
    while tokio::time::timeout(EVERY, shutdown.cancelled()).await.is_err() {
        let views = views.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for view in views {
            match view.lag(&*log, SystemClock.now()).await {
                Ok(lag) => {
                    metrics::gauge!("processor_lag", "processor" => view.name.clone()).set(lag.records as f64);
                    let age = lag.oldest_event_age_s.unwrap_or(0.0);
                    metrics::gauge!("processor_event_age_seconds", "processor" => view.name).set(age);
                }
                Err(error) => tracing::warn!(processor = %view.name, %error, "lag cannot be told"),
            }
        }
    }
}

pub async fn compaction(log: Arc<EmbeddedLog>, every_s: u64, shutdown: Shutdown) {
    if every_s == 0 {
        return;
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(every_s));
    ticks.tick().await;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match log.compact().await {
            Ok(report) => {
                let (superseded, nulls, expired) = (report.superseded, report.nulls, report.expired);
                tracing::info!(superseded, nulls, expired, "log compacted");
            }
            Err(error) => tracing::error!(%error, fault = ?error.fault(), "log could not be compacted"),
        }
    }
}
