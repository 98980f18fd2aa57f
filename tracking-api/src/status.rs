//! `/status`: how far everything is.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use carbon_core::{Cleanup, Timestamp};
use carbon_http::Problem;
use carbon_log::{EventLog, LogError, TopicDescription};
use carbon_runtime::consume::{Lag, ProcessorView, Progress};
use carbon_runtime::{TaskState, TaskStatus};
use serde::Serialize;
use utoipa::ToSchema;

use crate::Parts;
use crate::generations::{self, GenerationStatus};

#[derive(Serialize, ToSchema)]
pub(crate) struct Status {
    env: String,
    version: &'static str,
    log: LogStatus,
    processors: Vec<ProcessorStatus>,
    generations: Vec<GenerationStatus>,
    /// The long-lived tasks of this process.
    tasks: BTreeMap<String, Task>,
    /// `null` where this process does not hold their read model, or fills it.
    dead_letters: Option<DeadLetters>,
}

#[derive(Serialize, ToSchema)]
struct LogStatus {
    identity: String,
    /// On disk, where it can be told.
    bytes: Option<u64>,
    topics: Vec<TopicStatus>,
}

#[derive(Serialize, ToSchema)]
struct TopicStatus {
    name: String,
    partitions: u32,
    /// The offsets between start and end; compaction leaves gaps in them.
    records: u64,
    /// `keep`, `compact` or `delete`.
    cleanup: &'static str,
}

#[derive(Serialize, ToSchema)]
struct ProcessorStatus {
    name: String,
    /// The generation that it fills, where it fills one.
    generation: Option<String>,
    group: String,
    topics: Vec<String>,
    /// `starting`, `filling`, `running`, `retrying`, `stalled`, `halted` or `stopped`; of a processor elsewhere, whether its
    /// group has members.
    phase: &'static str,
    /// Whether it runs in this process; of one elsewhere, only what the log knows is told.
    here: bool,
    /// Why it retries, stands or halted, and where.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// How many offsets are not processed.
    lag: u64,
    /// The age of the oldest event that is not processed.
    oldest_event_age_s: Option<f64>,
    records: u64,
    batches: u64,
    /// Partitions that wait for a newer program, and what it must know.
    halted: BTreeMap<String, String>,
    /// Reported since the start, by reason.
    dead_letters: BTreeMap<&'static str, u64>,
    /// Why the read model was thrown away and is rebuilt, if it was.
    rebuilt: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Task {
    /// `running`, `retrying` or `halted`.
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Since the process started.
    restarts: u64,
}

#[derive(Serialize, ToSchema)]
struct DeadLetters {
    /// The open ones.
    by_reason: BTreeMap<String, u64>,
}

/// How far everything is
#[utoipa::path(get, path = "/status", tag = "operations", responses(
    (status = 200, body = Status),
    (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get_status(State(parts): State<Arc<Parts>>) -> Result<Json<Status>, Problem> {
    let log = &*parts.log;
    let views = parts.processors.all();
    let now = parts.clock.now();
    let mut processors = Vec::with_capacity(views.len());
    for view in &views {
        processors.push(processor(log, view, now).await?);
    }
    processors.extend(elsewhere(&parts, &views, now).await?);
    let letters = parts.read_models.get("deadletters").and_then(|handle| handle.get().ok());
    let dead_letters = match letters {
        Some(rows) => {
            let counts = carbon_read_models::deadletters::counts(&rows.namespace).await?;
            Some(DeadLetters { by_reason: counts.into_iter().collect() })
        }
        None => None,
    };
    Ok(Json(Status {
        env: parts.config.env.clone(),
        version: env!("CARGO_PKG_VERSION"),
        log: LogStatus {
            identity: log.identity().to_owned(),
            bytes: log.size().await?,
            topics: log.describe().await?.iter().map(topic).collect(),
        },
        processors,
        generations: generations::list(&parts),
        tasks: parts.supervisor.tasks().into_iter().map(task).collect(),
        dead_letters,
    }))
}

fn topic(topic: &TopicDescription) -> TopicStatus {
    let records = topic.ends.iter().map(|(at, end)| end.saturating_sub(topic.starts.next(at))).sum();
    let cleanup = match topic.spec.cleanup {
        Cleanup::Keep => "keep",
        Cleanup::Compact => "compact",
        Cleanup::Delete => "delete",
    };
    TopicStatus { name: topic.spec.name.to_string(), partitions: topic.spec.partitions, records, cleanup }
}

async fn processor(log: &dyn EventLog, view: &ProcessorView, now: Timestamp) -> Result<ProcessorStatus, LogError> {
    let progress: Progress = view.progress.borrow().clone();
    let lag = view.lag(log, now).await?;
    let state = view.state();
    Ok(ProcessorStatus {
        name: view.name.clone(),
        generation: view.generation.as_ref().map(ToString::to_string),
        group: view.group.to_string(),
        topics: view.topics.iter().map(ToString::to_string).collect(),
        here: true,
        phase: state.name(),
        error: state.error(),
        lag: lag.records,
        oldest_event_age_s: lag.oldest_event_age_s,
        records: progress.records,
        batches: progress.batches,
        halted: progress.halted.iter().map(|(at, needs)| (at.to_string(), needs.clone())).collect(),
        dead_letters: progress.dead_letters,
        rebuilt: progress.rebuilt,
    })
}

/// The processors of other processes, by what their groups committed.
async fn elsewhere(parts: &Parts, here: &[ProcessorView], now: Timestamp) -> Result<Vec<ProcessorStatus>, LogError> {
    let mut found = Vec::new();
    for group in parts.log.groups().await? {
        let name = group.group.processor();
        let Some(processor) = parts.topology.processors.get(name) else { continue };
        if here.iter().any(|view| view.group == group.group) {
            continue;
        }
        let lag = Lag::of(&*parts.log, &processor.consumes, &group.positions, now).await?;
        found.push(ProcessorStatus {
            name: name.to_owned(),
            generation: None,
            group: group.group.to_string(),
            topics: processor.consumes.iter().map(ToString::to_string).collect(),
            here: false,
            phase: if group.members > 0 { "running" } else { "stopped" },
            error: None,
            lag: lag.records,
            oldest_event_age_s: lag.oldest_event_age_s,
            records: group.positions.iter().map(|(_, next)| next).sum(),
            batches: 0,
            halted: BTreeMap::new(),
            dead_letters: BTreeMap::new(),
            rebuilt: None,
        });
    }
    Ok(found)
}

fn task((name, status): (String, TaskStatus)) -> (String, Task) {
    let (phase, error) = match status.state {
        TaskState::Running => ("running", None),
        TaskState::Retrying { error } => ("retrying", Some(error)),
        TaskState::Halted { why } => ("halted", Some(why)),
        TaskState::Ended => ("ended", None),
    };
    (name, Task { phase, error, restarts: status.restarts })
}
