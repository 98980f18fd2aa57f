//! `ml.run.logged.v1`: what a batch says is decided in memory against the rows that it names, and written by one statement
//! for each table.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use carbon_core::Position;
use carbon_schemas::events::{KeyValue, Metric, RunKind, RunLogged};
use carbon_store::Tables;

use super::metrics::Logged;
use super::run_rows::{self, RunRow, Stored};
use crate::projection::FoldError;
use crate::registry::verdict::{Conflict, ConflictCode};

/// The tag that follows a run's name, and that the name follows.
pub(crate) const NAME_TAG: &str = "mlflow.runName";

/// What a batch changes, by the run's number.
#[derive(Default)]
pub(super) struct Changes<'a> {
    pub runs: BTreeMap<i64, RunRow>,
    pub params: BTreeMap<(i64, &'a str), &'a str>,
    /// `None`: removed.
    pub tags: BTreeMap<(i64, &'a str), Option<&'a str>>,
    pub metrics: Vec<Logged<'a>>,
    pub latest: BTreeMap<(i64, &'a str), &'a Metric>,
    pub datasets: BTreeMap<(i64, &'a str, &'a str), &'a carbon_schemas::events::DatasetInput>,
    /// By direction and model; the step.
    pub models: BTreeMap<(i64, &'static str, &'a str), i64>,
}

pub(super) async fn apply<'a>(
    tables: &mut Tables<'_>,
    batch: &[(&'a Position, &'a RunLogged)],
) -> Result<Vec<(&'a Position, Conflict)>, FoldError> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let stored = run_rows::load(tables, batch).await?;
    let mut fold = Fold::new(stored);
    let mut conflicts = Vec::new();
    for (position, event) in batch {
        if let Some(conflict) = fold.apply(event) {
            conflicts.push((*position, conflict));
        }
    }
    run_rows::write(tables, &fold.changes, &fold.segments).await?;
    Ok(conflicts)
}

struct Fold<'a> {
    /// The runs that the batch names, by tenant and id.
    numbers: HashMap<(String, String), i64>,
    /// As they are now, with what the batch has changed so far.
    runs: HashMap<i64, RunRow>,
    next_number: i64,
    stored_params: HashMap<(i64, String), String>,
    stored_tags: BTreeSet<(i64, String)>,
    segments: HashMap<i64, (i64, i64)>,
    changes: Changes<'a>,
}

impl<'a> Fold<'a> {
    fn new(stored: Stored) -> Self {
        let numbers = stored.runs.iter().map(|row| ((row.tenant.clone(), row.run_id.clone()), row.number)).collect();
        Self {
            numbers,
            runs: stored.runs.into_iter().map(|row| (row.number, row)).collect(),
            next_number: stored.next_number,
            stored_params: stored.params,
            stored_tags: stored.tags,
            segments: stored.segments,
            changes: Changes::default(),
        }
    }

    /// The conflict, where the event changes nothing.
    fn apply(&mut self, event: &'a RunLogged) -> Option<Conflict> {
        let key = (event.tenant_id.to_string(), event.run_id.clone());
        let number = self.numbers.get(&key).copied();
        let Some(number) = number else {
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
            RunKind::Deleted => self.mark(number, true),
            RunKind::Restored => self.mark(number, false),
            _ if self.runs.get(&number).is_some_and(|run| run.deleted) => {
                let message =
                    format!("The run {} must be in the 'active' state. Current state is deleted.", event.run_id);
                Some(Conflict::new(ConflictCode::Refused, message))
            }
            RunKind::Logged => self.log(number, event),
            RunKind::Updated => self.update(number, event),
            RunKind::Inputs => {
                for dataset in &event.datasets {
                    let at = (number, dataset.name.as_str(), dataset.digest.as_str());
                    self.changes.datasets.entry(at).or_insert(dataset);
                }
                for model in &event.input_models {
                    self.changes.models.entry((number, "input", model)).or_insert(0);
                }
                None
            }
            RunKind::Outputs => {
                for output in &event.output_models {
                    self.changes.models.insert((number, "output", &output.model_id), output.step);
                }
                None
            }
        }
    }

    fn start(&mut self, key: (String, String), event: &'a RunLogged) {
        let number = self.next_number;
        self.next_number += 1;
        let row = RunRow::started(number, event);
        self.numbers.insert(key, number);
        self.runs.insert(number, row.clone());
        self.changes.runs.insert(number, row);
        self.set_tags(number, &event.tags);
        // Of the name and the tag that may say otherwise, the name counts for both.
        if let Some(name) = &event.run_name {
            self.changes.tags.insert((number, NAME_TAG), Some(name));
            self.change(number, |run| run.name.clone_from(name));
        }
    }

    fn change(&mut self, number: i64, change: impl FnOnce(&mut RunRow)) {
        if let Some(run) = self.runs.get_mut(&number) {
            change(run);
            self.changes.runs.insert(number, run.clone());
        }
    }

    fn mark(&mut self, number: i64, deleted: bool) -> Option<Conflict> {
        if self.runs.get(&number).is_some_and(|run| run.deleted != deleted) {
            self.change(number, |run| run.deleted = deleted);
        }
        None
    }

    fn update(&mut self, number: i64, event: &'a RunLogged) -> Option<Conflict> {
        self.change(number, |run| {
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
            self.changes.tags.insert((number, NAME_TAG), Some(name));
        }
        None
    }

    /// A batch is taken whole or refused whole.
    fn log(&mut self, number: i64, event: &'a RunLogged) -> Option<Conflict> {
        if let Some(conflict) = self.params_differ(number, event).or_else(|| self.tags_are_missing(number, event)) {
            return Some(conflict);
        }
        for param in &event.params {
            if !self.stored_params.contains_key(&(number, param.key.clone())) {
                self.changes.params.entry((number, &param.key)).or_insert(&param.value);
            }
        }
        let wide = Logged::is_wide(event);
        for metric in &event.metrics {
            self.changes.metrics.push(Logged { number, metric, wide });
            let latest = self.changes.latest.entry((number, &metric.key)).or_insert(metric);
            if rank(metric) > rank(latest) {
                *latest = metric;
            }
        }
        self.set_tags(number, &event.tags);
        for key in &event.removed_tags {
            self.changes.tags.insert((number, key), None);
        }
        None
    }

    /// A parameter is set once (law 10): the first value stays.
    fn params_differ(&self, number: i64, event: &RunLogged) -> Option<Conflict> {
        let mut own: HashMap<&str, &str> = HashMap::with_capacity(event.params.len());
        let mut differing = Vec::new();
        for param in &event.params {
            let stored = self.stored_params.get(&(number, param.key.clone())).map(String::as_str);
            let before = stored
                .or_else(|| self.changes.params.get(&(number, param.key.as_str())).copied())
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
            let list: Vec<_> = differing.iter().take(SHOWN).map(list).collect();
            let message = format!(
                "Changing param values is not allowed. Params were already logged='[{}]' for run ID='{}'.",
                list.join(", "),
                event.run_id
            );
            Conflict::new(ConflictCode::Refused, message)
        })
    }

    fn tags_are_missing(&self, number: i64, event: &RunLogged) -> Option<Conflict> {
        let missing = event.removed_tags.iter().find(|key| match self.changes.tags.get(&(number, key.as_str())) {
            Some(now) => now.is_none(),
            None => !self.stored_tags.contains(&(number, (*key).clone())),
        })?;
        let message = format!("No tag with name: {missing} in run with id {}", event.run_id);
        Some(Conflict::new(ConflictCode::DoesNotExist, message))
    }

    fn set_tags(&mut self, number: i64, tags: &'a [KeyValue]) {
        for tag in tags {
            self.changes.tags.insert((number, &tag.key), Some(&tag.value));
            if tag.key == NAME_TAG {
                self.change(number, |run| run.name.clone_from(&tag.value));
            }
        }
    }
}

/// So many differing parameters a conflict names, and so much of their values.
const SHOWN: usize = 20;

fn shown(value: &str) -> &str {
    value.char_indices().nth(500).map_or(value, |(end, _)| &value[..end])
}

/// The latest metric is the greatest by step, timestamp, value; not-a-number stands as nought, as with MLflow.
fn rank(metric: &Metric) -> (i64, i64, Ranked) {
    (metric.step, metric.timestamp, Ranked(if metric.value.is_nan() { 0.0 } else { metric.value }))
}

#[derive(PartialEq, PartialOrd)]
struct Ranked(f64);
