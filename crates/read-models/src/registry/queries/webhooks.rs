//! Webhooks, and the events that they subscribe to.

use carbon_core::{TenantScope, Timestamp};
use carbon_store::{Namespace, Row, StoreError};

use super::{Page, corrupt};

/// A webhook.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    pub webhook_id: String,
    pub name: String,
    pub description: String,
    pub url: String,
    /// Sorted names of the form `entity.action`.
    pub events: Vec<String>,
    pub status: String,
    /// Empty if the webhook has no secret.
    pub sealed_secret: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Webhook {
    pub fn is_active(&self) -> bool {
        self.status == "ACTIVE"
    }
}

const COLUMNS: &str = "webhook_id, name, description, url, events, status, sealed_secret, created_at, updated_at";

fn read(row: &Row) -> Result<Webhook, StoreError> {
    Ok(Webhook {
        webhook_id: row.try_get(0)?,
        name: row.try_get(1)?,
        description: row.try_get(2)?,
        url: row.try_get(3)?,
        events: serde_json::from_str(&row.try_get::<String>(4)?).map_err(corrupt)?,
        status: row.try_get(5)?,
        sealed_secret: row.try_get(6)?,
        created_at: Timestamp(row.try_get(7)?),
        updated_at: Timestamp(row.try_get(8)?),
    })
}

/// The webhook with an id; `None` if it is deleted.
pub async fn webhook(
    namespace: &Namespace,
    scope: &TenantScope,
    webhook_id: &str,
) -> Result<Option<Webhook>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM webhooks WHERE tenant_id = $1 AND webhook_id = $2 AND deleted = 0");
    let query = carbon_store::query(sqlx::AssertSqlSafe(sql)).bind(scope.tenant().as_str()).bind(webhook_id);
    query.fetch_optional(namespace.readers()).await?.as_ref().map(read).transpose()
}

/// A page of webhooks, newest first.
pub async fn webhooks(
    namespace: &Namespace,
    scope: &TenantScope,
    limit: usize,
    offset: usize,
) -> Result<Page<Webhook>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM webhooks WHERE tenant_id = $1 AND deleted = 0 \
         ORDER BY created_at DESC, webhook_id LIMIT $2 OFFSET $3"
    );
    let rows = carbon_store::query(sqlx::AssertSqlSafe(sql))
        .bind(scope.tenant().as_str())
        .bind(limit as i64 + 1)
        .bind(offset as i64)
        .fetch_all(namespace.readers())
        .await?;
    Ok(Page::of(rows.iter().map(read).collect::<Result<_, _>>()?, limit))
}

/// The ids of the active webhooks that subscribe to an event and were created by the time `at`.
pub async fn webhooks_told_of(
    namespace: &Namespace,
    scope: &TenantScope,
    event: &str,
    at: Timestamp,
) -> Result<Vec<String>, StoreError> {
    let ids = carbon_store::query(
        "SELECT webhook_id FROM webhooks WHERE tenant_id = $1 AND deleted = 0 AND status = 'ACTIVE' \
         AND created_at <= $3 AND EXISTS (SELECT 1 FROM json_each(events) WHERE value = $2) ORDER BY webhook_id",
    )
    .bind(scope.tenant().as_str())
    .bind(event)
    .bind(at.0)
    .scalars(namespace.readers())
    .await?;
    Ok(ids)
}

/// Whether a registration, also a deleted one, has a tag with this value, which is compared without case. The
/// registration is named by its id, or else by its name.
pub async fn registration_has_tag(
    namespace: &Namespace,
    scope: &TenantScope,
    (registration_id, name): (Option<&str>, &str),
    (key, value): (&str, &str),
) -> Result<bool, StoreError> {
    let found: Option<i64> = carbon_store::query(
        "SELECT 1 FROM registered_model_tags t JOIN registered_models m USING (tenant_id, registration_id) \
         WHERE t.tenant_id = $1 AND t.key = $4 AND lower(t.value) = $5 \
         AND (m.registration_id = $2 OR ($2 IS NULL AND m.name = $3 AND m.deleted_at IS NULL)) LIMIT 1",
    )
    .bind(scope.tenant().as_str())
    .bind(registration_id)
    .bind(name)
    .bind(key)
    .bind(value)
    .scalar(namespace.readers())
    .await?;
    Ok(found.is_some())
}
