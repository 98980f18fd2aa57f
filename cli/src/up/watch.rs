//! What watches the running parts: the log, gauges, compaction.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use carbon_core::{Classify as _, Clock as _, SystemClock};
use carbon_log::{EmbeddedLog, LogError};
use carbon_runtime::consume::ProcessorView;
use carbon_runtime::{Check, Policy};

use super::assembly::Assembly;

/// How often the log is asked whether it works.
const LOG_POLL: Duration = Duration::from_millis(500);
const GAUGES_POLL: Duration = Duration::from_secs(5);

/// Says in `/ready` whether the log works.
pub fn log(assembly: &Assembly, shown: &str) {
    let (log, health, shown) = (assembly.log.clone(), assembly.health.clone(), shown.to_owned());
    let shutdown = assembly.shutdown().clone();
    health.set("log", Check::ready(&shown));
    assembly.supervisor.spawn("check of the log", Policy::Restart, move || {
        let (log, health, shown, shutdown) = (log.clone(), health.clone(), shown.clone(), shutdown.clone());
        async move {
            while tokio::time::timeout(LOG_POLL, shutdown.cancelled()).await.is_err() {
                let check = match log.check().await {
                    Ok(()) => Check::ready(&shown),
                    Err(error) => Check::failing(error.to_string()),
                };
                health.set("log", check);
            }
            Ok::<(), Infallible>(())
        }
    });
}

/// Keeps the gauges of lag and age current for scrapes.
pub fn gauges(assembly: &Assembly) {
    let assembly = assembly.clone();
    let supervisor = assembly.supervisor.clone();
    supervisor.spawn("gauges", Policy::Restart, move || {
        let assembly = assembly.clone();
        async move {
            while tokio::time::timeout(GAUGES_POLL, assembly.shutdown().cancelled()).await.is_err() {
                for view in assembly.processors.all() {
                    if let Err(error) = gauge(&assembly, &view).await {
                        tracing::warn!(processor = %view.name, %error, "end offsets unavailable");
                    }
                }
            }
            Ok::<(), Infallible>(())
        }
    });
}

async fn gauge(assembly: &Assembly, view: &ProcessorView) -> Result<(), LogError> {
    let lag = view.lag(&*assembly.log, SystemClock.now()).await?;
    let generation = view.generation.as_ref().map(ToString::to_string).unwrap_or_default();
    let labels = [("processor", view.name.clone()), ("generation", generation)];
    metrics::gauge!("processor_lag", &labels).set(lag.records as f64);
    metrics::gauge!("processor_event_age_seconds", &labels).set(lag.oldest_event_age_s.unwrap_or(0.0));
    Ok(())
}

/// Compacts the embedded log from time to time; 0 s is never.
pub fn compaction(assembly: &Assembly, log: Arc<EmbeddedLog>, every_s: u64) {
    if every_s == 0 {
        return;
    }
    let shutdown = assembly.shutdown().clone();
    assembly.supervisor.spawn("compaction", Policy::Restart, move || {
        let (log, shutdown) = (log.clone(), shutdown.clone());
        async move {
            while tokio::time::timeout(Duration::from_secs(every_s), shutdown.cancelled()).await.is_err() {
                match log.compact().await {
                    Ok(report) => {
                        let (superseded, nulls, expired) = (report.superseded, report.nulls, report.expired);
                        tracing::info!(superseded, nulls, expired, "log compacted");
                    }
                    Err(error) => tracing::error!(%error, fault = ?error.fault(), "log not compacted; retrying"),
                }
            }
            Ok::<(), Infallible>(())
        }
    });
}
