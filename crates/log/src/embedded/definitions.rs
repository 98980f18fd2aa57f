//! Writes topics and schemas to the log file.

use carbon_core::TopicSpec;
use carbon_schemas::Fingerprint;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, QueryBuilder};

use super::state::{LogState, StoredTopic};
use crate::error::LogError;
use crate::topics::{cleanup_name, partitioner_name, reject_difference};

/// Fails if a topic exists with a difference that is not allowed.
pub(super) fn check_topics(state: &LogState, topics: &[TopicSpec]) -> Result<(), LogError> {
    topics.iter().try_for_each(|spec| match state.topic(&spec.name) {
        Ok(existing) => reject_difference(&existing.spec, spec),
        Err(_) => Ok(()),
    })
}

/// Creates or changes topics, in one transaction. [`check_topics`] must have succeeded.
pub(super) async fn put_topics(
    connection: &mut SqliteConnection,
    topics: Vec<TopicSpec>,
) -> Result<Vec<StoredTopic>, LogError> {
    let mut stored = Vec::new();
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    for spec in topics {
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO topic (name, partitions, cleanup, partitioner, retention_ms, min_compaction_lag_ms, \
             delete_retention_ms) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO UPDATE SET \
             cleanup = excluded.cleanup, retention_ms = excluded.retention_ms, \
             min_compaction_lag_ms = excluded.min_compaction_lag_ms, \
             delete_retention_ms = excluded.delete_retention_ms RETURNING id",
        )
        .bind(spec.name.as_str())
        .bind(i64::from(spec.partitions))
        .bind(cleanup_name(spec.cleanup))
        .bind(partitioner_name(spec.partitioner))
        .bind(spec.retention.retention_ms)
        .bind(spec.retention.min_compaction_lag_ms)
        .bind(spec.retention.delete_retention_ms)
        .fetch_one(&mut *tx)
        .await?;
        let mut insert =
            QueryBuilder::new("INSERT OR IGNORE INTO partition (topic, partition, start, next, timestamp) ");
        insert.push_values(0..spec.partitions, |mut row, partition| {
            row.push_bind(id).push_bind(i64::from(partition)).push("0, 0, 0");
        });
        insert.build().execute(&mut *tx).await?;
        stored.push(StoredTopic { id, spec });
    }
    tx.commit().await?;
    Ok(stored)
}

/// Stores a schema, unless its fingerprint is stored already.
pub(super) async fn put_schema(
    connection: &mut SqliteConnection,
    fingerprint: Fingerprint,
    event: &str,
    json: &str,
) -> Result<(), LogError> {
    sqlx::query("INSERT OR IGNORE INTO schema (fingerprint, event, json) VALUES ($1, $2, $3)")
        .bind(fingerprint.0.to_vec())
        .bind(event)
        .bind(json)
        .execute(connection)
        .await?;
    Ok(())
}
