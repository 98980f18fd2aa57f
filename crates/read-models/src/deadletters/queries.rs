use carbon_store::{Namespace, StoreError};

/// How many dead letters are open, by reason.
pub async fn counts(namespace: &Namespace) -> Result<Vec<(String, u64)>, StoreError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT reason, count(*) FROM dead_letters WHERE state = 'open' GROUP BY reason ORDER BY reason",
    )
    .fetch_all(namespace.readers())
    .await?;
    Ok(rows.into_iter().map(|(reason, count)| (reason, count as u64)).collect())
}
