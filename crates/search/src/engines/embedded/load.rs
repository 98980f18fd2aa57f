//! Reads `rows.db`: all rows when a generation is opened, pages of rows for verification.

use std::collections::BTreeMap;
use std::sync::Arc;

use carbon_core::{EntityKey, Metadata, MetadataValue, Position, Positions, Timestamp, TopicPartition};
use carbon_store::{SqliteNamespace, StoreError};
use futures::TryStreamExt;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use super::row_table::{Row, RowTable};
use super::schema::COLUMNS;
use super::vectors::normalised;
use super::write::position;
use crate::error::IndexError;
use crate::index::{GenerationSpec, StoredRow};
use crate::types::Document;

/// Number of ranges of row numbers that are read concurrently.
const RANGES: i64 = 3;

/// The content of `rows.db`.
pub(super) struct LoadedRows {
    pub table: RowTable,
    pub incarnation: Uuid,
    /// The first unused row number.
    pub next_number: u64,
    /// Number of tombstones.
    pub tombstones: u64,
    /// Descriptions of the repairs.
    pub repairs: Vec<String>,
}

fn corrupt(reason: impl ToString) -> StoreError {
    StoreError::Corrupt(reason.to_string())
}

/// Loads the file. A new file first gets an incarnation, model and dimension. Fails with [`IndexError::Spec`] if the
/// file has another model or dimension.
pub(super) async fn load(space: &SqliteNamespace, spec: &GenerationSpec) -> Result<LoadedRows, IndexError> {
    let mut tables = space.begin().await?;
    sqlx::query("INSERT INTO meta (id, incarnation, sequence, model, dimension) VALUES (1, $1, 0, $2, $3) ON CONFLICT DO NOTHING")
        .bind(Uuid::new_v4().to_string())
        .bind(spec.model.to_string())
        .bind(spec.dimension as i64)
        .execute(tables.connection())
        .await?;
    tables.commit().await?;

    let readers = space.readers();
    let meta = sqlx::query("SELECT incarnation, sequence, model, dimension FROM meta").fetch_one(readers).await?;
    let (model, dimension): (String, i64) = (meta.try_get(2)?, meta.try_get(3)?);
    let (found, expected) = (format!("{model}/{dimension}"), format!("{}/{}", spec.model, spec.dimension));
    if found != expected {
        return Err(IndexError::Spec { id: spec.id.clone(), found, expected });
    }
    let incarnation = meta.try_get::<String, _>(0)?.parse().map_err(corrupt)?;

    let mut table = RowTable::new(spec.dimension);
    table.sequence = meta.try_get::<i64, _>(1)? as u64;
    table.sources = sources(space).await?;
    let last: i64 =
        sqlx::query_scalar("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'entity_row'), 0)")
            .fetch_one(readers)
            .await?;
    read_rows(space, spec.dimension, last, &mut table).await?;
    let tombstones: i64 = sqlx::query_scalar("SELECT count(*) FROM tombstone").fetch_one(readers).await?;
    let repairs = check_counts(space, &table).await?;
    Ok(LoadedRows { table, incarnation, next_number: last as u64 + 1, tombstones: tombstones as u64, repairs })
}

/// Replaces the incarnation.
pub(super) async fn write_incarnation(space: &SqliteNamespace, incarnation: Uuid) -> Result<(), IndexError> {
    let mut tables = space.begin().await?;
    sqlx::query("UPDATE meta SET incarnation = $1").bind(incarnation.to_string()).execute(tables.connection()).await?;
    Ok(tables.commit().await?)
}

/// Reads the source positions.
async fn sources(space: &SqliteNamespace) -> Result<Positions, IndexError> {
    let mut positions = Positions::new();
    for row in sqlx::query("SELECT topic, partition, next FROM source").fetch_all(space.readers()).await? {
        let at = position(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)?;
        positions.set(TopicPartition::new(at.topic, at.partition), at.offset);
    }
    Ok(positions)
}

/// Reads the rows with numbers up to `last` into `table`.
async fn read_rows(
    space: &SqliteNamespace,
    dimension: usize,
    last: i64,
    table: &mut RowTable,
) -> Result<(), IndexError> {
    let step = last / RANGES + 1;
    let ranges = (0..RANGES).map(|n| {
        let pool = space.readers().clone();
        tokio::spawn(async move {
            let sql = format!("SELECT {COLUMNS} FROM entity_row WHERE number > $1 AND number <= $2 ORDER BY number");
            let query = sqlx::query(AssertSqlSafe(sql)).bind(n * step).bind((n + 1) * step);
            let mut stream = query.fetch(&pool);
            let mut rows = Vec::new();
            while let Some(row) = stream.try_next().await? {
                rows.push(decode(&row, dimension)?);
            }
            Ok::<_, IndexError>(rows)
        })
    });
    for range in ranges.collect::<Vec<_>>() {
        let rows = range.await.map_err(|error| IndexError::Thread(error.to_string()))??;
        for (number, stored, sequence, tokens) in rows {
            let vector = normalised(stored.vector).into_boxed_slice();
            table.put(number, Arc::new(Row { document: Arc::new(stored.document), vector, sequence, tokens }));
        }
    }
    Ok(())
}

/// Returns row number, row, sequence and number of terms.
fn decode(row: &SqliteRow, dimension: usize) -> Result<(u32, StoredRow, u64, u32), IndexError> {
    let number: i64 = row.try_get(0)?;
    let stored = decode_stored(row)?;
    if stored.vector.len() != dimension {
        return Err(corrupt(format!("row {number} has {} dimensions", stored.vector.len())).into());
    }
    let number = u32::try_from(number).map_err(corrupt)?;
    let tokens = u32::try_from(row.try_get::<i64, _>(15)?).map_err(corrupt)?;
    Ok((number, stored, row.try_get::<i64, _>(16)? as u64, tokens))
}

/// Decodes the columns of a row. A metadata value of null is NaN.
fn decode_stored(row: &SqliteRow) -> Result<StoredRow, IndexError> {
    let key = EntityKey::parse(row.try_get(1)?, row.try_get(2)?, row.try_get(3)?).map_err(corrupt)?;
    let metadata: BTreeMap<String, Option<MetadataValue>> = serde_json::from_str(row.try_get(5)?).map_err(corrupt)?;
    let nan = || MetadataValue::Double(f64::NAN);
    let metadata: Metadata = metadata.into_iter().map(|(name, value)| (name, value.unwrap_or_else(nan))).collect();
    let embedding: Option<Position> = match row.try_get::<Option<&str>, _>(11)? {
        Some(topic) => Some(position(topic, row.try_get(12)?, row.try_get(13)?)?),
        None => None,
    };
    let vector: &[u8] = row.try_get(14)?;
    let document = Document {
        key,
        text: row.try_get(4)?,
        metadata,
        tags: serde_json::from_str(row.try_get(6)?).map_err(corrupt)?,
        updated_at: Timestamp(row.try_get(7)?),
        source: position(row.try_get(8)?, row.try_get(9)?, row.try_get(10)?)?,
        embedding,
    };
    let vector = vector.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Ok(StoredRow { document, vector })
}

/// Compares the stored tenant counts with the rows. If they differ, writes the counts of the rows and returns a
/// description of the repair.
async fn check_counts(space: &SqliteNamespace, table: &RowTable) -> Result<Vec<String>, IndexError> {
    let mut stored = BTreeMap::new();
    for row in sqlx::query("SELECT tenant, documents, tokens FROM tenant").fetch_all(space.readers()).await? {
        let counts: (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
        if counts != (0, 0) {
            stored.insert(row.try_get::<String, _>(0)?, (counts.0 as u64, counts.1 as u64));
        }
    }
    let counted: BTreeMap<String, (u64, u64)> =
        table.tenants.iter().map(|(tenant, rows)| (tenant.to_string(), (rows.documents(), rows.tokens))).collect();
    if stored == counted {
        return Ok(Vec::new());
    }
    let mut tables = space.begin().await?;
    sqlx::query("DELETE FROM tenant").execute(tables.connection()).await?;
    for (tenant, (documents, tokens)) in counted {
        sqlx::query("INSERT INTO tenant (tenant, documents, tokens) VALUES ($1, $2, $3)")
            .bind(tenant)
            .bind(documents as i64)
            .bind(tokens as i64)
            .execute(tables.connection())
            .await?;
    }
    tables.commit().await?;
    Ok(vec!["the document and token counts of the tenants differed from the rows and were recomputed".to_owned()])
}

/// At most `limit` rows with keys greater than `after`, in key order.
pub(super) async fn scroll(
    space: &SqliteNamespace,
    after: Option<&EntityKey>,
    limit: usize,
) -> Result<Vec<StoredRow>, IndexError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM entity_row WHERE (tenant, entity_type, entity_id) > ($1, $2, $3)
         ORDER BY tenant, entity_type, entity_id LIMIT $4"
    );
    // Every key sorts after three empty strings.
    let after =
        after.map_or(("", "", ""), |key| (key.tenant.as_str(), key.entity_type.as_str(), key.entity_id.as_str()));
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(after.0)
        .bind(after.1)
        .bind(after.2)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(space.readers())
        .await?;
    rows.iter().map(decode_stored).collect()
}
