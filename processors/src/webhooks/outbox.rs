//! The outbox: a SQLite file with the pending deliveries of each webhook, in order.

use std::path::Path;

use carbon_core::TenantId;
use carbon_store::{Durability, SqliteNamespace, SqliteTables, StoreError};
use sqlx::Row as _;
use uuid::Uuid;

/// Maximum number of pending deliveries of one webhook. Later ones are dropped.
pub const MAX_PENDING_DELIVERIES: i64 = 1000;

/// Version of the tables.
const LAYOUT: i64 = 1;
const DDL: &str = "
CREATE TABLE IF NOT EXISTS deliveries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id TEXT NOT NULL,
    webhook_id TEXT NOT NULL,
    delivery_id TEXT NOT NULL UNIQUE,
    body TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS deliveries_of ON deliveries (tenant_id, webhook_id, seq);
";

/// Opens the outbox. Its commits are fsynced: deliveries cannot be rebuilt from the log.
pub(super) async fn open(path: &Path) -> Result<SqliteNamespace, StoreError> {
    SqliteNamespace::open(path, Durability::Full, LAYOUT, DDL).await
}

/// The key of a webhook: tenant and id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct WebhookKey {
    pub tenant: TenantId,
    pub webhook: String,
}

/// A delivery to insert.
pub(super) struct NewDelivery {
    pub tenant: TenantId,
    pub webhook: String,
    pub delivery: Uuid,
    pub body: String,
}

/// A delivery in the outbox.
pub(super) struct QueuedDelivery {
    pub seq: i64,
    pub delivery: Uuid,
    pub body: String,
    /// Failed attempts so far.
    pub attempts: u32,
}

/// Inserts deliveries and returns the number of dropped ones. A webhook with [`MAX_PENDING_DELIVERIES`] loses its new
/// ones; other webhooks are not affected. A delivery that is pending already is not inserted again.
pub(super) async fn insert(tables: &mut SqliteTables, deliveries: &[NewDelivery]) -> Result<usize, StoreError> {
    let mut dropped = 0;
    for delivery in deliveries {
        let inserted = sqlx::query(
            "INSERT INTO deliveries (tenant_id, webhook_id, delivery_id, body) SELECT $1, $2, $3, $4 \
             WHERE (SELECT count(*) FROM deliveries WHERE tenant_id = $1 AND webhook_id = $2) < $5 \
             ON CONFLICT (delivery_id) DO NOTHING",
        )
        .bind(delivery.tenant.as_str())
        .bind(&delivery.webhook)
        .bind(delivery.delivery.to_string())
        .bind(&delivery.body)
        .bind(MAX_PENDING_DELIVERIES)
        .execute(tables.connection())
        .await?;
        if inserted.rows_affected() == 0 && !is_pending(tables, delivery.delivery).await? {
            dropped += 1;
            let (tenant, webhook, delivery) = (delivery.tenant.as_str(), &delivery.webhook, delivery.delivery);
            tracing::warn!(tenant, webhook, %delivery, "too many pending deliveries; delivery dropped");
            super::deliver::count("dropped");
        }
    }
    Ok(dropped)
}

async fn is_pending(tables: &mut SqliteTables, delivery: Uuid) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM deliveries WHERE delivery_id = $1").bind(delivery.to_string());
    Ok(row.fetch_optional(tables.connection()).await?.is_some())
}

/// The webhooks that have pending deliveries.
pub(super) async fn pending_webhooks(outbox: &SqliteNamespace) -> Result<Vec<WebhookKey>, StoreError> {
    let rows = sqlx::query("SELECT DISTINCT tenant_id, webhook_id FROM deliveries").fetch_all(outbox.readers()).await?;
    let key = |row: &sqlx::sqlite::SqliteRow| {
        let tenant = TenantId::parse(row.try_get(0)?).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        Ok(WebhookKey { tenant, webhook: row.try_get(1)? })
    };
    rows.iter().map(key).collect()
}

/// The oldest pending delivery of a webhook.
pub(super) async fn oldest(outbox: &SqliteNamespace, key: &WebhookKey) -> Result<Option<QueuedDelivery>, StoreError> {
    let row = sqlx::query(
        "SELECT seq, delivery_id, body, attempts FROM deliveries WHERE tenant_id = $1 AND webhook_id = $2 \
         ORDER BY seq LIMIT 1",
    )
    .bind(key.tenant.as_str())
    .bind(&key.webhook)
    .fetch_optional(outbox.readers())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let delivery = Uuid::try_parse(row.try_get(1)?).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    Ok(Some(QueuedDelivery { seq: row.try_get(0)?, delivery, body: row.try_get(2)?, attempts: row.try_get(3)? }))
}

/// Deletes a delivery, after it succeeded or was given up.
pub(super) async fn delete(outbox: &SqliteNamespace, seq: i64) -> Result<(), StoreError> {
    let mut tables = outbox.begin().await?;
    sqlx::query("DELETE FROM deliveries WHERE seq = $1").bind(seq).execute(tables.connection()).await?;
    tables.commit().await
}

/// Counts a failed attempt at a delivery.
pub(super) async fn count_attempt(outbox: &SqliteNamespace, seq: i64) -> Result<(), StoreError> {
    let mut tables = outbox.begin().await?;
    let update = sqlx::query("UPDATE deliveries SET attempts = attempts + 1 WHERE seq = $1");
    update.bind(seq).execute(tables.connection()).await?;
    tables.commit().await
}

/// Deletes all deliveries of a webhook that is deleted or not active.
pub(super) async fn delete_all(outbox: &SqliteNamespace, key: &WebhookKey) -> Result<(), StoreError> {
    let mut tables = outbox.begin().await?;
    sqlx::query("DELETE FROM deliveries WHERE tenant_id = $1 AND webhook_id = $2")
        .bind(key.tenant.as_str())
        .bind(&key.webhook)
        .execute(tables.connection())
        .await?;
    tables.commit().await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn delivery(webhook: &str, n: u128) -> NewDelivery {
        let tenant = TenantId::parse("default").unwrap();
        NewDelivery { tenant, webhook: webhook.into(), delivery: Uuid::from_u128(n), body: "{}".into() }
    }

    #[tokio::test]
    async fn only_deliveries_beyond_the_limit_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = open(&folder.path().join("webhooks.db")).await.unwrap();
        let mut tables = outbox.begin().await.unwrap();
        let full: Vec<_> = (0..MAX_PENDING_DELIVERIES as u128).map(|n| delivery("a", n)).collect();
        assert_eq!(insert(&mut tables, &full).await.unwrap(), 0);
        assert_eq!(insert(&mut tables, &[delivery("a", 7)]).await.unwrap(), 0, "it is pending already");
        assert_eq!(insert(&mut tables, &[delivery("a", 5000), delivery("b", 5001)]).await.unwrap(), 1);
        tables.commit().await.unwrap();
        assert_eq!(pending_webhooks(&outbox).await.unwrap().len(), 2);
    }
}
