//! The table of dead letters.

use carbon_store::IndexColumn::Asc;
use carbon_store::{Column, Index, Table};

pub(super) const TABLES: &[Table] = &[Table::new(
    "dead_letters",
    &[
        Column::text("topic"),
        Column::int("partition"),
        Column::int("offset"),
        Column::text("tenant_id").nullable(),
        Column::text("processor"),
        Column::text("reason"),
        Column::text("message"),
        Column::bytes("key").nullable(),
        Column::bytes("payload").nullable(),
        Column::int("payload_truncated"),
        Column::int("occurred_at"),
        Column::int("reported_at"),
        Column::text("state").check("state IN ('open', 'redriven', 'dropped')"),
    ],
    &["topic", "partition", "offset"],
)
.clustered()
.indexes(&[Index::new("dead_letters_state", &[Asc("state"), Asc("reason")])])];

/// Statements that return all rows, each in key order.
pub(super) const CANONICAL: &[&str] = &[
    "SELECT topic, partition, \"offset\", tenant_id, processor, reason, message, key, payload, payload_truncated, occurred_at, \
     reported_at, state FROM dead_letters ORDER BY topic, partition, \"offset\"",
];
