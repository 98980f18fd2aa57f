use carbon_store::{Namespace, StoreError};
use sqlx::Row as _;

/// A dead letter, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// `topic:partition:offset` of the record.
    pub position: String,
    pub tenant_id: Option<String>,
    pub processor: String,
    pub reason: String,
    pub message: String,
}

/// How many dead letters are open, by reason.
pub async fn counts(namespace: &Namespace) -> Result<Vec<(String, u64)>, StoreError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT reason, count(*) FROM dead_letters WHERE state = 'open' GROUP BY reason ORDER BY reason",
    )
    .fetch_all(namespace.readers())
    .await?;
    Ok(rows.into_iter().map(|(reason, count)| (reason, count as u64)).collect())
}

/// The open dead letters, newest first.
pub async fn list(namespace: &Namespace, limit: u32) -> Result<Vec<Letter>, StoreError> {
    let rows = sqlx::query(
        "SELECT topic || ':' || partition || ':' || \"offset\", tenant_id, processor, reason, message FROM dead_letters \
         WHERE state = 'open' ORDER BY reported_at DESC, topic, partition, \"offset\" LIMIT $1",
    )
    .bind(i64::from(limit))
    .fetch_all(namespace.readers())
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Letter {
                position: row.try_get(0)?,
                tenant_id: row.try_get(1)?,
                processor: row.try_get(2)?,
                reason: row.try_get(3)?,
                message: row.try_get(4)?,
            })
        })
        .collect()
}
