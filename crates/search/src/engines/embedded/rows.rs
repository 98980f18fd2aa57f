//! Writing `rows.db`: a few statements for a batch, whatever its size.

use std::collections::HashMap;

use carbon_core::{EntityKey, Position, Positions};
use carbon_store::StoreError;
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::batch::{Batch, Put};
use super::schema::COLUMNS;
use crate::error::IndexError;

/// Rows in one statement; SQLite binds at most 32,766 values.
const ROWS_PER_STATEMENT: usize = 500;

/// Keys as JSON, for `json_each`.
fn json_keys<'k>(keys: impl Iterator<Item = &'k EntityKey>) -> String {
    let keys: Vec<[&str; 3]> =
        keys.map(|key| [key.tenant.as_str(), key.entity_type.as_str(), key.entity_id.as_str()]).collect();
    serde_json::to_string(&keys).unwrap_or_default()
}

/// The tombstones of these entities.
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

pub(super) fn position(topic: &str, partition: i64, offset: i64) -> Result<Position, StoreError> {
    let corrupt = |what: String| StoreError::Corrupt(what);
    let topic = topic.parse().map_err(|error: carbon_core::IdError| corrupt(error.to_string()))?;
    let partition = u32::try_from(partition).map_err(|_| corrupt(format!("partition {partition}")))?;
    let offset = u64::try_from(offset).map_err(|_| corrupt(format!("offset {offset}")))?;
    Ok(Position::new(topic, partition, offset))
}

/// Writes a batch: rows, tombstones, counts, and the highest source positions.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    batch: &Batch,
    sources: &Positions,
) -> Result<(), IndexError> {
    if !batch.removals.is_empty() {
        write_removals(connection, batch).await?;
    }
    if !batch.revived.is_empty() {
        sqlx::query(
            "DELETE FROM tombstone WHERE (tenant, entity_type, entity_id) IN
             (SELECT value->>'$[0]', value->>'$[1]', value->>'$[2]' FROM json_each($1))",
        )
        .bind(json_keys(batch.revived.iter()))
        .execute(&mut *connection)
        .await?;
    }
    for puts in batch.puts.chunks(ROWS_PER_STATEMENT) {
        write_puts(connection, puts).await?;
    }
    if !batch.tenants.is_empty() {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT OR REPLACE INTO tenant (tenant, documents, tokens) ");
        insert.push_values(&batch.tenants, |mut row, (tenant, (documents, tokens))| {
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
    if batch.changes_rows() {
        sqlx::query("UPDATE meta SET sequence = $1").bind(batch.sequence as i64).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn write_removals(connection: &mut SqliteConnection, batch: &Batch) -> Result<(), IndexError> {
    let numbers: Vec<u32> = batch.removals.iter().filter_map(|removal| removal.number).collect();
    if !numbers.is_empty() {
        sqlx::query("DELETE FROM entity_row WHERE number IN (SELECT value FROM json_each($1))")
            .bind(serde_json::to_string(&numbers).unwrap_or_default())
            .execute(&mut *connection)
            .await?;
    }
    for removals in batch.removals.chunks(ROWS_PER_STATEMENT) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT OR REPLACE INTO tombstone (tenant, entity_type, entity_id, source_topic, source_partition, \
             source_offset, number, sequence) ",
        );
        insert.push_values(removals, |mut row, removal| {
            row.push_bind(removal.key.tenant.as_str())
                .push_bind(removal.key.entity_type.as_str())
                .push_bind(removal.key.entity_id.as_str())
                .push_bind(removal.source.topic.as_str())
                .push_bind(i64::from(removal.source.partition))
                .push_bind(removal.source.offset as i64)
                .push_bind(removal.number.map(i64::from))
                .push_bind(batch.sequence as i64);
        });
        insert.build().execute(&mut *connection).await?;
    }
    Ok(())
}

async fn write_puts(connection: &mut SqliteConnection, puts: &[Put]) -> Result<(), IndexError> {
    let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO entity_row (");
    insert.push(COLUMNS).push(") ");
    insert.push_values(puts, |mut values, put| {
        let document = &put.row.document;
        let embedding = document.embedding.as_ref();
        values
            .push_bind(i64::from(put.number))
            .push_bind(document.key.tenant.as_str())
            .push_bind(document.key.entity_type.as_str())
            .push_bind(document.key.entity_id.as_str())
            .push_bind(document.text.as_str())
            .push_bind(put.stored.metadata.as_str())
            .push_bind(put.stored.tags.as_str())
            .push_bind(document.updated_at.0)
            .push_bind(document.source.topic.as_str())
            .push_bind(i64::from(document.source.partition))
            .push_bind(document.source.offset as i64)
            .push_bind(embedding.map(|position| position.topic.as_str()))
            .push_bind(embedding.map(|position| i64::from(position.partition)))
            .push_bind(embedding.map(|position| position.offset as i64))
            .push_bind(put.stored.vector.as_slice())
            .push_bind(i64::from(put.row.tokens))
            .push_bind(put.row.sequence as i64);
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
