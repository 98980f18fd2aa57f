//! The rows that a batch of run events names, and those that it changes: one statement for each table and chunk, and all
//! of them in few turns.

use std::collections::{BTreeSet, HashMap};

use carbon_core::Position;
use carbon_schemas::events::{DatasetInput, RunKind, RunLogged};
use carbon_store::{Dialect, QueryBuilder, Row, Separated, Tables};

use super::metrics::Metrics;
use super::runs::Changes;
use crate::projection::FoldError;

/// Rows in one statement.
const CHUNK: usize = 500;

#[derive(Clone, Debug)]
pub(crate) struct RunRow {
    pub number: i64,
    pub tenant: String,
    pub run_id: String,
    pub experiment_id: i64,
    pub name: String,
    pub user_id: String,
    pub status: String,
    pub start_time: i64,
    pub end_time: Option<i64>,
    pub artifact_uri: String,
    pub deleted: bool,
}

impl RunRow {
    pub fn started(number: i64, event: &RunLogged) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Self {
            number,
            tenant: event.tenant_id.to_string(),
            run_id: event.run_id.clone(),
            experiment_id: event.experiment_id.as_deref().and_then(|id| id.parse().ok()).unwrap_or_default(),
            name: text(&event.run_name),
            user_id: text(&event.user_id),
            status: text(&event.status),
            start_time: event.start_time.unwrap_or_default(),
            end_time: event.end_time,
            artifact_uri: text(&event.artifact_uri),
            deleted: false,
        }
    }

    fn read(row: &Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            number: row.try_get(0)?,
            tenant: row.try_get(1)?,
            run_id: row.try_get(2)?,
            experiment_id: row.try_get(3)?,
            name: row.try_get(4)?,
            user_id: row.try_get(5)?,
            status: row.try_get(6)?,
            start_time: row.try_get(7)?,
            end_time: row.try_get(8)?,
            artifact_uri: row.try_get(9)?,
            deleted: row.try_get(10)?,
        })
    }
}

const COLUMNS: &str =
    "run_no, tenant_id, run_id, experiment_id, name, user_id, status, start_time, end_time, artifact_uri, deleted";

/// What is there of what a batch names.
pub(super) struct Stored {
    pub runs: Vec<RunRow>,
    pub next_number: i64,
    pub params: HashMap<(i64, String), String>,
    pub tags: BTreeSet<(i64, String)>,
    /// The newest segment of a run's wide metrics, and how many it holds.
    pub segments: HashMap<i64, (i64, i64)>,
}

/// Only a run that starts takes a number.
fn takes_number(event: &RunLogged) -> bool {
    event.kind == RunKind::Started
}

/// The runs that events name, and then the next number, where one is taken.
pub(super) fn reads<'e>(dialect: Dialect, events: impl Iterator<Item = &'e RunLogged>) -> Vec<QueryBuilder> {
    let (mut named, mut starts) = (BTreeSet::new(), false);
    for event in events {
        named.insert((event.tenant_id.as_str(), event.run_id.as_str()));
        starts |= takes_number(event);
    }
    let named: Vec<_> = named.into_iter().collect();
    let of_runs = named.chunks(CHUNK).map(|chunk| {
        let mut select = QueryBuilder::new(
            dialect,
            format!(
                "SELECT {COLUMNS}, \
                 (SELECT g.segment FROM metric_segments g WHERE g.run_no = runs.run_no ORDER BY g.segment DESC LIMIT 1), \
                 (SELECT g.held FROM metric_segments g WHERE g.run_no = runs.run_no ORDER BY g.segment DESC LIMIT 1) \
                 FROM runs WHERE (tenant_id, run_id) IN ("
            ),
        );
        select.push_values(chunk, |mut bind, (tenant, run)| {
            bind.push_bind(*tenant).push_bind(*run);
        });
        select.push(")");
        select
    });
    let of_next = starts.then(|| QueryBuilder::new(dialect, "SELECT coalesce(max(run_no), 0) + 1 FROM runs"));
    of_runs.chain(of_next).collect()
}

pub(super) async fn load(tables: &mut Tables<'_>, batch: &[(&Position, &RunLogged)]) -> Result<Stored, FoldError> {
    let events = || batch.iter().map(|(_, event)| *event);
    let mut rows = match tables.first_read() {
        Some(rows) => rows,
        None => tables.run(reads(tables.dialect(), events())).await?,
    };
    let next_number = match events().any(takes_number) {
        true => rows.pop().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?,
        false => 0,
    };
    let runs: Vec<_> = rows.iter().map(RunRow::read).collect::<Result<_, _>>()?;
    let mut segments = HashMap::new();
    for (run, row) in runs.iter().zip(&rows) {
        if let (Some(segment), Some(held)) = (row.try_get(11)?, row.try_get(12)?) {
            segments.insert(run.number, (segment, held));
        }
    }
    let numbers: HashMap<(&str, &str), i64> =
        runs.iter().map(|run| ((run.tenant.as_str(), run.run_id.as_str()), run.number)).collect();
    let number = |event: &RunLogged| numbers.get(&(event.tenant_id.as_str(), event.run_id.as_str())).copied();
    let (mut params, mut tags) = (BTreeSet::new(), BTreeSet::new());
    for (_, event) in batch {
        if let Some(number) = number(event) {
            params.extend(event.params.iter().map(|param| (number, param.key.as_str())));
            tags.extend(event.removed_tags.iter().map(|key| (number, key.as_str())));
        }
    }
    let params = pairs(tables, "SELECT run_no, key, value FROM params", params).await?;
    let tags = pairs(tables, "SELECT run_no, key, value FROM run_tags", tags).await?;
    Ok(Stored { runs, next_number, params, tags: tags.into_keys().collect(), segments })
}

async fn pairs(
    tables: &mut Tables<'_>,
    select: &str,
    keys: BTreeSet<(i64, &str)>,
) -> Result<HashMap<(i64, String), String>, FoldError> {
    let (dialect, keys) = (tables.dialect(), keys.into_iter().collect::<Vec<_>>());
    let rows = tables.run(keys.chunks(CHUNK).map(|chunk| {
        let mut query = QueryBuilder::new(dialect, select);
        query.push(" WHERE (run_no, key) IN (");
        query.push_values(chunk, |mut bind, (number, key)| {
            bind.push_bind(*number).push_bind(*key);
        });
        query.push(")");
        query
    }));
    let mut found = HashMap::new();
    for row in rows.await? {
        found.insert((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?);
    }
    Ok(found)
}

/// `INSERT`s of rows: the words before them, how one is bound, and the words after.
pub(super) fn inserts<'r, T>(
    dialect: Dialect,
    rows: &'r [T],
    before: &'r str,
    bind: impl Fn(Separated<'_>, &T) + 'r,
    after: &'r str,
) -> impl Iterator<Item = QueryBuilder> + 'r {
    rows.chunks(CHUNK).map(move |chunk| {
        let mut insert = QueryBuilder::new(dialect, before);
        insert.push_values(chunk, &bind).push(after);
        insert
    })
}

pub(super) async fn write(
    tables: &mut Tables<'_>,
    changes: &Changes<'_>,
    segments: &HashMap<i64, (i64, i64)>,
) -> Result<(), FoldError> {
    let dialect = tables.dialect();
    let runs: Vec<&RunRow> = changes.runs.values().collect();
    let runs_columns = format!("INSERT INTO runs ({COLUMNS}) ");
    let of_runs = inserts(
        dialect,
        &runs,
        &runs_columns,
        |mut bind, row| {
            bind.push_bind(row.number)
                .push_bind(row.tenant.as_str())
                .push_bind(row.run_id.as_str())
                .push_bind(row.experiment_id)
                .push_bind(row.name.as_str())
                .push_bind(row.user_id.as_str())
                .push_bind(row.status.as_str())
                .push_bind(row.start_time)
                .push_bind(row.end_time)
                .push_bind(row.artifact_uri.as_str())
                .push_bind(row.deleted);
        },
        " ON CONFLICT (run_no) DO UPDATE SET name = excluded.name, status = excluded.status, \
         end_time = excluded.end_time, deleted = excluded.deleted",
    );
    let pairs = Pairs::of(changes);
    let metrics = Metrics::of(dialect, changes, segments);
    let links = Links::of(changes)?;
    let statements = of_runs.chain(pairs.writes(dialect)).chain(metrics.writes()).chain(links.writes(dialect));
    Ok(tables.end(statements).await?)
}

/// Parameters, and tags that are set and removed.
struct Pairs<'a> {
    params: Vec<(i64, &'a str, &'a str)>,
    tags: Vec<(i64, &'a str, &'a str)>,
    removed: Vec<(i64, &'a str)>,
}

impl<'a> Pairs<'a> {
    fn of(changes: &Changes<'a>) -> Self {
        let params = changes.params.iter().map(|((number, key), value)| (*number, *key, *value)).collect();
        let (mut tags, mut removed) = (Vec::new(), Vec::new());
        for ((number, key), value) in &changes.tags {
            match value {
                Some(value) => tags.push((*number, *key, *value)),
                None => removed.push((*number, *key)),
            }
        }
        Self { params, tags, removed }
    }

    fn writes(&self, dialect: Dialect) -> impl Iterator<Item = QueryBuilder> {
        let pair = |mut bind: Separated<'_>, (number, key, value): &(i64, &str, &str)| {
            bind.push_bind(*number).push_bind(*key).push_bind(*value);
        };
        let params = inserts(dialect, &self.params, "INSERT INTO params (run_no, key, value) ", pair, "");
        let known = " ON CONFLICT (run_no, key) DO UPDATE SET value = excluded.value";
        let tags = inserts(dialect, &self.tags, "INSERT INTO run_tags (run_no, key, value) ", pair, known);
        let removed = inserts(
            dialect,
            &self.removed,
            "DELETE FROM run_tags WHERE (run_no, key) IN (",
            |mut bind, (number, key)| {
                bind.push_bind(*number).push_bind(*key);
            },
            ")",
        );
        params.chain(tags).chain(removed)
    }
}

/// Datasets and models that runs took and made.
struct Links<'a> {
    datasets: Vec<(i64, &'a DatasetInput, String)>,
    models: Vec<(i64, &'static str, &'a str, i64)>,
}

impl<'a> Links<'a> {
    fn of(changes: &Changes<'a>) -> Result<Self, FoldError> {
        let mut datasets = Vec::with_capacity(changes.datasets.len());
        for ((number, ..), dataset) in &changes.datasets {
            datasets.push((*number, *dataset, serde_json::to_string(&dataset.tags)?));
        }
        let models = changes.models.iter();
        let models = models.map(|((number, direction, model), step)| (*number, *direction, *model, *step)).collect();
        Ok(Self { datasets, models })
    }

    fn writes(&self, dialect: Dialect) -> impl Iterator<Item = QueryBuilder> {
        let datasets = inserts(
            dialect,
            &self.datasets,
            "INSERT INTO run_datasets (run_no, name, digest, source_type, source, schema, profile, tags) ",
            |mut bind, (number, dataset, tags)| {
                bind.push_bind(*number)
                    .push_bind(dataset.name.as_str())
                    .push_bind(dataset.digest.as_str())
                    .push_bind(dataset.source_type.as_str())
                    .push_bind(dataset.source.as_str())
                    .push_bind(dataset.schema.as_deref())
                    .push_bind(dataset.profile.as_deref())
                    .push_bind(tags.as_str());
            },
            " ON CONFLICT (run_no, name, digest) DO NOTHING",
        );
        let models = inserts(
            dialect,
            &self.models,
            "INSERT INTO run_models (run_no, direction, model_id, step) ",
            |mut bind, (number, direction, model, step)| {
                bind.push_bind(*number).push_bind(*direction).push_bind(*model).push_bind(*step);
            },
            " ON CONFLICT (run_no, direction, model_id) DO UPDATE SET step = excluded.step",
        );
        datasets.chain(models)
    }
}
