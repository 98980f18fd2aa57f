use std::collections::BTreeMap;

use carbon_core::TenantScope;
use carbon_schemas::events::{DatasetInput, KeyValue, Metric, ModelOutput, RunLogged};
use carbon_store::{Namespace, Row, StoreError};

use super::hydrate::hydrate;
use crate::registry::fold::{NAME_TAG, RunRow};

/// A run's own row.
#[derive(Clone, Debug, PartialEq)]
pub struct RunInfo {
    pub(super) number: i64,
    pub run_id: String,
    pub experiment_id: i64,
    pub name: String,
    pub user_id: String,
    pub status: String,
    pub start_time: i64,
    pub end_time: Option<i64>,
    pub artifact_uri: String,
    /// By itself, or with its experiment.
    pub deleted: bool,
}

/// A run with what was logged to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub info: RunInfo,
    pub params: Vec<KeyValue>,
    /// The latest of each key.
    pub metrics: Vec<Metric>,
    pub tags: Vec<KeyValue>,
    pub datasets: Vec<DatasetInput>,
    pub input_models: Vec<String>,
    pub output_models: Vec<ModelOutput>,
}

impl Run {
    pub(super) fn of(info: RunInfo) -> Self {
        Self {
            info,
            params: Vec::new(),
            metrics: Vec::new(),
            tags: Vec::new(),
            datasets: Vec::new(),
            input_models: Vec::new(),
            output_models: Vec::new(),
        }
    }

    /// As it is after its start, before anybody can say more of it: who started it need not look it up. It has no number.
    pub fn started(event: &RunLogged) -> Self {
        let row = RunRow::started(0, event);
        let mut tags: BTreeMap<&str, &str> =
            event.tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str())).collect();
        if let Some(name) = &event.run_name {
            tags.insert(NAME_TAG, name);
        }
        let info = RunInfo {
            number: row.number,
            run_id: row.run_id,
            experiment_id: row.experiment_id,
            name: tags.get(NAME_TAG).copied().unwrap_or_default().to_owned(),
            user_id: row.user_id,
            status: row.status,
            start_time: row.start_time,
            end_time: row.end_time,
            artifact_uri: row.artifact_uri,
            deleted: row.deleted,
        };
        let tags = tags.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect();
        Self { tags, ..Self::of(info) }
    }
}

pub(super) const COLUMNS: &str = "r.run_no, r.run_id, r.experiment_id, r.name, r.user_id, r.status, r.start_time, \
    r.end_time, r.artifact_uri, CASE WHEN r.deleted = 1 THEN 1 ELSE coalesce((SELECT e.deleted FROM experiments e \
    WHERE e.tenant_id = r.tenant_id AND e.experiment_id = r.experiment_id), 0) END";

pub(super) fn read(row: &Row) -> Result<RunInfo, StoreError> {
    Ok(RunInfo {
        number: row.try_get(0)?,
        run_id: row.try_get(1)?,
        experiment_id: row.try_get(2)?,
        name: row.try_get(3)?,
        user_id: row.try_get(4)?,
        status: row.try_get(5)?,
        start_time: row.try_get(6)?,
        end_time: row.try_get(7)?,
        artifact_uri: row.try_get(8)?,
        deleted: row.try_get(9)?,
    })
}

/// A run's own row, of deleted runs too.
pub async fn run_info(namespace: &Namespace, scope: &TenantScope, run_id: &str) -> Result<Option<RunInfo>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM runs r WHERE r.tenant_id = $1 AND r.run_id = $2");
    let query = carbon_store::query(sqlx::AssertSqlSafe(sql)).bind(scope.tenant().as_str()).bind(run_id);
    query.fetch_optional(namespace.readers()).await?.as_ref().map(read).transpose()
}

/// A run with everything that was logged to it: two statements.
pub async fn run(namespace: &Namespace, scope: &TenantScope, run_id: &str) -> Result<Option<Run>, StoreError> {
    let Some(info) = run_info(namespace, scope, run_id).await? else { return Ok(None) };
    Ok(hydrate(namespace, vec![info]).await?.pop())
}

/// Whether a run has a tag of this key.
pub async fn has_tag(namespace: &Namespace, run: &RunInfo, key: &str) -> Result<bool, StoreError> {
    let found = carbon_store::query("SELECT 1 FROM run_tags WHERE run_no = $1 AND key = $2")
        .bind(run.number)
        .bind(key)
        .fetch_optional(namespace.readers())
        .await?;
    Ok(found.is_some())
}
