//! The search for runs: first the runs of a page, by the indexes, then everything that was logged to them.

mod by_value;

use carbon_core::TenantScope;
use carbon_store::{Dialect, INDEXED_CHARS, Namespace, QueryBuilder, StoreError};

use super::hydrate::hydrate;
use super::runs::Run;
use super::{Page, RunInfo, View};
use crate::registry::filter::{Clause, Comparator, Entity, Literal, Order, push_comparison};
use crate::registry::run_info::COLUMNS;

/// A search for runs.
#[derive(Clone, Debug, Default)]
pub struct SearchRuns {
    pub experiments: Vec<i64>,
    pub view: View,
    pub filter: Vec<Clause>,
    pub order_by: Vec<Order>,
    pub limit: usize,
    pub offset: usize,
}

/// A page of runs. Runs at most five statements, whatever the size of the page.
pub async fn search_runs(
    namespace: &Namespace,
    scope: &TenantScope,
    search: &SearchRuns,
) -> Result<Page<Run>, StoreError> {
    let among = Among { scope, experiments: experiments(namespace, scope, search).await?, view: search.view };
    let page = match by_value::page(namespace, &among, search).await? {
        Some(page) => page,
        None => page(namespace, &among, search).await?,
    };
    Ok(Page { items: hydrate(namespace, page.items).await?, more: page.more })
}

/// The runs of the searched experiments.
struct Among<'a> {
    scope: &'a TenantScope,
    /// The ids of the active and of the deleted experiments.
    experiments: (Vec<i64>, Vec<i64>),
    view: View,
}

impl Among<'_> {
    /// Adds the condition on `runs r`.
    fn push(&self, query: &mut QueryBuilder) {
        let (active, deleted) = &self.experiments;
        query.push("r.tenant_id = ").push_bind(self.scope.tenant().as_str().to_owned());
        // The runs of a deleted experiment count as deleted.
        let among = |query: &mut QueryBuilder, ids: &[i64]| {
            query.push("r.experiment_id IN (SELECT CAST(value AS BIGINT) FROM json_each(");
            query.push_bind(serde_json::to_string(ids).unwrap_or_default()).push("))");
        };
        query.push(" AND (");
        match self.view {
            View::Active => {
                among(query, active);
                query.push(" AND r.deleted = 0");
            }
            View::Deleted => {
                among(query, active);
                query.push(" AND r.deleted = 1 OR ");
                among(query, deleted);
            }
            View::All => among(query, &[active.as_slice(), deleted].concat()),
        }
        query.push(")");
    }
}

async fn page(namespace: &Namespace, among: &Among<'_>, search: &SearchRuns) -> Result<Page<RunInfo>, StoreError> {
    let mut query: QueryBuilder = QueryBuilder::new(namespace.dialect(), format!("SELECT {COLUMNS} FROM runs r"));
    for (at, order) in search.order_by.iter().enumerate() {
        let table = match order.entity {
            Entity::Metric => "latest_metrics",
            Entity::Param => "params",
            Entity::Tag => "run_tags",
            Entity::Attribute | Entity::Dataset => continue,
        };
        query.push(format!(" LEFT JOIN {table} o{at} ON o{at}.run_no = r.run_no AND o{at}.key = "));
        query.push_bind(order.key.clone());
    }
    query.push(" WHERE ");
    among.push(&mut query);
    for clause in &search.filter {
        query.push(" AND ");
        push_clause(&mut query, clause);
    }
    query.push(" ORDER BY ");
    for (at, order) in search.order_by.iter().enumerate() {
        let direction = if order.ascending { "ASC" } else { "DESC" };
        match order.entity {
            // Numbers first, then NaN, then runs without a value, in both directions.
            Entity::Metric => query.push(format!(
                "CASE WHEN o{at}.run_no IS NULL THEN 2 ELSE o{at}.is_nan END, o{at}.value {direction}, "
            )),
            Entity::Param | Entity::Tag => query.push(format!("o{at}.run_no IS NULL, o{at}.value {direction}, ")),
            Entity::Attribute | Entity::Dataset => {
                let column = column(&order.key);
                query.push(format!("{column} IS NULL, {column} {direction}, "))
            }
        };
    }
    query.push("r.start_time DESC, r.run_id LIMIT ").push_bind(search.limit as i64 + 1);
    query.push(" OFFSET ").push_bind(search.offset as i64);
    let rows = query.build().fetch_all(namespace.readers()).await?;
    Ok(Page::of(rows.iter().map(RunInfo::read).collect::<Result<Vec<_>, _>>()?, search.limit))
}

/// The ids of the searched experiments that are active, and of those that are deleted.
async fn experiments(
    namespace: &Namespace,
    scope: &TenantScope,
    search: &SearchRuns,
) -> Result<(Vec<i64>, Vec<i64>), StoreError> {
    let ids = serde_json::to_string(&search.experiments).map_err(super::corrupt)?;
    let rows = carbon_store::query(
        "SELECT experiment_id, deleted FROM experiments WHERE tenant_id = $1 \
         AND experiment_id IN (SELECT CAST(value AS BIGINT) FROM json_each($2))",
    )
    .bind(scope.tenant().as_str())
    .bind(ids)
    .fetch_all(namespace.readers())
    .await?;
    let (mut active, mut deleted) = (Vec::new(), Vec::new());
    for row in &rows {
        let list = if row.try_get(1)? { &mut deleted } else { &mut active };
        list.push(row.try_get(0)?);
    }
    Ok((active, deleted))
}

fn column(key: &str) -> &'static str {
    match key {
        "run_id" => "r.run_id",
        "run_name" => "r.name",
        "status" => "r.status",
        "user_id" => "r.user_id",
        "artifact_uri" => "r.artifact_uri",
        "end_time" => "r.end_time",
        _ => "r.start_time",
    }
}

fn push_clause(query: &mut QueryBuilder, clause: &Clause) {
    let (table, key) = match clause.entity {
        Entity::Attribute => return push_comparison(query, column(&clause.key), clause.comparator, &clause.value),
        Entity::Dataset => return push_dataset(query, clause),
        Entity::Metric => ("latest_metrics", clause.key.clone()),
        Entity::Param => ("params", clause.key.clone()),
        Entity::Tag => ("run_tags", clause.key.clone()),
    };
    let absent = clause.comparator == Comparator::IsNull;
    query.push(if absent { "r.run_no NOT IN (" } else { "r.run_no IN (" });
    query.push(format!("SELECT f.run_no FROM {table} f WHERE f.key = ")).push_bind(key);
    if !matches!(clause.comparator, Comparator::IsNull | Comparator::IsNotNull) {
        query.push(" AND ");
        match (clause.entity, clause.comparator) {
            // NaN differs from every number, and no other comparison with it is true.
            (Entity::Metric, Comparator::Ne) => {
                query.push("(f.is_nan = 1 OR ");
                push_comparison(query, "f.value", clause.comparator, &clause.value);
                query.push(")");
            }
            (Entity::Metric, _) => {
                query.push("f.is_nan = 0 AND ");
                push_comparison(query, "f.value", clause.comparator, &clause.value);
            }
            (_, comparator) => {
                // The index of Postgres covers only the first characters.
                if let (Dialect::Postgres, Comparator::Eq, Literal::Text(text)) =
                    (query.dialect, comparator, &clause.value)
                {
                    query.push(format_args!("left(f.value, {INDEXED_CHARS}) = left(")).push_bind(text.clone());
                    query.push(format_args!(", {INDEXED_CHARS}) AND "));
                }
                push_comparison(query, "f.value", comparator, &clause.value);
            }
        }
    }
    query.push(")");
}

fn push_dataset(query: &mut QueryBuilder, clause: &Clause) {
    query.push("EXISTS (SELECT 1 FROM run_datasets d");
    let column = match clause.key.as_str() {
        "context" => {
            query.push(", json_each(d.tags) c WHERE json_extract(c.value, '$.key') = 'mlflow.data.context' AND ");
            query.push("d.run_no = r.run_no AND ");
            "json_extract(c.value, '$.value')"
        }
        key => {
            query.push(" WHERE d.run_no = r.run_no AND ");
            if key == "digest" { "d.digest" } else { "d.name" }
        }
    };
    let value: &Literal = &clause.value;
    push_comparison(query, column, clause.comparator, value);
    query.push(")");
}
