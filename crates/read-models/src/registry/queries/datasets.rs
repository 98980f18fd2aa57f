//! The datasets that runs had as inputs.

use carbon_core::TenantScope;
use carbon_store::{Namespace, Row, StoreError};

use super::corrupt;

/// A dataset, and the purpose for which runs of an experiment used it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetSummary {
    pub experiment_id: i64,
    pub name: String,
    pub digest: String,
    /// `training` and the like.
    pub context: Option<String>,
}

/// Maximum number of datasets in one answer.
const SUMMARIES: i64 = 1000;

/// The distinct datasets that the active runs of the experiments had as inputs.
pub async fn dataset_summaries(
    namespace: &Namespace,
    scope: &TenantScope,
    experiments: &[i64],
) -> Result<Vec<DatasetSummary>, StoreError> {
    let join = namespace.dialect().ordered_join();
    let sql = format!(
        "SELECT DISTINCT r.experiment_id, d.name, d.digest, \
             (SELECT json_extract(t.value, '$.value') FROM json_each(d.tags) t \
             WHERE json_extract(t.value, '$.key') = 'mlflow.data.context') AS context \
         FROM runs r {join} run_datasets d USING (run_no) \
         WHERE r.tenant_id = $1 AND r.experiment_id IN (SELECT CAST(value AS BIGINT) FROM json_each($2)) AND r.deleted = 0 \
         ORDER BY 1, 2, 3, 4 LIMIT $3"
    );
    let rows = carbon_store::query(sqlx::AssertSqlSafe(sql))
        .bind(scope.tenant().as_str())
        .bind(serde_json::to_string(experiments).map_err(corrupt)?)
        .bind(SUMMARIES)
        .fetch_all(namespace.readers())
        .await?;
    let read = |row: &Row| {
        Ok(DatasetSummary {
            experiment_id: row.try_get(0)?,
            name: row.try_get(1)?,
            digest: row.try_get(2)?,
            context: row.try_get(3)?,
        })
    };
    rows.iter().map(read).collect()
}
