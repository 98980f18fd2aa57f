//! Searches for registered models and for versions. Prompts are registered models with a tag; they are hidden unless
//! the filter names that tag.

use carbon_core::TenantScope;
use carbon_store::{Namespace, QueryBuilder, StoreError};

use super::Page;
use super::models::{self, RegisteredModel};
use super::versions::{self, ModelVersion};
use crate::registry::filter::{Clause, Comparator, Entity, Literal, Order, push_comparison};

/// The tag that marks a registered model as a prompt in MLflow.
pub const IS_PROMPT: &str = "mlflow.prompt.is_prompt";

/// A search for registered models or versions.
#[derive(Clone, Debug, Default)]
pub struct SearchModels {
    pub filter: Vec<Clause>,
    pub order_by: Vec<Order>,
    pub limit: usize,
    pub offset: usize,
}

#[derive(Clone, Copy)]
enum RegistryTarget {
    Models,
    Versions,
}

impl RegistryTarget {
    /// The start of a subquery over the tags of a row; the key follows.
    fn tags(self) -> &'static str {
        match self {
            Self::Models => {
                "SELECT 1 FROM registered_model_tags t WHERE t.tenant_id = m.tenant_id \
                 AND t.registration_id = m.registration_id AND t.key = "
            }
            Self::Versions => {
                "SELECT 1 FROM model_version_tags t WHERE t.tenant_id = v.tenant_id \
                 AND t.registration_id = v.registration_id AND t.version = v.version AND t.key = "
            }
        }
    }

    fn column(self, key: &str) -> &'static str {
        match (self, key) {
            (_, "name") => "m.name",
            (Self::Models, _) => "m.last_updated",
            (Self::Versions, "version_number") => "v.version",
            (Self::Versions, "run_id") => "v.run_id",
            (Self::Versions, "source_path") => "v.source",
            (Self::Versions, "creation_timestamp") => "v.created_at",
            (Self::Versions, _) => "v.last_updated",
        }
    }
}

/// Whether a clause asks for prompts only (`true`) or excludes them; `None` for a clause on anything else.
fn of_prompts(clause: &Clause) -> Option<bool> {
    let Literal::Text(text) = &clause.value else { return None };
    let says = text.eq_ignore_ascii_case("true");
    match clause.comparator {
        _ if clause.entity != Entity::Tag || clause.key != IS_PROMPT => None,
        Comparator::Eq => Some(says),
        Comparator::Ne => Some(!says),
        _ => None,
    }
}

fn push_filter(query: &mut QueryBuilder, target: RegistryTarget, filter: &[Clause]) {
    let mut names_prompts = false;
    for clause in filter {
        names_prompts |= clause.entity == Entity::Tag && clause.key == IS_PROMPT;
        query.push(" AND ");
        if let Some(wanted) = of_prompts(clause) {
            push_prompts(query, target, wanted);
        } else if clause.entity == Entity::Tag {
            let not = if clause.comparator == Comparator::IsNull { "NOT " } else { "" };
            query.push(not).push("EXISTS (").push(target.tags()).push_bind(clause.key.clone());
            if !matches!(clause.comparator, Comparator::IsNull | Comparator::IsNotNull) {
                query.push(" AND ");
                push_comparison(query, "t.value", clause.comparator, &clause.value);
            }
            query.push(")");
        } else {
            push_comparison(query, target.column(&clause.key), clause.comparator, &clause.value);
        }
    }
    if !names_prompts {
        query.push(" AND ");
        push_prompts(query, target, false);
    }
}

fn push_prompts(query: &mut QueryBuilder, target: RegistryTarget, wanted: bool) {
    query.push(if wanted { "EXISTS (" } else { "NOT EXISTS (" }).push(target.tags()).push_bind(IS_PROMPT);
    query.push(" AND t.value IN ('true', 'True'))");
}

fn push_order(query: &mut QueryBuilder, target: RegistryTarget, search: &SearchModels, last: &str) {
    query.push(" ORDER BY ");
    for order in &search.order_by {
        query.push(target.column(&order.key)).push(if order.ascending { " ASC, " } else { " DESC, " });
    }
    query.push(last).push(" LIMIT ").push_bind(search.limit as i64 + 1);
    query.push(" OFFSET ").push_bind(search.offset as i64);
}

/// A page of registered models, by default in the order of their names.
pub async fn search_registered_models(
    namespace: &Namespace,
    scope: &TenantScope,
    search: &SearchModels,
) -> Result<Page<RegisteredModel>, StoreError> {
    let target = RegistryTarget::Models;
    let mut query =
        QueryBuilder::new(namespace.dialect(), format!("SELECT {} FROM registered_models m", models::COLUMNS));
    query.push(" WHERE m.tenant_id = ").push_bind(scope.tenant().as_str()).push(" AND m.deleted_at IS NULL");
    push_filter(&mut query, target, &search.filter);
    push_order(&mut query, target, search, "m.name");
    let rows = query.build().fetch_all(namespace.readers()).await?;
    let page = Page::of(rows.iter().map(models::read).collect::<Result<Vec<_>, _>>()?, search.limit);
    Ok(Page { items: models::hydrate(namespace, scope, page.items).await?, more: page.more })
}

/// A page of versions, by default the last changed first.
pub async fn search_model_versions(
    namespace: &Namespace,
    scope: &TenantScope,
    search: &SearchModels,
) -> Result<Page<ModelVersion>, StoreError> {
    let target = RegistryTarget::Versions;
    let mut query = QueryBuilder::new(namespace.dialect(), versions::SELECT);
    query.push(" WHERE v.tenant_id = ").push_bind(scope.tenant().as_str()).push(" AND v.deleted_at IS NULL");
    push_filter(&mut query, target, &search.filter);
    let last = match search.order_by.is_empty() {
        true => "v.last_updated DESC, m.name, v.version DESC",
        false => "m.name, v.version DESC",
    };
    push_order(&mut query, target, search, last);
    let rows = query.build().fetch_all(namespace.readers()).await?;
    let page = Page::of(rows.iter().map(versions::read).collect::<Result<Vec<_>, _>>()?, search.limit);
    Ok(Page { items: versions::hydrate(namespace, scope, page.items).await?, more: page.more })
}
