//! The rows that a batch of run events names, and those that it changes: one statement for each table and chunk.

use std::collections::{BTreeSet, HashMap};

use carbon_core::Position;
use carbon_schemas::events::{RunKind, RunLogged};
use carbon_store::{QueryBuilder, Row, Tables};

use super::metrics;
use super::runs::Changes;
use crate::projection::FoldError;

/// Rows in one statement.
pub(super) const CHUNK: usize = 500;

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
}

pub(super) async fn load(tables: &mut Tables<'_>, batch: &[(&Position, &RunLogged)]) -> Result<Stored, FoldError> {
    let named: BTreeSet<(&str, &str)> =
        batch.iter().map(|(_, event)| (event.tenant_id.as_str(), event.run_id.as_str())).collect();
    let mut runs = Vec::with_capacity(named.len());
    for chunk in named.into_iter().collect::<Vec<_>>().chunks(CHUNK) {
        let mut select =
            QueryBuilder::new(tables.dialect(), format!("SELECT {COLUMNS} FROM runs WHERE (tenant_id, run_id) IN ("));
        select.push_values(chunk, |mut bind, (tenant, run)| {
            bind.push_bind(*tenant).push_bind(*run);
        });
        let rows = select.push(")").build().fetch_all(tables.connection()).await?;
        for row in &rows {
            runs.push(RunRow::read(row)?);
        }
    }
    // Only a run that starts takes a number.
    let next_number: i64 = match batch.iter().any(|(_, event)| event.kind == RunKind::Started) {
        true => {
            carbon_store::query("SELECT coalesce(max(run_no), 0) + 1 FROM runs").scalar_one(tables.connection()).await?
        }
        false => 0,
    };
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
    let stored_params = pairs(tables, "SELECT run_no, key, value FROM params", params).await?;
    let stored_tags = pairs(tables, "SELECT run_no, key, value FROM run_tags", tags).await?;
    Ok(Stored { runs, next_number, params: stored_params, tags: stored_tags.into_keys().collect() })
}

async fn pairs(
    tables: &mut Tables<'_>,
    select: &str,
    keys: BTreeSet<(i64, &str)>,
) -> Result<HashMap<(i64, String), String>, FoldError> {
    let mut found = HashMap::new();
    for chunk in keys.into_iter().collect::<Vec<_>>().chunks(CHUNK) {
        let mut query: QueryBuilder = QueryBuilder::new(tables.dialect(), select);
        query.push(" WHERE (run_no, key) IN (");
        query.push_values(chunk, |mut bind, (number, key)| {
            bind.push_bind(*number).push_bind(*key);
        });
        for row in query.push(")").build().fetch_all(tables.connection()).await? {
            found.insert((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?);
        }
    }
    Ok(found)
}

pub(super) async fn write(tables: &mut Tables<'_>, changes: &Changes<'_>) -> Result<(), FoldError> {
    write_runs(tables, changes).await?;
    write_pairs(tables, changes).await?;
    metrics::write(tables, changes).await?;
    write_links(tables, changes).await
}

async fn write_runs(tables: &mut Tables<'_>, changes: &Changes<'_>) -> Result<(), FoldError> {
    let rows: Vec<&RunRow> = changes.runs.values().collect();
    for chunk in rows.chunks(CHUNK) {
        let mut insert = QueryBuilder::new(tables.dialect(), format!("INSERT INTO runs ({COLUMNS}) "));
        insert.push_values(chunk, |mut bind, row| {
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
        });
        insert.push(
            " ON CONFLICT (run_no) DO UPDATE SET name = excluded.name, status = excluded.status, \
             end_time = excluded.end_time, deleted = excluded.deleted",
        );
        insert.build().execute(tables.connection()).await?;
    }
    Ok(())
}

async fn write_pairs(tables: &mut Tables<'_>, changes: &Changes<'_>) -> Result<(), FoldError> {
    let params: Vec<_> = changes.params.iter().map(|((number, key), value)| (*number, *key, *value)).collect();
    for chunk in params.chunks(CHUNK) {
        let mut insert = QueryBuilder::new(tables.dialect(), "INSERT INTO params (run_no, key, value) ");
        insert.push_values(chunk, |mut bind, (number, key, value)| {
            bind.push_bind(*number).push_bind(*key).push_bind(*value);
        });
        insert.build().execute(tables.connection()).await?;
    }
    let (mut tags, mut removed) = (Vec::new(), Vec::new());
    for ((number, key), value) in &changes.tags {
        match value {
            Some(value) => tags.push((*number, *key, *value)),
            None => removed.push((*number, *key)),
        }
    }
    for chunk in tags.chunks(CHUNK) {
        let mut insert = QueryBuilder::new(tables.dialect(), "INSERT INTO run_tags (run_no, key, value) ");
        insert.push_values(chunk, |mut bind, (number, key, value)| {
            bind.push_bind(*number).push_bind(*key).push_bind(*value);
        });
        insert.push(" ON CONFLICT (run_no, key) DO UPDATE SET value = excluded.value");
        insert.build().execute(tables.connection()).await?;
    }
    for chunk in removed.chunks(CHUNK) {
        let mut delete = QueryBuilder::new(tables.dialect(), "DELETE FROM run_tags WHERE (run_no, key) IN (");
        delete.push_values(chunk, |mut bind, (number, key)| {
            bind.push_bind(*number).push_bind(*key);
        });
        delete.push(")").build().execute(tables.connection()).await?;
    }
    Ok(())
}

async fn write_links(tables: &mut Tables<'_>, changes: &Changes<'_>) -> Result<(), FoldError> {
    let mut datasets = Vec::with_capacity(changes.datasets.len());
    for ((number, ..), dataset) in &changes.datasets {
        datasets.push((*number, *dataset, serde_json::to_string(&dataset.tags)?));
    }
    for chunk in datasets.chunks(CHUNK) {
        let mut insert = QueryBuilder::new(
            tables.dialect(),
            "INSERT INTO run_datasets (run_no, name, digest, source_type, source, schema, profile, tags) ",
        );
        insert.push_values(chunk, |mut bind, (number, dataset, tags)| {
            bind.push_bind(*number)
                .push_bind(dataset.name.as_str())
                .push_bind(dataset.digest.as_str())
                .push_bind(dataset.source_type.as_str())
                .push_bind(dataset.source.as_str())
                .push_bind(dataset.schema.as_deref())
                .push_bind(dataset.profile.as_deref())
                .push_bind(tags.as_str());
        });
        insert.push(" ON CONFLICT (run_no, name, digest) DO NOTHING");
        insert.build().execute(tables.connection()).await?;
    }
    let models: Vec<_> = changes.models.iter().collect();
    for chunk in models.chunks(CHUNK) {
        let mut insert =
            QueryBuilder::new(tables.dialect(), "INSERT INTO run_models (run_no, direction, model_id, step) ");
        insert.push_values(chunk, |mut bind, ((number, direction, model), step)| {
            bind.push_bind(*number).push_bind(*direction).push_bind(*model).push_bind(**step);
        });
        insert.push(" ON CONFLICT (run_no, direction, model_id) DO UPDATE SET step = excluded.step");
        insert.build().execute(tables.connection()).await?;
    }
    Ok(())
}
