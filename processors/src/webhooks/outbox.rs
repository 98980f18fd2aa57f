//! What is still to be told, webhook by webhook, in order.

use std::path::Path;

use carbon_core::TenantId;
use carbon_store::{Durability, SqliteNamespace, SqliteTables, StoreError};
use sqlx::Row as _;
use uuid::Uuid;

/// What waits for one webhook at the most; what comes then is not told.
pub const MOST_PENDING: i64 = 1000;

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

/// Nothing makes these rows anew, so a commit survives a loss of power.
pub(super) async fn open(path: &Path) -> Result<SqliteNamespace, StoreError> {
    SqliteNamespace::open(path, Durability::Full, LAYOUT, DDL).await
}

/// One webhook of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub tenant: TenantId,
    pub webhook: String,
}

/// A delivery that is to be written down.
pub(super) struct Pending {
    pub tenant: TenantId,
    pub webhook: String,
    pub delivery: Uuid,
    pub body: String,
}

/// A delivery that was.
pub(super) struct Queued {
    pub seq: i64,
    pub delivery: Uuid,
    pub body: String,
    pub attempts: u32,
}

/// A webhook that has too many waiting loses what comes, and nobody else does.
pub(super) async fn put(tables: &mut SqliteTables, pending: &[Pending]) -> Result<(), StoreError> {
    for delivery in pending {
        let put = sqlx::query(
            "INSERT INTO deliveries (tenant_id, webhook_id, delivery_id, body) SELECT $1, $2, $3, $4 \
             WHERE (SELECT count(*) FROM deliveries WHERE tenant_id = $1 AND webhook_id = $2) < $5 \
             ON CONFLICT (delivery_id) DO NOTHING",
        )
        .bind(delivery.tenant.as_str())
        .bind(&delivery.webhook)
        .bind(delivery.delivery.to_string())
        .bind(&delivery.body)
        .bind(MOST_PENDING)
        .execute(tables.connection())
        .await?;
        if put.rows_affected() == 0 {
            let (tenant, webhook) = (delivery.tenant.as_str(), &delivery.webhook);
            tracing::warn!(tenant, webhook, delivery = %delivery.delivery, "not told: too many deliveries wait");
            super::deliver::count("dropped");
        }
    }
    Ok(())
}

/// The webhooks for which something waits.
pub(super) async fn targets(outbox: &SqliteNamespace) -> Result<Vec<Target>, StoreError> {
    let rows = sqlx::query("SELECT DISTINCT tenant_id, webhook_id FROM deliveries").fetch_all(outbox.readers()).await?;
    let target = |row: &sqlx::sqlite::SqliteRow| {
        let tenant = TenantId::parse(row.try_get(0)?).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        Ok(Target { tenant, webhook: row.try_get(1)? })
    };
    rows.iter().map(target).collect()
}

/// The next that one webhook is to be told.
pub(super) async fn next(outbox: &SqliteNamespace, target: &Target) -> Result<Option<Queued>, StoreError> {
    let row = sqlx::query(
        "SELECT seq, delivery_id, body, attempts FROM deliveries WHERE tenant_id = $1 AND webhook_id = $2 \
         ORDER BY seq LIMIT 1",
    )
    .bind(target.tenant.as_str())
    .bind(&target.webhook)
    .fetch_optional(outbox.readers())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let delivery = Uuid::try_parse(row.try_get(1)?).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    Ok(Some(Queued { seq: row.try_get(0)?, delivery, body: row.try_get(2)?, attempts: row.try_get(3)? }))
}

/// It is told, or given up.
pub(super) async fn done(outbox: &SqliteNamespace, seq: i64) -> Result<(), StoreError> {
    let mut tables = outbox.begin().await?;
    sqlx::query("DELETE FROM deliveries WHERE seq = $1").bind(seq).execute(tables.connection()).await?;
    tables.commit().await
}

pub(super) async fn tried(outbox: &SqliteNamespace, seq: i64) -> Result<(), StoreError> {
    let mut tables = outbox.begin().await?;
    let update = sqlx::query("UPDATE deliveries SET attempts = attempts + 1 WHERE seq = $1");
    update.bind(seq).execute(tables.connection()).await?;
    tables.commit().await
}

/// Nobody is there to be told any more.
pub(super) async fn forget(outbox: &SqliteNamespace, target: &Target) -> Result<(), StoreError> {
    let mut tables = outbox.begin().await?;
    sqlx::query("DELETE FROM deliveries WHERE tenant_id = $1 AND webhook_id = $2")
        .bind(target.tenant.as_str())
        .bind(&target.webhook)
        .execute(tables.connection())
        .await?;
    tables.commit().await
}
