//! The table of the catalog. `partition` and `offset` are the position of the record that wrote a row: an older record
//! never overwrites a newer one (law 4). The table is not clustered by its key: in key order, a fill would write each
//! page of texts again for every partition.

use carbon_store::{Column, Table};

pub(super) const TABLES: &[Table] = &[Table::new(
    "search_items",
    &[
        Column::text("tenant_id"),
        Column::text("entity_type"),
        Column::text("entity_id"),
        Column::text("text"),
        Column::text("tags"),
        Column::text("metadata"),
        Column::int("updated_at"),
        Column::int("partition"),
        Column::int("offset"),
        Column::text("state").check("state IN ('live', 'deleted', 'quarantined')"),
    ],
    &["tenant_id", "entity_type", "entity_id"],
)];

/// Statements that return all rows, each in key order.
pub(super) const CANONICAL: &[&str] =
    &["SELECT tenant_id, entity_type, entity_id, text, tags, metadata, updated_at, partition, \"offset\", state \
     FROM search_items ORDER BY tenant_id, entity_type, entity_id"];
