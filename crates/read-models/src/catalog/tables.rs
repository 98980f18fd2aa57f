//! The tables of the catalog. `topic`, `partition` and `offset` say which record made a row: an older one
//! never overwrites a newer (law 4). Rows lie in the order in which they came, and the key in an index of its own:
//! kept in key order, a fill would write each page of texts again for every partition.

pub(super) const DDL: &str = "
CREATE TABLE IF NOT EXISTS search_items (
    tenant_id TEXT NOT NULL,
    entity_type TEXT NOT NULL,
    entity_id TEXT NOT NULL,
    text TEXT NOT NULL,
    tags TEXT NOT NULL,
    metadata TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    \"offset\" INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('live', 'deleted', 'quarantined')),
    PRIMARY KEY (tenant_id, entity_type, entity_id)
);
";

pub(super) const CANONICAL: &[&str] =
    &["SELECT tenant_id, entity_type, entity_id, text, tags, metadata, updated_at, partition, \"offset\", state \
     FROM search_items ORDER BY tenant_id, entity_type, entity_id"];
