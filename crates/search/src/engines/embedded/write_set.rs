//! The write set of a batch: the row changes that its ops cause, given the current rows and tombstones.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use carbon_core::{EntityKey, Position, TenantId};

use super::row_table::{Row, RowTable};
use super::vectors::normalised;
use crate::analyze::count_document_terms;
use crate::error::IndexError;
use crate::index::Applied;
use crate::types::{Document, IndexOp, OpKind, is_fenced};

/// An op with its vector normalised, its terms counted and its columns encoded: the work that needs no lock.
pub(super) struct PreparedOp {
    pub key: EntityKey,
    source: Position,
    /// `None` for a delete.
    content: Option<UpsertContent>,
}

/// The new content of the row of an upsert.
struct UpsertContent {
    document: Document,
    /// Number of terms.
    tokens: u32,
    /// Of unit length.
    vector: Vec<f32>,
    stored: EncodedColumns,
}

/// The encoded columns of a row: metadata and tags as JSON, the vector as little-endian f32.
pub(super) struct EncodedColumns {
    pub metadata: String,
    pub tags: String,
    pub vector: Vec<u8>,
}

/// A row to insert or overwrite.
pub(super) struct RowUpsert {
    pub number: u32,
    pub row: Arc<Row>,
    pub stored: EncodedColumns,
}

/// A delete: it writes a tombstone, and deletes row `number` if there is one.
pub(super) struct RowDelete {
    pub key: EntityKey,
    pub source: Position,
    pub number: Option<u32>,
}

/// The changes that one transaction writes.
#[derive(Default)]
pub(super) struct WriteSet {
    /// The sequence of the transaction: one more than that of the rows.
    pub sequence: u64,
    /// The first unused row number after the transaction.
    pub next_number: u64,
    pub upserts: Vec<RowUpsert>,
    pub deletes: Vec<RowDelete>,
    /// Entities that have a tombstone and are upserted again: their tombstones are deleted.
    pub revived: Vec<EntityKey>,
    /// The new counts of each tenant with an op: documents and tokens.
    pub tenants: BTreeMap<TenantId, (u64, u64)>,
    pub applied: Applied,
}

impl PreparedOp {
    /// Prepares an op.
    pub fn of(op: IndexOp) -> Self {
        let key = op.key().clone();
        let OpKind::Upsert { document, vector } = op.kind else {
            return Self { key, source: op.source, content: None };
        };
        let stored = EncodedColumns {
            // JSON has no NaN: it becomes null, which is read as NaN.
            metadata: serde_json::to_string(&document.metadata).unwrap_or_default(),
            tags: serde_json::to_string(&document.tags).unwrap_or_default(),
            vector: vector.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        let tokens = count_document_terms(key.entity_id.as_str(), &document.text);
        let content = UpsertContent { document, tokens, vector: normalised(vector), stored };
        Self { key, source: op.source, content: Some(content) }
    }
}

impl WriteSet {
    /// Folds ops, one per entity, over the rows and the tombstones of their entities. Drops ops that are fenced. Fails
    /// with [`IndexError::Full`] if the row numbers are used up.
    pub fn fold(
        table: &RowTable,
        tombstones: &HashMap<EntityKey, Position>,
        next_number: u64,
        ops: Vec<PreparedOp>,
    ) -> Result<Self, IndexError> {
        let mut write_set = Self { sequence: table.sequence + 1, next_number, ..Self::default() };
        for op in ops {
            let number = table.find(&op.key);
            let before = number.and_then(|number| table.row(number));
            let tombstone = tombstones.get(&op.key);
            let fence = before.map(|row| &row.document.source).or(tombstone);
            if fence.is_some_and(|fence| is_fenced(&op.source, fence)) {
                write_set.applied.fenced += 1;
                continue;
            }
            let counts = write_set.tenants.entry(op.key.tenant.clone()).or_insert_with(|| {
                table.tenants.get(&op.key.tenant).map_or((0, 0), |tenant| (tenant.documents(), tenant.tokens))
            });
            if let Some(row) = before {
                *counts = (counts.0.saturating_sub(1), counts.1.saturating_sub(u64::from(row.tokens)));
            }
            let Some(content) = op.content else {
                write_set.applied.deletes += 1;
                write_set.deletes.push(RowDelete { key: op.key, source: op.source, number });
                continue;
            };
            write_set.applied.upserts += 1;
            *counts = (counts.0 + 1, counts.1 + u64::from(content.tokens));
            if tombstone.is_some() {
                write_set.revived.push(op.key);
            }
            let number = match number {
                Some(number) => number,
                None => {
                    write_set.next_number += 1;
                    // `u32::MAX` marks a tantivy document without a row.
                    u32::try_from(write_set.next_number - 1).ok().filter(|n| *n < u32::MAX).ok_or(IndexError::Full)?
                }
            };
            // Later ops are compared with the position of this op.
            let document = Document { source: op.source, ..content.document };
            let row = Row {
                document: Arc::new(document),
                vector: content.vector.into_boxed_slice(),
                sequence: write_set.sequence,
                tokens: content.tokens,
            };
            write_set.upserts.push(RowUpsert { number, row: Arc::new(row), stored: content.stored });
        }
        Ok(write_set)
    }

    /// True if a row changes. A tombstone alone changes no row.
    pub fn changes_rows(&self) -> bool {
        !self.upserts.is_empty() || self.deletes.iter().any(|delete| delete.number.is_some())
    }
}
