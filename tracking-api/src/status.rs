//! `GET /status`: log, processors with their lag, generations, tasks and dead letters.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use carbon_core::{Cleanup, Timestamp};
use carbon_http::{Problem, responses};
use carbon_log::{EventLog, LogError, TopicDescription};
use carbon_runtime::consume::{Lag, ProcessorView, Progress};
use carbon_runtime::{TaskState, TaskStatus};
use serde::Serialize;
use utoipa::ToSchema;

use crate::generations::{GenerationStatus, Generations};
use crate::state::Dependencies;

#[derive(Serialize, ToSchema)]
pub(crate) struct Status {
    env: String,
    version: &'static str,
    log: LogStatus,
    processors: Vec<ProcessorStatus>,
    generations: Vec<GenerationStatus>,
    /// The long-lived tasks of this process.
    tasks: BTreeMap<String, Task>,
    /// `null` if this process does not hold the read model of dead letters, or is filling it.
    dead_letters: Option<DeadLetters>,
}

#[derive(Serialize, ToSchema)]
struct LogStatus {
    identity: String,
    /// The size on disk; `null` if it is not known.
    bytes: Option<u64>,
    topics: Vec<TopicStatus>,
}

#[derive(Serialize, ToSchema)]
struct TopicStatus {
    name: String,
    partitions: u32,
    /// End offset minus start offset, over all partitions. A compacted topic holds fewer records.
    records: u64,
    /// `keep`, `compact` or `delete`.
    cleanup: &'static str,
}

#[derive(Serialize, ToSchema)]
struct ProcessorStatus {
    name: String,
    /// The generation that a sink fills.
    generation: Option<String>,
    group: String,
    topics: Vec<String>,
    /// `starting`, `filling`, `running`, `retrying`, `stalled`, `halted` or `stopped`. A processor of another process is
    /// `running` if its group has members, else `stopped`.
    phase: &'static str,
    /// True if the processor runs in this process. Of other processes, only the committed offsets are known.
    here: bool,
    /// Why the processor retries, is stalled or halted, and at which position.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The number of offsets that are not processed.
    lag: u64,
    /// The age of the oldest event that is not processed, in seconds.
    oldest_event_age_s: Option<f64>,
    records: u64,
    batches: u64,
    /// The partitions that need a newer version of the program, with the event kind or version that they need.
    halted: BTreeMap<String, String>,
    /// The number of dead letters since the process started, by reason.
    dead_letters: BTreeMap<&'static str, u64>,
    /// Why the read model was dropped and is rebuilt, if it was.
    rebuilt: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Task {
    /// `running`, `retrying` or `halted`.
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The number of restarts since the process started.
    restarts: u64,
}

#[derive(Serialize, ToSchema)]
struct DeadLetters {
    /// The number of open dead letters, by reason.
    by_reason: BTreeMap<String, u64>,
}

/// Status of the log, processors, generations, tasks and dead letters
#[utoipa::path(get, path = "/status", tag = "operations",
    responses((status = 200, body = Status), responses::Unavailable))]
pub(crate) async fn get_status(
    State(dependencies): State<Arc<Dependencies>>,
    State(generations): State<Generations>,
) -> Result<Json<Status>, Problem> {
    let log = &*dependencies.log;
    let views = dependencies.processors.all();
    let now = dependencies.clock.now();
    let mut processors = Vec::with_capacity(views.len());
    for view in &views {
        processors.push(processor(log, view, now).await?);
    }
    processors.extend(processors_elsewhere(&dependencies, &views, now).await?);
    let letters = dependencies.read_models.get("deadletters").and_then(|handle| handle.get().ok());
    let dead_letters = match letters {
        Some(rows) => {
            let counts = carbon_read_models::deadletters::counts(&rows.namespace).await?;
            Some(DeadLetters { by_reason: counts.into_iter().collect() })
        }
        None => None,
    };
    Ok(Json(Status {
        env: dependencies.config.env.clone(),
        version: env!("CARGO_PKG_VERSION"),
        log: LogStatus {
            identity: log.identity().to_owned(),
            bytes: log.size().await?,
            topics: log.describe().await?.iter().map(topic).collect(),
        },
        processors,
        generations: generations.list(),
        tasks: dependencies.supervisor.tasks().into_iter().map(task).collect(),
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

/// Returns the processors of other processes, by the committed offsets of their groups.
async fn processors_elsewhere(
    dependencies: &Dependencies,
    here: &[ProcessorView],
    now: Timestamp,
) -> Result<Vec<ProcessorStatus>, LogError> {
    let mut found = Vec::new();
    for group in dependencies.log.groups().await? {
        let name = group.group.processor();
        let Some(processor) = dependencies.topology.processors.get(name) else { continue };
        if here.iter().any(|view| view.group == group.group) {
            continue;
        }
        let lag = Lag::of(&*dependencies.log, &processor.consumes, &group.positions, now).await?;
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
