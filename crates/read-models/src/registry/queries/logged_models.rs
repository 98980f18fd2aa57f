//! Logged models. The metrics of a model are the points that runs logged with its id.

use std::collections::HashMap;

use carbon_core::{TenantScope, Timestamp};
use carbon_schemas::events::{KeyValue, Metric};
use carbon_store::{Dialect, Namespace, QueryBuilder, Row, StoreError};

use super::{Page, corrupt};
use crate::registry::filter::{Clause, Comparator, Entity, Order, push_comparison};
use crate::registry::points::OF_MODELS;

/// A metric of a logged model, and the run that logged it.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedMetric {
    pub run_id: String,
    pub metric: Metric,
}

/// A logged model with its parameters, tags and metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedModel {
    pub model_id: String,
    pub experiment_id: i64,
    pub name: String,
    pub model_type: String,
    pub source_run_id: String,
    pub artifact_uri: String,
    pub status: String,
    pub deleted: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub params: Vec<KeyValue>,
    pub tags: Vec<KeyValue>,
    /// All points, in the order of key, timestamp and step.
    pub metrics: Vec<LoggedMetric>,
}

const COLUMNS: &str = "m.model_id, m.experiment_id, m.name, m.model_type, m.source_run_id, m.artifact_uri, m.status, \
    m.deleted, m.created_at, m.updated_at";

fn read(row: &Row) -> Result<LoggedModel, StoreError> {
    Ok(LoggedModel {
        model_id: row.try_get(0)?,
        experiment_id: row.try_get(1)?,
        name: row.try_get(2)?,
        model_type: row.try_get(3)?,
        source_run_id: row.try_get(4)?,
        artifact_uri: row.try_get(5)?,
        status: row.try_get(6)?,
        deleted: row.try_get(7)?,
        created_at: Timestamp(row.try_get(8)?),
        updated_at: Timestamp(row.try_get(9)?),
        params: Vec::new(),
        tags: Vec::new(),
        metrics: Vec::new(),
    })
}

/// The logged model with an id, also a deleted one.
pub async fn logged_model(
    namespace: &Namespace,
    scope: &TenantScope,
    model_id: &str,
) -> Result<Option<LoggedModel>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM logged_models m WHERE m.tenant_id = $1 AND m.model_id = $2");
    let query = carbon_store::query(sqlx::AssertSqlSafe(sql)).bind(scope.tenant().as_str()).bind(model_id);
    let Some(row) = query.fetch_optional(namespace.readers()).await? else { return Ok(None) };
    Ok(hydrate(namespace, scope, vec![read(&row)?]).await?.pop())
}

/// A term of an order. `dataset` limits a metric to a dataset's name and digest.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricOrder {
    pub order: Order,
    pub dataset: (Option<String>, Option<String>),
}

/// A search for logged models.
#[derive(Clone, Debug, Default)]
pub struct SearchLoggedModels {
    pub experiments: Vec<i64>,
    pub filter: Vec<Clause>,
    /// Names and digests: only points of these datasets count; of all datasets if the list is empty.
    pub datasets: Vec<(String, Option<String>)>,
    pub order_by: Vec<MetricOrder>,
    pub limit: usize,
    pub offset: usize,
}

fn column(key: &str) -> &'static str {
    match key {
        "name" => "m.name",
        "model_id" => "m.model_id",
        "status" => "m.status",
        "model_type" => "m.model_type",
        "source_run_id" => "m.source_run_id",
        // Ids are compared as texts.
        "experiment_id" => "CAST(m.experiment_id AS TEXT)",
        "last_updated_timestamp" | "last_updated_timestamp_ms" => "m.updated_at",
        _ => "m.created_at",
    }
}

/// The points `x` of a model `m`: only those that its own tenant's runs logged.
fn push_metrics(query: &mut QueryBuilder) -> &mut QueryBuilder {
    query
        .push("FROM ")
        .push(OF_MODELS)
        .push(" x JOIN runs r ON r.run_no = x.run_no AND r.tenant_id = m.tenant_id WHERE x.model_id = m.model_id")
}

/// A page of logged models that are not deleted; by default the newest first.
pub async fn search_logged_models(
    namespace: &Namespace,
    scope: &TenantScope,
    search: &SearchLoggedModels,
) -> Result<Page<LoggedModel>, StoreError> {
    let mut query: QueryBuilder =
        QueryBuilder::new(namespace.dialect(), format!("SELECT {COLUMNS} FROM logged_models m"));
    query.push(" WHERE m.tenant_id = ").push_bind(scope.tenant().as_str());
    query.push(" AND m.experiment_id IN (SELECT CAST(value AS BIGINT) FROM json_each(");
    query.push_bind(serde_json::to_string(&search.experiments).map_err(corrupt)?).push(")) AND m.deleted = 0");
    for clause in &search.filter {
        query.push(" AND ");
        push_clause(&mut query, search, clause);
    }
    if !search.datasets.is_empty() && !search.filter.iter().any(|clause| clause.entity == Entity::Metric) {
        push_metrics(query.push(" AND EXISTS (SELECT 1 "));
        push_datasets(&mut query, &search.datasets);
        query.push(")");
    }
    query.push(" ORDER BY ");
    for MetricOrder { order, dataset } in &search.order_by {
        let direction = if order.ascending { "ASC" } else { "DESC" };
        if order.entity == Entity::Metric {
            // The latest point counts. A model without one comes last; NaN is NULL here.
            push_metrics(query.push("(SELECT CASE WHEN x.is_nan = 1 THEN NULL ELSE x.value END "));
            query.push(" AND x.key = ").push_bind(order.key.clone());
            for (column, value) in [("x.dataset_name", &dataset.0), ("x.dataset_digest", &dataset.1)] {
                if let Some(value) = value {
                    query.push(format!(" AND {column} = ")).push_bind(value.clone());
                }
            }
            query.push(" ORDER BY x.timestamp DESC, x.step DESC LIMIT 1) ");
            query.push(direction).push(" NULLS LAST, ");
        } else {
            query.push(column(&order.key)).push(" ").push(direction).push(", ");
        }
    }
    query.push("m.created_at DESC, m.model_id LIMIT ").push_bind(search.limit as i64 + 1);
    query.push(" OFFSET ").push_bind(search.offset as i64);
    let rows = query.build().fetch_all(namespace.readers()).await?;
    let page = Page::of(rows.iter().map(read).collect::<Result<Vec<_>, _>>()?, search.limit);
    Ok(Page { items: hydrate(namespace, scope, page.items).await?, more: page.more })
}

fn push_datasets(query: &mut QueryBuilder, datasets: &[(String, Option<String>)]) {
    if datasets.is_empty() {
        return;
    }
    query.push(" AND (");
    for (at, (name, digest)) in datasets.iter().enumerate() {
        query.push(if at == 0 { "x.dataset_name = " } else { " OR x.dataset_name = " }).push_bind(name.clone());
        if let Some(digest) = digest {
            query.push(" AND x.dataset_digest = ").push_bind(digest.clone());
        }
    }
    query.push(")");
}

fn push_clause(query: &mut QueryBuilder, search: &SearchLoggedModels, clause: &Clause) {
    let table = match clause.entity {
        Entity::Metric => {
            push_metrics(query.push("EXISTS (SELECT 1 ")).push(" AND x.key = ").push_bind(clause.key.clone());
            push_datasets(query, &search.datasets);
            // NaN differs from every number, and no other comparison with it is true.
            query.push(if clause.comparator == Comparator::Ne {
                " AND (x.is_nan = 1 OR "
            } else {
                " AND (x.is_nan = 0 AND "
            });
            push_comparison(query, "x.value", clause.comparator, &clause.value);
            query.push("))");
            return;
        }
        Entity::Param => "logged_model_params",
        Entity::Tag => "logged_model_tags",
        Entity::Attribute | Entity::Dataset => {
            return push_comparison(query, column(&clause.key), clause.comparator, &clause.value);
        }
    };
    query.push(format!(
        "EXISTS (SELECT 1 FROM {table} p WHERE p.tenant_id = m.tenant_id AND p.model_id = m.model_id AND p.key = "
    ));
    query.push_bind(clause.key.clone()).push(" AND ");
    push_comparison(query, "p.value", clause.comparator, &clause.value);
    query.push(")");
}

/// The parameters, tags and metrics of a page of models.
fn parts(dialect: Dialect) -> String {
    let join = dialect.ordered_join();
    format!(
        "WITH page(model_id) AS (SELECT value FROM json_each($2))
SELECT 'p', p.model_id, p.key, p.value, CAST(NULL AS DOUBLE PRECISION), CAST(NULL AS BIGINT), CAST(NULL AS BIGINT),
        CAST(NULL AS BIGINT), NULL, NULL
    FROM page {join} logged_model_params p ON p.tenant_id = $1 AND p.model_id = page.model_id
UNION ALL
SELECT 't', t.model_id, t.key, t.value, NULL, NULL, NULL, NULL, NULL, NULL
    FROM page {join} logged_model_tags t ON t.tenant_id = $1 AND t.model_id = page.model_id
UNION ALL
SELECT 'm', x.model_id, x.key, r.run_id, x.value, x.is_nan, x.timestamp, x.step, x.dataset_name, x.dataset_digest
    FROM page {join} {OF_MODELS} x ON x.model_id = page.model_id JOIN runs r ON r.run_no = x.run_no
    WHERE r.tenant_id = $1
ORDER BY 1, 3, 7, 8, 5"
    )
}

/// Adds parameters, tags and metrics: one statement for any number of models.
async fn hydrate(
    namespace: &Namespace,
    scope: &TenantScope,
    mut models: Vec<LoggedModel>,
) -> Result<Vec<LoggedModel>, StoreError> {
    if models.is_empty() {
        return Ok(models);
    }
    let ids: Vec<String> = models.iter().map(|model| model.model_id.clone()).collect();
    let page = serde_json::to_string(&ids).map_err(corrupt)?;
    let places: HashMap<String, usize> = ids.into_iter().enumerate().map(|(at, id)| (id, at)).collect();
    let rows = carbon_store::query(sqlx::AssertSqlSafe(parts(namespace.dialect())))
        .bind(scope.tenant().as_str())
        .bind(page)
        .fetch_all(namespace.readers())
        .await?;
    for row in &rows {
        let Some(model) = places.get(&row.try_get::<String>(1)?).and_then(|at| models.get_mut(*at)) else { continue };
        let key: String = row.try_get(2)?;
        match row.try_get::<String>(0)?.as_str() {
            "p" => model.params.push(KeyValue { key, value: row.try_get(3)? }),
            "t" => model.tags.push(KeyValue { key, value: row.try_get(3)? }),
            _ => {
                let nan: bool = row.try_get(5)?;
                let metric = Metric {
                    key,
                    value: if nan { f64::NAN } else { row.try_get(4)? },
                    timestamp: row.try_get(6)?,
                    step: row.try_get(7)?,
                    model_id: Some(model.model_id.clone()),
                    dataset_name: row.try_get(8)?,
                    dataset_digest: row.try_get(9)?,
                };
                model.metrics.push(LoggedMetric { run_id: row.try_get(3)?, metric });
            }
        }
    }
    Ok(models)
}
