//! `ml.run.logged.v1`: the fold decides a batch in memory against the stored rows that it refers to, and writes the
//! changes with one statement for each table.

use std::collections::{BTreeSet, HashMap};

use carbon_core::Position;
use carbon_schemas::events::{KeyValue, Metric, RunKind, RunLogged};
use carbon_store::{Dialect, Tables};

use super::run_changes::{RunChanges, RunWrites};
use super::stored_runs::{self, StoredRows, StoredRun};
use crate::projection::FoldError;
use crate::registry::NAME_TAG;
use crate::registry::points::{LoggedPoint, NewestSegment, is_wide};
use crate::registry::run_info::RunInfo;
use crate::registry::verdict::{Conflict, ConflictCode};

/// Decides a batch. The fold ends with the statements of [`RunBatch::writes`].
pub(super) async fn apply<'a>(
    tables: &mut Tables<'_>,
    batch: &[(&'a Position, &'a RunLogged)],
) -> Result<RunBatch<'a>, FoldError> {
    let mut decided = RunBatch::default();
    if batch.is_empty() {
        return Ok(decided);
    }
    decided = RunBatch::new(stored_runs::load(tables, batch).await?);
    for (position, event) in batch {
        if let Some(conflict) = decided.apply(event) {
            decided.conflicts.push((*position, conflict));
        }
    }
    Ok(decided)
}

/// A batch of run events, and what was decided about it.
#[derive(Default)]
pub(super) struct RunBatch<'a> {
    pub conflicts: Vec<(&'a Position, Conflict)>,
    /// The numbers of the runs that the batch names, by tenant and id.
    numbers: HashMap<(String, String), i64>,
    /// The runs with what the batch has changed so far.
    runs: HashMap<i64, StoredRun>,
    next_run_no: i64,
    stored_params: HashMap<(i64, String), String>,
    stored_tags: BTreeSet<(i64, String)>,
    segments: HashMap<i64, NewestSegment>,
    changes: RunChanges<'a>,
}

impl<'a> RunBatch<'a> {
    fn new(stored: StoredRows) -> Self {
        let numbers = stored.runs.iter();
        let numbers = numbers.map(|run| ((run.tenant.clone(), run.info.run_id.clone()), run.info.run_no)).collect();
        Self {
            numbers,
            runs: stored.runs.into_iter().map(|run| (run.info.run_no, run)).collect(),
            next_run_no: stored.next_run_no,
            stored_params: stored.params,
            stored_tags: stored.tags,
            segments: stored.segments,
            ..Self::default()
        }
    }

    /// The writes of the batch.
    pub fn writes(&self, dialect: Dialect) -> Result<RunWrites<'_>, FoldError> {
        RunWrites::of(dialect, &self.changes, &self.segments)
    }

    /// Applies one event. Returns the conflict if the event changes nothing.
    fn apply(&mut self, event: &'a RunLogged) -> Option<Conflict> {
        let key = (event.tenant_id.to_string(), event.run_id.clone());
        let run_no = self.numbers.get(&key).copied();
        let Some(run_no) = run_no else {
            return match event.kind {
                RunKind::Started => {
                    self.start(key, event);
                    None
                }
                _ => {
                    let message = format!("Run with id={} not found", event.run_id);
                    Some(Conflict::new(ConflictCode::DoesNotExist, message))
                }
            };
        };
        match event.kind {
            RunKind::Unknown => None,
            RunKind::Started => Some(Conflict::new(ConflictCode::IdTaken, format!("run id {} is taken", event.run_id))),
            RunKind::Deleted => self.set_deleted(run_no, true),
            RunKind::Restored => self.set_deleted(run_no, false),
            _ if self.runs.get(&run_no).is_some_and(|run| run.info.deleted) => {
                let message =
                    format!("The run {} must be in the 'active' state. Current state is deleted.", event.run_id);
                Some(Conflict::new(ConflictCode::Refused, message))
            }
            RunKind::Logged => self.log(run_no, event),
            RunKind::Updated => self.update(run_no, event),
            RunKind::Inputs => {
                for dataset in &event.datasets {
                    let at = (run_no, dataset.name.as_str(), dataset.digest.as_str());
                    self.changes.datasets.entry(at).or_insert(dataset);
                }
                for model in &event.input_models {
                    self.changes.models.entry((run_no, "input", model)).or_insert(0);
                }
                None
            }
            RunKind::Outputs => {
                for output in &event.output_models {
                    self.changes.models.insert((run_no, "output", &output.model_id), output.step);
                }
                None
            }
        }
    }

    fn start(&mut self, key: (String, String), event: &'a RunLogged) {
        let run_no = self.next_run_no;
        self.next_run_no += 1;
        let run = StoredRun { tenant: key.0.clone(), info: RunInfo::started(run_no, event) };
        self.numbers.insert(key, run_no);
        self.runs.insert(run_no, run.clone());
        self.changes.runs.insert(run_no, run);
        self.set_tags(run_no, &event.tags);
        // The name of the run overrides a name tag of the same event.
        if let Some(name) = &event.run_name {
            self.changes.tags.insert((run_no, NAME_TAG), Some(name));
            self.change(run_no, |run| run.name.clone_from(name));
        }
    }

    fn change(&mut self, run_no: i64, change: impl FnOnce(&mut RunInfo)) {
        if let Some(run) = self.runs.get_mut(&run_no) {
            change(&mut run.info);
            self.changes.runs.insert(run_no, run.clone());
        }
    }

    fn set_deleted(&mut self, run_no: i64, deleted: bool) -> Option<Conflict> {
        if self.runs.get(&run_no).is_some_and(|run| run.info.deleted != deleted) {
            self.change(run_no, |run| run.deleted = deleted);
        }
        None
    }

    fn update(&mut self, run_no: i64, event: &'a RunLogged) -> Option<Conflict> {
        self.change(run_no, |run| {
            if let Some(status) = &event.status {
                run.status.clone_from(status);
            }
            if event.end_time.is_some() {
                run.end_time = event.end_time;
            }
            if let Some(name) = &event.run_name {
                run.name.clone_from(name);
            }
        });
        if let Some(name) = &event.run_name {
            self.changes.tags.insert((run_no, NAME_TAG), Some(name));
        }
        None
    }

    /// An event is accepted whole or rejected whole.
    fn log(&mut self, run_no: i64, event: &'a RunLogged) -> Option<Conflict> {
        if let Some(conflict) = self.params_differ(run_no, event).or_else(|| self.tags_are_missing(run_no, event)) {
            return Some(conflict);
        }
        for param in &event.params {
            if !self.stored_params.contains_key(&(run_no, param.key.clone())) {
                self.changes.params.entry((run_no, &param.key)).or_insert(&param.value);
            }
        }
        let wide = is_wide(event);
        for metric in &event.metrics {
            self.changes.points.push(LoggedPoint { run_no, metric, wide });
            let latest = self.changes.latest.entry((run_no, &metric.key)).or_insert(metric);
            if rank(metric) > rank(latest) {
                *latest = metric;
            }
        }
        self.set_tags(run_no, &event.tags);
        for key in &event.removed_tags {
            self.changes.tags.insert((run_no, key), None);
        }
        None
    }

    /// A parameter is set once (law 10): the first value stays.
    fn params_differ(&self, run_no: i64, event: &RunLogged) -> Option<Conflict> {
        let mut own: HashMap<&str, &str> = HashMap::with_capacity(event.params.len());
        let mut differing = Vec::new();
        for param in &event.params {
            let stored = self.stored_params.get(&(run_no, param.key.clone())).map(String::as_str);
            let before = stored
                .or_else(|| self.changes.params.get(&(run_no, param.key.as_str())).copied())
                .or_else(|| own.get(param.key.as_str()).copied());
            match before {
                Some(before) if before != param.value => differing.push((&param.key, before, &param.value)),
                _ => drop(own.insert(&param.key, &param.value)),
            }
        }
        let list = |(key, old, new): &(&String, &str, &String)| {
            format!("{{'key': '{key}', 'old_value': '{}', 'new_value': '{}'}}", shown(old), shown(new))
        };
        (!differing.is_empty()).then(|| {
            let list: Vec<_> = differing.iter().take(SHOWN_PARAMS).map(list).collect();
            let message = format!(
                "Changing param values is not allowed. Params were already logged='[{}]' for run ID='{}'.",
                list.join(", "),
                event.run_id
            );
            Conflict::new(ConflictCode::Refused, message)
        })
    }

    fn tags_are_missing(&self, run_no: i64, event: &RunLogged) -> Option<Conflict> {
        let missing = event.removed_tags.iter().find(|key| match self.changes.tags.get(&(run_no, key.as_str())) {
            Some(now) => now.is_none(),
            None => !self.stored_tags.contains(&(run_no, (*key).clone())),
        })?;
        let message = format!("No tag with name: {missing} in run with id {}", event.run_id);
        Some(Conflict::new(ConflictCode::DoesNotExist, message))
    }

    fn set_tags(&mut self, run_no: i64, tags: &'a [KeyValue]) {
        for tag in tags {
            self.changes.tags.insert((run_no, &tag.key), Some(&tag.value));
            if tag.key == NAME_TAG {
                self.change(run_no, |run| run.name.clone_from(&tag.value));
            }
        }
    }
}

/// Maximum run_no of differing parameters that a conflict's message names.
const SHOWN_PARAMS: usize = 20;

/// Maximum run_no of characters of each value in the message.
const SHOWN_CHARS: usize = 500;

fn shown(value: &str) -> &str {
    value.char_indices().nth(SHOWN_CHARS).map_or(value, |(end, _)| &value[..end])
}

/// The order of points: the latest is the greatest by step, timestamp and value. NaN counts as zero, as in MLflow.
fn rank(metric: &Metric) -> (i64, i64, Ranked) {
    (metric.step, metric.timestamp, Ranked(if metric.value.is_nan() { 0.0 } else { metric.value }))
}

#[derive(PartialEq, PartialOrd)]
struct Ranked(f64);
