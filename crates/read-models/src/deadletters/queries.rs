//! Queries of the dead letters.

use carbon_store::{Namespace, StoreError};

/// The number of open dead letters by reason.
pub async fn counts(namespace: &Namespace) -> Result<Vec<(String, u64)>, StoreError> {
    let rows = carbon_store::query(
        "SELECT reason, count(*) FROM dead_letters WHERE state = 'open' GROUP BY reason ORDER BY reason",
    )
    .fetch_all(namespace.readers())
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get::<i64>(1)? as u64))).collect()
}
