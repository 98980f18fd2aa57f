//! Registered models, now and as of a time in the past.

use std::collections::HashMap;

use carbon_core::{TenantScope, Timestamp};
use carbon_schemas::events::KeyValue;
use carbon_store::{Dialect, Namespace, Row, StoreError};

use super::corrupt;
use super::versions::{self, ModelVersion, latest_versions};
use crate::registry::promotion_inputs::{name_periods, promotion_inputs};
use crate::registry::standing::standing;

/// A registered model.
#[derive(Clone, Debug, PartialEq)]
pub struct RegisteredModel {
    pub registration_id: String,
    pub name: String,
    pub description: Option<String>,
    pub created_at: Timestamp,
    pub last_updated: Timestamp,
    pub tags: Vec<KeyValue>,
    pub aliases: Vec<(String, i64)>,
    /// The newest version of every stage, by number.
    pub latest: Vec<ModelVersion>,
}

impl RegisteredModel {
    /// The version that has an alias.
    pub fn aliased(&self, alias: &str) -> Option<i64> {
        self.aliases.iter().find(|(own, _)| own == alias).map(|(_, version)| *version)
    }

    /// The newest version in a stage.
    pub fn newest_in(&self, stage: &str) -> Option<i64> {
        self.latest.iter().find(|version| version.stage == stage).map(|version| version.version)
    }
}

pub(super) const COLUMNS: &str = "m.registration_id, m.name, m.description, m.created_at, m.last_updated";

pub(super) fn read(row: &Row) -> Result<RegisteredModel, StoreError> {
    Ok(RegisteredModel {
        registration_id: row.try_get(0)?,
        name: row.try_get(1)?,
        description: row.try_get(2)?,
        created_at: Timestamp(row.try_get(3)?),
        last_updated: Timestamp(row.try_get(4)?),
        tags: Vec::new(),
        aliases: Vec::new(),
        latest: Vec::new(),
    })
}

/// The model that has the name now.
pub async fn registered_model(
    namespace: &Namespace,
    scope: &TenantScope,
    name: &str,
) -> Result<Option<RegisteredModel>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM registered_models m WHERE m.tenant_id = $1 AND m.name = $2 AND m.deleted_at IS NULL"
    );
    let query = carbon_store::query(sqlx::AssertSqlSafe(sql)).bind(scope.tenant().as_str()).bind(name);
    let Some(row) = query.fetch_optional(namespace.readers()).await? else { return Ok(None) };
    Ok(hydrate(namespace, scope, vec![read(&row)?]).await?.pop())
}

/// The model that had the name at a time, with its versions, stages and aliases as of that time. `latest` contains all
/// of its versions. Descriptions and tags are those of today.
pub async fn registered_model_as_of(
    namespace: &Namespace,
    scope: &TenantScope,
    name: &str,
    at: Timestamp,
) -> Result<Option<RegisteredModel>, StoreError> {
    let tenant = scope.tenant().as_str();
    // All reads see the same commit.
    let mut snapshot = namespace.snapshot().await?;
    let mut on = snapshot.connection();
    let periods = name_periods(&mut on, tenant, name).await?;
    let Some(period) = periods.iter().rfind(|period| period.is_open_at(at.0)) else { return Ok(None) };
    let inputs = promotion_inputs(&mut on, tenant, &period.registration).await?;
    let standing = standing(&inputs.versions, &inputs.promotions, Some(at.0));
    let sql = format!("SELECT {COLUMNS} FROM registered_models m WHERE m.tenant_id = $1 AND m.registration_id = $2");
    let query = carbon_store::query(sqlx::AssertSqlSafe(sql)).bind(tenant).bind(&period.registration);
    let mut model = read(&query.fetch_one(&mut on).await?)?;
    let sql = format!(
        "{} WHERE v.tenant_id = $1 AND v.registration_id = $2 AND v.created_at <= $3 \
         AND (v.deleted_at IS NULL OR v.deleted_at > $3) ORDER BY v.version",
        versions::SELECT
    );
    let query = carbon_store::query(sqlx::AssertSqlSafe(sql)).bind(tenant).bind(&period.registration).bind(at.0);
    let rows = query.fetch_all(&mut on).await?;
    snapshot.end().await?;
    model.name = name.to_owned();
    let found = rows.iter().map(versions::read).collect::<Result<Vec<_>, _>>()?;
    model.latest = versions::hydrate(namespace, scope, found).await?;
    for version in &mut model.latest {
        let (stage, since) = match standing.stages.get(&version.version) {
            Some((stage, since)) => (stage.as_str(), Timestamp(*since)),
            None => ("None", version.created_at),
        };
        version.name = name.to_owned();
        version.stage = stage.to_owned();
        version.last_updated = since;
        let own = standing.aliases.iter().filter(|(_, of)| **of == version.version);
        version.aliases = own.map(|(alias, _)| alias.clone()).collect();
    }
    let newest = model.latest.iter().map(|version| version.last_updated).max();
    model.last_updated = newest.unwrap_or(model.created_at).max(model.created_at);
    model.aliases = standing.aliases.into_iter().collect();
    Ok(Some(model))
}

/// The tags and aliases of a page.
fn parts(dialect: Dialect) -> String {
    let join = dialect.ordered_join();
    format!(
        "WITH page(registration_id) AS (SELECT value FROM json_each($2))
SELECT 't', registration_id, key, value, CAST(NULL AS BIGINT) FROM page {join} registered_model_tags USING (registration_id)
    WHERE tenant_id = $1
UNION ALL
SELECT 'a', registration_id, alias, NULL, version FROM page {join} model_aliases USING (registration_id)
    WHERE tenant_id = $1
ORDER BY 3"
    )
}

/// Adds tags, aliases and latest versions: three statements for any number of models.
pub(super) async fn hydrate(
    namespace: &Namespace,
    scope: &TenantScope,
    mut models: Vec<RegisteredModel>,
) -> Result<Vec<RegisteredModel>, StoreError> {
    if models.is_empty() {
        return Ok(models);
    }
    let ids: Vec<String> = models.iter().map(|model| model.registration_id.clone()).collect();
    let page = serde_json::to_string(&ids).map_err(corrupt)?;
    let rows = carbon_store::query(sqlx::AssertSqlSafe(parts(namespace.dialect())))
        .bind(scope.tenant().as_str())
        .bind(page)
        .fetch_all(namespace.readers())
        .await?;
    let latest = latest_versions(namespace, scope, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let places: HashMap<String, usize> = ids.into_iter().enumerate().map(|(at, id)| (id, at)).collect();
    for row in &rows {
        let Some(model) = places.get(&row.try_get::<String>(1)?).and_then(|at| models.get_mut(*at)) else { continue };
        let name: String = row.try_get(2)?;
        match row.try_get::<String>(0)?.as_str() {
            "t" => model.tags.push(KeyValue { key: name, value: row.try_get(3)? }),
            _ => model.aliases.push((name, row.try_get(4)?)),
        }
    }
    for version in latest {
        if let Some(model) = places.get(&version.registration_id).and_then(|at| models.get_mut(*at)) {
            model.latest.push(version);
        }
    }
    Ok(models)
}
