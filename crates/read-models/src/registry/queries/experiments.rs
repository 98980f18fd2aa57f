//! Experiments.

use carbon_core::{TenantScope, Timestamp};
use carbon_schemas::events::KeyValue;
use carbon_store::{Dialect, Namespace, QueryBuilder, Row, StoreError};

use super::{Page, View};
use crate::registry::filter::{Clause, Comparator, Entity, Order, push_comparison};

/// An experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    pub id: i64,
    pub name: String,
    pub artifact_location: String,
    pub deleted: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub tags: Vec<KeyValue>,
}

/// The id of the experiment that every tenant has from the start. The first write to the experiment creates its row;
/// until then queries compute it, since a read appends nothing.
pub const DEFAULT_EXPERIMENT: i64 = 0;
const DEFAULT_NAME: &str = "Default";

impl Experiment {
    /// The default experiment of a tenant that has not written to it.
    pub fn implicit() -> Self {
        Self {
            id: DEFAULT_EXPERIMENT,
            name: DEFAULT_NAME.to_owned(),
            artifact_location: format!("mlflow-artifacts:/{DEFAULT_EXPERIMENT}"),
            deleted: false,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            tags: Vec::new(),
        }
    }
}

/// The columns that [`read`] reads. The tags are one JSON list.
fn columns(dialect: Dialect) -> String {
    let tags = match dialect {
        Dialect::Sqlite => {
            "(SELECT json_group_array(json_object('key', key, 'value', value)) FROM \
                 (SELECT key, value FROM experiment_tags t \
                  WHERE t.tenant_id = e.tenant_id AND t.experiment_id = e.experiment_id ORDER BY key))"
        }
        Dialect::Postgres => {
            "(SELECT coalesce(jsonb_agg(jsonb_build_object('key', key, 'value', value) ORDER BY key), '[]')::text \
              FROM experiment_tags t WHERE t.tenant_id = e.tenant_id AND t.experiment_id = e.experiment_id)"
        }
    };
    format!("e.experiment_id, e.name, e.artifact_location, e.deleted, e.created_at, e.updated_at, {tags}")
}

fn read(row: &Row) -> Result<Experiment, StoreError> {
    Ok(Experiment {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        artifact_location: row.try_get(2)?,
        deleted: row.try_get(3)?,
        created_at: Timestamp(row.try_get(4)?),
        updated_at: Timestamp(row.try_get(5)?),
        tags: serde_json::from_str(row.json_text(6)?.as_deref().unwrap_or("[]")).map_err(super::corrupt)?,
    })
}

/// The experiment with an id, also a deleted one; the default experiment also before it has a row.
pub async fn experiment(namespace: &Namespace, scope: &TenantScope, id: i64) -> Result<Option<Experiment>, StoreError> {
    let stored = stored_experiment(namespace, scope, id).await?;
    Ok(stored.or_else(|| (id == DEFAULT_EXPERIMENT).then(Experiment::implicit)))
}

/// The experiment with an id, if it has a row.
pub async fn stored_experiment(
    namespace: &Namespace,
    scope: &TenantScope,
    id: i64,
) -> Result<Option<Experiment>, StoreError> {
    let sql = format!(
        "SELECT {} FROM experiments e WHERE e.tenant_id = $1 AND e.experiment_id = $2",
        columns(namespace.dialect())
    );
    let query = carbon_store::query(sqlx::AssertSqlSafe(sql)).bind(scope.tenant().as_str()).bind(id);
    query.fetch_optional(namespace.readers()).await?.as_ref().map(read).transpose()
}

/// The experiment with a name, also a deleted one; the default experiment also before it has a row.
pub async fn experiment_by_name(
    namespace: &Namespace,
    scope: &TenantScope,
    name: &str,
) -> Result<Option<Experiment>, StoreError> {
    let sql =
        format!("SELECT {} FROM experiments e WHERE e.tenant_id = $1 AND e.name = $2", columns(namespace.dialect()));
    let query = carbon_store::query(sqlx::AssertSqlSafe(sql)).bind(scope.tenant().as_str()).bind(name);
    let stored = query.fetch_optional(namespace.readers()).await?.as_ref().map(read).transpose()?;
    match stored {
        None if name == DEFAULT_NAME => {
            // A default experiment that was renamed has a row.
            let own = stored_experiment(namespace, scope, DEFAULT_EXPERIMENT).await?;
            Ok(own.is_none().then(Experiment::implicit))
        }
        stored => Ok(stored),
    }
}

/// The next id that is not claimed, as far as this read model has folded.
pub async fn next_experiment_id(namespace: &Namespace, scope: &TenantScope) -> Result<i64, StoreError> {
    let next = carbon_store::query("SELECT coalesce(max(experiment_id), 0) + 1 FROM experiments WHERE tenant_id = $1")
        .bind(scope.tenant().as_str())
        .scalar_one(namespace.readers())
        .await?;
    Ok(next)
}

/// A search for experiments.
#[derive(Clone, Debug, Default)]
pub struct SearchExperiments {
    pub view: View,
    pub filter: Vec<Clause>,
    pub order_by: Vec<Order>,
    pub limit: usize,
    pub offset: usize,
}

fn column(key: &str) -> &'static str {
    match key {
        "name" => "e.name",
        "creation_time" => "e.created_at",
        "last_update_time" => "e.updated_at",
        _ => "e.experiment_id",
    }
}

/// Adds a `SELECT` of the experiments of a tenant; of the default experiment also before it has a row.
fn push_experiments(query: &mut QueryBuilder, scope: &TenantScope) {
    let (implicit, tenant) = (Experiment::implicit(), scope.tenant().as_str());
    query.push(
        "SELECT tenant_id, experiment_id, name, artifact_location, deleted, created_at, updated_at \
         FROM experiments WHERE tenant_id = ",
    );
    query.push_bind(tenant).push(" UNION ALL SELECT CAST(");
    query.push_bind(tenant).push(format_args!(
        " AS TEXT), {}, '{}', '{}', 0, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM experiments WHERE tenant_id = ",
        implicit.id, implicit.name, implicit.artifact_location
    ));
    query.push_bind(tenant).push(format_args!(" AND experiment_id = {})", implicit.id));
}

/// A page of experiments, by default the newest first.
pub async fn search_experiments(
    namespace: &Namespace,
    scope: &TenantScope,
    search: &SearchExperiments,
) -> Result<Page<Experiment>, StoreError> {
    let mut query: QueryBuilder =
        QueryBuilder::new(namespace.dialect(), format!("SELECT {} FROM (", columns(namespace.dialect())));
    push_experiments(&mut query, scope);
    query.push(") e WHERE 1 = 1");
    match search.view {
        View::Active => drop(query.push(" AND e.deleted = 0")),
        View::Deleted => drop(query.push(" AND e.deleted = 1")),
        View::All => {}
    }
    for clause in &search.filter {
        query.push(" AND ");
        match clause.entity {
            Entity::Tag => {
                let not = if clause.comparator == Comparator::IsNull { "NOT " } else { "" };
                query.push(not).push(
                    "EXISTS (SELECT 1 FROM experiment_tags t WHERE t.tenant_id = e.tenant_id \
                     AND t.experiment_id = e.experiment_id AND t.key = ",
                );
                query.push_bind(clause.key.clone());
                if !matches!(clause.comparator, Comparator::IsNull | Comparator::IsNotNull) {
                    query.push(" AND ");
                    push_comparison(&mut query, "t.value", clause.comparator, &clause.value);
                }
                query.push(")");
            }
            // Ids are compared as texts.
            _ if clause.key == "experiment_id" => {
                push_comparison(&mut query, "CAST(e.experiment_id AS TEXT)", clause.comparator, &clause.value);
            }
            _ => push_comparison(&mut query, column(&clause.key), clause.comparator, &clause.value),
        }
    }
    query.push(" ORDER BY ");
    for order in &search.order_by {
        query.push(column(&order.key)).push(if order.ascending { " ASC, " } else { " DESC, " });
    }
    if search.order_by.is_empty() {
        query.push("e.created_at DESC, ");
    }
    query.push("e.experiment_id DESC LIMIT ").push_bind(search.limit as i64 + 1);
    query.push(" OFFSET ").push_bind(search.offset as i64);
    let rows = query.build().fetch_all(namespace.readers()).await?;
    Ok(Page::of(rows.iter().map(read).collect::<Result<_, _>>()?, search.limit))
}
