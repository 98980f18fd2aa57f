pub(super) const DDL: &str = "
CREATE TABLE IF NOT EXISTS dead_letters (
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    \"offset\" INTEGER NOT NULL,
    tenant_id TEXT,
    processor TEXT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    key BLOB,
    payload BLOB,
    payload_truncated INTEGER NOT NULL,
    occurred_at INTEGER NOT NULL,
    reported_at INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'redriven', 'dropped')),
    PRIMARY KEY (topic, partition, \"offset\")
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS dead_letters_state ON dead_letters (state, reason);
";

pub(super) const CANONICAL: &[&str] = &[
    "SELECT topic, partition, \"offset\", tenant_id, processor, reason, message, key, payload, payload_truncated, occurred_at, \
     reported_at, state FROM dead_letters ORDER BY topic, partition, \"offset\"",
];
