//! One run, with everything that was logged to it.

use std::collections::BTreeMap;

use carbon_core::TenantScope;
use carbon_schemas::events::{DatasetInput, KeyValue, Metric, ModelOutput, RunLogged};
use carbon_store::{Namespace, StoreError};

use super::hydrate::hydrate;
use crate::registry::NAME_TAG;
use crate::registry::run_info::{COLUMNS, RunInfo};

/// A run with everything that was logged to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub info: RunInfo,
    pub params: Vec<KeyValue>,
    /// The latest point of each key.
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

    /// The run as its first event leaves it, so that the caller that started it need not query it. It has no `run_no`.
    pub fn started(event: &RunLogged) -> Self {
        let mut tags: BTreeMap<&str, &str> =
            event.tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str())).collect();
        if let Some(name) = &event.run_name {
            tags.insert(NAME_TAG, name);
        }
        let name = tags.get(NAME_TAG).copied().unwrap_or_default().to_owned();
        let info = RunInfo { name, ..RunInfo::started(0, event) };
        let tags = tags.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect();
        Self { tags, ..Self::of(info) }
    }
}

/// The row of a run, also of a deleted one.
pub async fn run_info(namespace: &Namespace, scope: &TenantScope, run_id: &str) -> Result<Option<RunInfo>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM runs r WHERE r.tenant_id = $1 AND r.run_id = $2");
    let query = carbon_store::query(sqlx::AssertSqlSafe(sql)).bind(scope.tenant().as_str()).bind(run_id);
    Ok(query.fetch_optional(namespace.readers()).await?.as_ref().map(RunInfo::read).transpose()?)
}

/// A run with everything that was logged to it.
pub async fn run(namespace: &Namespace, scope: &TenantScope, run_id: &str) -> Result<Option<Run>, StoreError> {
    let Some(info) = run_info(namespace, scope, run_id).await? else { return Ok(None) };
    Ok(hydrate(namespace, vec![info]).await?.pop())
}

/// Whether a run has a tag of this key.
pub async fn has_tag(namespace: &Namespace, run: &RunInfo, key: &str) -> Result<bool, StoreError> {
    let found = carbon_store::query("SELECT 1 FROM run_tags WHERE run_no = $1 AND key = $2")
        .bind(run.run_no)
        .bind(key)
        .fetch_optional(namespace.readers())
        .await?;
    Ok(found.is_some())
}
