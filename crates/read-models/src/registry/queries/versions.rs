//! Versions of registered models.

use std::collections::HashMap;

use carbon_core::{TenantScope, Timestamp};
use carbon_schemas::events::{KeyValue, ManifestFile};
use carbon_store::{Dialect, Namespace, Row, StoreError};

use super::corrupt;

/// A version of a registered model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelVersion {
    pub registration_id: String,
    pub name: String,
    pub version: i64,
    pub version_id: String,
    pub description: String,
    pub run_id: String,
    pub model_id: String,
    pub source: String,
    /// The location of its files.
    pub storage: String,
    pub run_link: String,
    pub stage: String,
    pub created_at: Timestamp,
    pub last_updated: Timestamp,
    pub manifest_digest: Option<String>,
    pub tags: Vec<KeyValue>,
    pub aliases: Vec<String>,
}

pub(super) const SELECT: &str = "SELECT v.registration_id, m.name, v.version, v.version_id, v.description, v.run_id, \
    v.model_id, v.source, v.storage, v.run_link, v.stage, v.created_at, v.last_updated, v.manifest_digest \
    FROM model_versions v JOIN registered_models m \
    ON m.tenant_id = v.tenant_id AND m.registration_id = v.registration_id";

pub(super) fn read(row: &Row) -> Result<ModelVersion, StoreError> {
    Ok(ModelVersion {
        registration_id: row.try_get(0)?,
        name: row.try_get(1)?,
        version: row.try_get(2)?,
        version_id: row.try_get(3)?,
        description: row.try_get(4)?,
        run_id: row.try_get(5)?,
        model_id: row.try_get(6)?,
        source: row.try_get(7)?,
        storage: row.try_get(8)?,
        run_link: row.try_get(9)?,
        stage: row.try_get(10)?,
        created_at: Timestamp(row.try_get(11)?),
        last_updated: Timestamp(row.try_get(12)?),
        manifest_digest: row.try_get(13)?,
        tags: Vec::new(),
        aliases: Vec::new(),
    })
}

/// A version of the model that has the name now.
pub async fn model_version(
    namespace: &Namespace,
    scope: &TenantScope,
    name: &str,
    version: i64,
) -> Result<Option<ModelVersion>, StoreError> {
    let sql = format!(
        "{SELECT} WHERE v.tenant_id = $1 AND m.name = $2 AND m.deleted_at IS NULL AND v.version = $3 \
         AND v.deleted_at IS NULL"
    );
    let query = carbon_store::query(sqlx::AssertSqlSafe(sql)).bind(scope.tenant().as_str()).bind(name).bind(version);
    let Some(row) = query.fetch_optional(namespace.readers()).await? else { return Ok(None) };
    Ok(hydrate(namespace, scope, vec![read(&row)?]).await?.pop())
}

/// The version with the highest number.
pub async fn newest_version(
    namespace: &Namespace,
    scope: &TenantScope,
    registration_id: &str,
) -> Result<Option<ModelVersion>, StoreError> {
    let sql = format!(
        "{SELECT} WHERE v.tenant_id = $1 AND v.registration_id = $2 AND v.deleted_at IS NULL \
         ORDER BY v.version DESC LIMIT 1"
    );
    let query = carbon_store::query(sqlx::AssertSqlSafe(sql)).bind(scope.tenant().as_str()).bind(registration_id);
    let Some(row) = query.fetch_optional(namespace.readers()).await? else { return Ok(None) };
    Ok(hydrate(namespace, scope, vec![read(&row)?]).await?.pop())
}

/// All versions of a registration, by number.
pub async fn versions_of(
    namespace: &Namespace,
    scope: &TenantScope,
    registration_id: &str,
) -> Result<Vec<ModelVersion>, StoreError> {
    let sql = format!(
        "{SELECT} WHERE v.tenant_id = $1 AND v.registration_id = $2 AND v.deleted_at IS NULL ORDER BY v.version"
    );
    let query = carbon_store::query(sqlx::AssertSqlSafe(sql)).bind(scope.tenant().as_str()).bind(registration_id);
    let rows = query.fetch_all(namespace.readers()).await?;
    hydrate(namespace, scope, rows.iter().map(read).collect::<Result<_, _>>()?).await
}

/// The number that the next version claims. Numbers of deleted versions are not used again.
pub async fn next_version(
    namespace: &Namespace,
    scope: &TenantScope,
    registration_id: &str,
) -> Result<i64, StoreError> {
    let next = carbon_store::query(
        "SELECT COALESCE(MAX(version), 0) + 1 FROM model_versions WHERE tenant_id = $1 AND registration_id = $2",
    )
    .bind(scope.tenant().as_str())
    .bind(registration_id)
    .scalar_one(namespace.readers())
    .await?;
    Ok(next)
}

/// The newest version of every stage of the registrations, by registration and number.
pub async fn latest_versions(
    namespace: &Namespace,
    scope: &TenantScope,
    registrations: &[&str],
) -> Result<Vec<ModelVersion>, StoreError> {
    if registrations.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "{SELECT} JOIN (SELECT registration_id, MAX(version) AS version FROM model_versions \
             WHERE tenant_id = $1 AND registration_id IN (SELECT value FROM json_each($2)) AND deleted_at IS NULL \
             GROUP BY registration_id, stage) newest \
         ON newest.registration_id = v.registration_id AND newest.version = v.version \
         WHERE v.tenant_id = $1 ORDER BY v.registration_id, v.version"
    );
    let rows = carbon_store::query(sqlx::AssertSqlSafe(sql))
        .bind(scope.tenant().as_str())
        .bind(serde_json::to_string(registrations).map_err(corrupt)?)
        .fetch_all(namespace.readers())
        .await?;
    hydrate(namespace, scope, rows.iter().map(read).collect::<Result<_, _>>()?).await
}

/// The files of a version as of its registration; none if they are stored elsewhere.
pub async fn manifest(
    namespace: &Namespace,
    scope: &TenantScope,
    version_id: &str,
) -> Result<Vec<ManifestFile>, StoreError> {
    let text: Option<String> =
        carbon_store::query("SELECT manifest FROM model_versions WHERE tenant_id = $1 AND version_id = $2")
            .bind(scope.tenant().as_str())
            .bind(version_id)
            .scalar(namespace.readers())
            .await?;
    serde_json::from_str(text.as_deref().unwrap_or("[]")).map_err(corrupt)
}

/// The tags and aliases of a page.
fn parts(dialect: Dialect) -> String {
    let join = dialect.ordered_join();
    format!(
        "WITH page(registration_id, version) AS (
    SELECT substr(value, 1, 36), CAST(substr(value, 37) AS BIGINT) FROM json_each($2)
)
SELECT 't', registration_id, version, key, value FROM page {join} model_version_tags USING (registration_id, version)
    WHERE tenant_id = $1
UNION ALL
SELECT 'a', registration_id, version, alias, NULL FROM page {join} model_aliases USING (registration_id, version)
    WHERE tenant_id = $1
ORDER BY 4"
    )
}

/// Adds tags and aliases: one statement for any number of versions.
pub(super) async fn hydrate(
    namespace: &Namespace,
    scope: &TenantScope,
    mut versions: Vec<ModelVersion>,
) -> Result<Vec<ModelVersion>, StoreError> {
    if versions.is_empty() {
        return Ok(versions);
    }
    let ids: Vec<(String, i64)> = versions.iter().map(|own| (own.registration_id.clone(), own.version)).collect();
    // A registration id has 36 characters; the version number follows it.
    let page: Vec<String> = ids.iter().map(|(id, version)| format!("{id}{version}")).collect();
    let page = serde_json::to_string(&page).map_err(corrupt)?;
    let places: HashMap<(String, i64), usize> = ids.into_iter().enumerate().map(|(at, id)| (id, at)).collect();
    let rows = carbon_store::query(sqlx::AssertSqlSafe(parts(namespace.dialect())))
        .bind(scope.tenant().as_str())
        .bind(page)
        .fetch_all(namespace.readers())
        .await?;
    for row in &rows {
        let place = places.get(&(row.try_get(1)?, row.try_get(2)?));
        let Some(version) = place.and_then(|at| versions.get_mut(*at)) else { continue };
        let name: String = row.try_get(3)?;
        match row.try_get::<String>(0)?.as_str() {
            "t" => version.tags.push(KeyValue { key: name, value: row.try_get(4)? }),
            _ => version.aliases.push(name),
        }
    }
    Ok(versions)
}
