//! The histories of metrics.

use carbon_core::TenantScope;
use carbon_schemas::events::Metric;
use carbon_store::{Namespace, StoreError};
use sqlx::AssertSqlSafe;

use super::{Page, RunInfo};
use crate::registry::points;

/// A page of a metric's history, in the order of timestamp, step and value.
pub async fn metric_history(
    namespace: &Namespace,
    run: &RunInfo,
    key: &str,
    limit: usize,
    offset: usize,
) -> Result<Page<Metric>, StoreError> {
    let points = points::all(namespace.dialect(), |table| {
        let (from, of_run, origin) = (table.from(), table.of_run("$1"), table.origin());
        let only_here = table.only_here("AND");
        format!(
            "SELECT m.timestamp, m.step, m.value, m.is_nan, {origin} FROM {from} WHERE {of_run} AND m.key = $2{only_here}"
        )
    });
    let sql = format!("{points} ORDER BY 1, 2, 3, 4 LIMIT $3 OFFSET $4");
    let rows = carbon_store::query(AssertSqlSafe(sql))
        .bind(run.run_no)
        .bind(key)
        .bind(limit as i64 + 1)
        .bind(offset as i64)
        .fetch_all(namespace.readers())
        .await?;
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        let nan: bool = row.try_get(3)?;
        items.push(Metric {
            key: key.to_owned(),
            timestamp: row.try_get(0)?,
            step: row.try_get(1)?,
            value: if nan { f64::NAN } else { row.try_get(2)? },
            model_id: row.try_get(4)?,
            dataset_name: row.try_get(5)?,
            dataset_digest: row.try_get(6)?,
        });
    }
    Ok(Page::of(items, limit))
}

/// A point of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct BulkPoint {
    pub run_id: String,
    pub value: f64,
    pub timestamp: i64,
    pub step: i64,
}

/// At most `points` points of each run, evenly spaced in the order of step, timestamp and value: the first point of
/// each bucket, and in the last bucket the last point.
pub async fn metric_intervals(
    namespace: &Namespace,
    scope: &TenantScope,
    run_ids: &[String],
    key: &str,
    steps: (Option<i64>, Option<i64>),
    points: usize,
) -> Result<Vec<BulkPoint>, StoreError> {
    let ids = serde_json::to_string(run_ids).map_err(super::corrupt)?;
    let join = namespace.dialect().ordered_join();
    let points_of_asked = points::all(namespace.dialect(), |table| {
        let (from, of_run) = (table.from(), table.of_run("a.run_no"));
        format!(
            "SELECT a.run_id, m.value, m.is_nan, m.timestamp, m.step FROM asked a {join} {from} ON {of_run} AND m.key = $3"
        )
    });
    let sql = format!(
        "WITH asked AS (
             SELECT r.run_no, r.run_id FROM runs r
             WHERE r.tenant_id = $1 AND r.run_id IN (SELECT value FROM json_each($2))
         ), points AS (
             {points_of_asked}
         ), ranked AS (
             SELECT run_id, value, is_nan, timestamp, step,
                    ntile(CAST($5 AS INTEGER)) OVER (PARTITION BY run_id ORDER BY step, timestamp, value, is_nan) AS bucket,
                    row_number() OVER (PARTITION BY run_id ORDER BY step, timestamp, value, is_nan) AS nth,
                    count(*) OVER (PARTITION BY run_id) AS total
             FROM points WHERE step >= $4 AND step <= $6
         ), firsts AS (
             SELECT *, row_number() OVER (PARTITION BY run_id, bucket ORDER BY nth) AS place FROM ranked
         )
         SELECT run_id, value, is_nan, timestamp, step FROM firsts
         WHERE nth = total OR (place = 1 AND NOT (total > $5 AND bucket = $5))
         ORDER BY run_id, nth"
    );
    let rows = carbon_store::query(AssertSqlSafe(sql))
        .bind(scope.tenant().as_str())
        .bind(ids)
        .bind(key)
        .bind(steps.0.unwrap_or(i64::MIN))
        .bind(points as i64)
        .bind(steps.1.unwrap_or(i64::MAX))
        .fetch_all(namespace.readers())
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let nan: bool = row.try_get(2)?;
        found.push(BulkPoint {
            run_id: row.try_get(0)?,
            value: if nan { f64::NAN } else { row.try_get(1)? },
            timestamp: row.try_get(3)?,
            step: row.try_get(4)?,
        });
    }
    Ok(found)
}
