//! The SQL schema of a generation's `rows.db`.

/// Version of the schema. A file with another version is rejected.
pub(super) const LAYOUT_VERSION: i64 = 1;

/// The tables. AUTOINCREMENT guarantees that row numbers are never reused: tantivy may still have a document of a
/// deleted row.
pub(super) const DDL: &str = "
CREATE TABLE IF NOT EXISTS entity_row (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL, entity_type TEXT NOT NULL, entity_id TEXT NOT NULL,
    text TEXT NOT NULL, metadata TEXT NOT NULL, tags TEXT NOT NULL, updated_at INTEGER NOT NULL,
    source_topic TEXT NOT NULL, source_partition INTEGER NOT NULL, source_offset INTEGER NOT NULL,
    embedding_topic TEXT, embedding_partition INTEGER, embedding_offset INTEGER,
    vector BLOB NOT NULL, tokens INTEGER NOT NULL, sequence INTEGER NOT NULL,
    UNIQUE (tenant, entity_type, entity_id)
);
CREATE TABLE IF NOT EXISTS tombstone (
    tenant TEXT NOT NULL, entity_type TEXT NOT NULL, entity_id TEXT NOT NULL,
    source_topic TEXT NOT NULL, source_partition INTEGER NOT NULL, source_offset INTEGER NOT NULL,
    number INTEGER, sequence INTEGER NOT NULL,
    PRIMARY KEY (tenant, entity_type, entity_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tenant (
    tenant TEXT PRIMARY KEY, documents INTEGER NOT NULL, tokens INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS source (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (
    id INTEGER PRIMARY KEY CHECK (id = 1), incarnation TEXT NOT NULL, sequence INTEGER NOT NULL,
    model TEXT NOT NULL, dimension INTEGER NOT NULL
);
";

/// The columns of `entity_row`, in the order in which they are read and written.
pub(super) const COLUMNS: &str = "number, tenant, entity_type, entity_id, text, metadata, tags, updated_at, \
    source_topic, source_partition, source_offset, embedding_topic, embedding_partition, embedding_offset, \
    vector, tokens, sequence";
