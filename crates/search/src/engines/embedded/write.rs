//! Writes to `rows.db`, with multi-row statements.

use std::collections::HashMap;

use carbon_core::{EntityKey, Position, Positions};
use carbon_store::StoreError;
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::schema::COLUMNS;
use super::write_set::{RowUpsert, WriteSet};
use crate::error::IndexError;

/// Maximum number of rows of a statement. SQLite binds at most 32,766 values, and a row has up to 17.
const ROWS_PER_STATEMENT: usize = 500;

/// The keys as a JSON array of `[tenant, type, id]`, for `json_each`.
fn json_keys<'k>(keys: impl Iterator<Item = &'k EntityKey>) -> String {
    let keys: Vec<[&str; 3]> =
        keys.map(|key| [key.tenant.as_str(), key.entity_type.as_str(), key.entity_id.as_str()]).collect();
    serde_json::to_string(&keys).unwrap_or_default()
}

/// The source positions of the tombstones of `keys`.
pub(super) async fn tombstones(
    connection: &mut SqliteConnection,
    keys: impl Iterator<Item = &EntityKey>,
) -> Result<HashMap<EntityKey, Position>, IndexError> {
    let rows = sqlx::query(
        "SELECT t.tenant, t.entity_type, t.entity_id, t.source_topic, t.source_partition, t.source_offset
         FROM json_each($1) j JOIN tombstone t
           ON t.tenant = j.value->>'$[0]' AND t.entity_type = j.value->>'$[1]' AND t.entity_id = j.value->>'$[2]'",
    )
    .bind(json_keys(keys))
    .fetch_all(connection)
    .await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        let (tenant, kind, id): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let key = EntityKey::parse(&tenant, &kind, &id).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        found.insert(key, position(row.try_get(3)?, row.try_get(4)?, row.try_get(5)?)?);
    }
    Ok(found)
}

/// A position from its columns. Fails with [`StoreError::Corrupt`] if a value is out of range.
pub(super) fn position(topic: &str, partition: i64, offset: i64) -> Result<Position, StoreError> {
    let corrupt = |reason: String| StoreError::Corrupt(reason);
    let topic = topic.parse().map_err(|error: carbon_core::IdError| corrupt(error.to_string()))?;
    let partition = u32::try_from(partition).map_err(|_| corrupt(format!("partition {partition}")))?;
    let offset = u64::try_from(offset).map_err(|_| corrupt(format!("offset {offset}")))?;
    Ok(Position::new(topic, partition, offset))
}

/// Writes a batch: rows, tombstones, tenant counts, source positions and sequence.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    write_set: &WriteSet,
    sources: &Positions,
) -> Result<(), IndexError> {
    if !write_set.deletes.is_empty() {
        write_deletes(connection, write_set).await?;
    }
    if !write_set.revived.is_empty() {
        sqlx::query(
            "DELETE FROM tombstone WHERE (tenant, entity_type, entity_id) IN
             (SELECT value->>'$[0]', value->>'$[1]', value->>'$[2]' FROM json_each($1))",
        )
        .bind(json_keys(write_set.revived.iter()))
        .execute(&mut *connection)
        .await?;
    }
    for upserts in write_set.upserts.chunks(ROWS_PER_STATEMENT) {
        write_upserts(connection, upserts).await?;
    }
    if !write_set.tenants.is_empty() {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT OR REPLACE INTO tenant (tenant, documents, tokens) ");
        insert.push_values(&write_set.tenants, |mut row, (tenant, (documents, tokens))| {
            row.push_bind(tenant.as_str()).push_bind(*documents as i64).push_bind(*tokens as i64);
        });
        insert.build().execute(&mut *connection).await?;
    }
    if !sources.is_empty() {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO source (topic, partition, next) ");
        insert.push_values(sources.iter(), |mut row, (at, next)| {
            row.push_bind(at.topic.as_str()).push_bind(i64::from(at.partition)).push_bind(next as i64);
        });
        insert.push(" ON CONFLICT (topic, partition) DO UPDATE SET next = max(next, excluded.next)");
        insert.build().execute(&mut *connection).await?;
    }
    if write_set.changes_rows() {
        sqlx::query("UPDATE meta SET sequence = $1").bind(write_set.sequence as i64).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Deletes rows and writes their tombstones.
async fn write_deletes(connection: &mut SqliteConnection, write_set: &WriteSet) -> Result<(), IndexError> {
    let numbers: Vec<u32> = write_set.deletes.iter().filter_map(|delete| delete.number).collect();
    if !numbers.is_empty() {
        sqlx::query("DELETE FROM entity_row WHERE number IN (SELECT value FROM json_each($1))")
            .bind(serde_json::to_string(&numbers).unwrap_or_default())
            .execute(&mut *connection)
            .await?;
    }
    for deletes in write_set.deletes.chunks(ROWS_PER_STATEMENT) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT OR REPLACE INTO tombstone (tenant, entity_type, entity_id, source_topic, source_partition, \
             source_offset, number, sequence) ",
        );
        insert.push_values(deletes, |mut row, delete| {
            row.push_bind(delete.key.tenant.as_str())
                .push_bind(delete.key.entity_type.as_str())
                .push_bind(delete.key.entity_id.as_str())
                .push_bind(delete.source.topic.as_str())
                .push_bind(i64::from(delete.source.partition))
                .push_bind(delete.source.offset as i64)
                .push_bind(delete.number.map(i64::from))
                .push_bind(write_set.sequence as i64);
        });
        insert.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Inserts or overwrites rows.
async fn write_upserts(connection: &mut SqliteConnection, upserts: &[RowUpsert]) -> Result<(), IndexError> {
    let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO entity_row (");
    insert.push(COLUMNS).push(") ");
    insert.push_values(upserts, |mut values, upsert| {
        let document = &upsert.row.document;
        let embedding = document.embedding.as_ref();
        values
            .push_bind(i64::from(upsert.number))
            .push_bind(document.key.tenant.as_str())
            .push_bind(document.key.entity_type.as_str())
            .push_bind(document.key.entity_id.as_str())
            .push_bind(document.text.as_str())
            .push_bind(upsert.stored.metadata.as_str())
            .push_bind(upsert.stored.tags.as_str())
            .push_bind(document.updated_at.0)
            .push_bind(document.source.topic.as_str())
            .push_bind(i64::from(document.source.partition))
            .push_bind(document.source.offset as i64)
            .push_bind(embedding.map(|position| position.topic.as_str()))
            .push_bind(embedding.map(|position| i64::from(position.partition)))
            .push_bind(embedding.map(|position| position.offset as i64))
            .push_bind(upsert.stored.vector.as_slice())
            .push_bind(i64::from(upsert.row.tokens))
            .push_bind(upsert.row.sequence as i64);
    });
    insert.push(
        " ON CONFLICT (number) DO UPDATE SET text = excluded.text, metadata = excluded.metadata, \
         tags = excluded.tags, updated_at = excluded.updated_at, source_topic = excluded.source_topic, \
         source_partition = excluded.source_partition, source_offset = excluded.source_offset, \
         embedding_topic = excluded.embedding_topic, embedding_partition = excluded.embedding_partition, \
         embedding_offset = excluded.embedding_offset, vector = excluded.vector, tokens = excluded.tokens, \
         sequence = excluded.sequence",
    );
    insert.build().execute(connection).await?;
    Ok(())
}
