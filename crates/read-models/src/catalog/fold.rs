//! The fold of `ml.entity.changed.v1`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use carbon_core::EntityKey;
use carbon_schemas::events::EntityChanged;
use carbon_schemas::{Decoded, Recorded};
use carbon_store::{Dialect, Folded, QueryBuilder, Table, Tables};

use super::queries::ItemState;
use super::tables;
use crate::projection::{FoldError, Projection};

/// The fold of `ml.entity.changed.v1` into `search_items`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Catalog;

#[async_trait]
impl Projection for Catalog {
    const NAME: &'static str = "catalog";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = tables::TABLES;
    type Record = Recorded<EntityChanged>;
    type Commits = ();

    fn canonical(_: Dialect) -> Vec<String> {
        tables::CANONICAL.iter().map(|sql| (*sql).to_owned()).collect()
    }

    async fn apply<'t>(
        &self,
        mut tables: Tables<'t>,
        batch: &[Recorded<EntityChanged>],
    ) -> Result<Folded<'t>, FoldError> {
        // The topic is compacted: only the last record of a key is written (law 6). In key order, so that neighbours in
        // the index are written together.
        let mut last: BTreeMap<&EntityKey, &Recorded<EntityChanged>> = BTreeMap::new();
        for record in batch {
            match &record.body {
                Decoded::Event { key, .. } | Decoded::Null { key } | Decoded::Quarantined { key, .. } => {
                    last.insert(key, record);
                }
                Decoded::Rejected { .. } => {}
            }
        }
        let (mut rows, mut erased) = (Vec::new(), Vec::new());
        for (key, record) in last {
            match &record.body {
                Decoded::Event { event, .. } => rows.push(Row::of(key, record, event)?),
                Decoded::Quarantined { .. } => rows.push(Row::empty(key, record, ItemState::Quarantined)),
                Decoded::Null { .. } => erased.push(key),
                Decoded::Rejected { .. } => {}
            }
        }
        write(&mut tables, &rows).await?;
        erase(&mut tables, &erased).await?;
        Ok(tables.folded())
    }
}

struct Row<'a> {
    key: &'a EntityKey,
    record: &'a Recorded<EntityChanged>,
    text: &'a str,
    tags: String,
    metadata: String,
    state: ItemState,
}

impl<'a> Row<'a> {
    fn of(
        key: &'a EntityKey,
        record: &'a Recorded<EntityChanged>,
        event: &'a EntityChanged,
    ) -> Result<Self, FoldError> {
        if event.deleted {
            return Ok(Self::empty(key, record, ItemState::Deleted));
        }
        let (tags, metadata) = (serde_json::to_string(&event.tags)?, serde_json::to_string(&event.metadata)?);
        Ok(Self { key, record, text: &event.text, tags, metadata, state: ItemState::Live })
    }

    /// A row without text, tags and metadata.
    fn empty(key: &'a EntityKey, record: &'a Recorded<EntityChanged>, state: ItemState) -> Self {
        Self { key, record, text: "", tags: "[]".into(), metadata: "{}".into(), state }
    }
}

async fn write(tables: &mut Tables<'_>, rows: &[Row<'_>]) -> Result<(), FoldError> {
    for chunk in rows.chunks(500) {
        let mut insert = QueryBuilder::new(
            tables.dialect(),
            "INSERT INTO search_items (tenant_id, entity_type, entity_id, text, tags, metadata, updated_at, partition, \"offset\", state) ",
        );
        insert.push_values(chunk, |mut bind, row| {
            bind.push_bind(row.key.tenant.as_str())
                .push_bind(row.key.entity_type.as_str())
                .push_bind(row.key.entity_id.as_str())
                .push_bind(row.text)
                .push_bind(row.tags.as_str())
                .push_bind(row.metadata.as_str())
                .push_bind(row.record.timestamp.0)
                .push_bind(i64::from(row.record.position.partition))
                .push_bind(row.record.position.offset as i64)
                .push_bind(row.state.as_str());
        });
        insert.push(
            " ON CONFLICT (tenant_id, entity_type, entity_id) DO UPDATE SET text = excluded.text, tags = excluded.tags, \
             metadata = excluded.metadata, updated_at = excluded.updated_at, partition = excluded.partition, \
             \"offset\" = excluded.\"offset\", state = excluded.state WHERE excluded.\"offset\" >= search_items.\"offset\"",
        );
        insert.build().execute(tables.connection()).await?;
    }
    Ok(())
}

async fn erase(tables: &mut Tables<'_>, keys: &[&EntityKey]) -> Result<(), FoldError> {
    for chunk in keys.chunks(500) {
        let mut delete = QueryBuilder::new(
            tables.dialect(),
            "DELETE FROM search_items WHERE (tenant_id, entity_type, entity_id) IN (",
        );
        delete.push_values(chunk, |mut bind, key| {
            bind.push_bind(key.tenant.as_str()).push_bind(key.entity_type.as_str()).push_bind(key.entity_id.as_str());
        });
        delete.push(")").build().execute(tables.connection()).await?;
    }
    Ok(())
}
