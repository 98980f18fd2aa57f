//! A batch on its way: what its ops mean for the rows as they stand.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use carbon_core::{EntityKey, Position, TenantId};

use super::data::{Data, Row};
use super::vectors::normalised;
use crate::analyze::count_document_terms;
use crate::error::IndexError;
use crate::index::Applied;
use crate::types::{Document, IndexOp, OpKind, fenced};

/// An op with all done that needs no lock.
pub(super) struct Incoming {
    pub key: EntityKey,
    source: Position,
    content: Option<Content>,
}

struct Content {
    document: Document,
    tokens: u32,
    vector: Vec<f32>,
    stored: Stored,
}

/// What a row holds beyond its document, in the form that SQLite gets.
pub(super) struct Stored {
    pub metadata: String,
    pub tags: String,
    pub vector: Vec<u8>,
}

pub(super) struct Put {
    pub number: u32,
    pub row: Arc<Row>,
    pub stored: Stored,
}

/// A delete or an erasure; `number` is the row that it takes away.
pub(super) struct Removal {
    pub key: EntityKey,
    pub source: Position,
    pub number: Option<u32>,
}

/// What the batch writes.
#[derive(Default)]
pub(super) struct Batch {
    pub sequence: u64,
    pub next_number: u64,
    pub puts: Vec<Put>,
    pub removals: Vec<Removal>,
    /// Entities that come back: their tombstones go.
    pub revived: Vec<EntityKey>,
    /// The counts of each tenant that changes: documents and tokens.
    pub tenants: BTreeMap<TenantId, (u64, u64)>,
    pub applied: Applied,
}

impl Incoming {
    pub fn of(op: IndexOp) -> Self {
        let key = op.key().clone();
        let OpKind::Upsert { document, vector } = op.kind else {
            return Self { key, source: op.source, content: None };
        };
        let stored = Stored {
            // A number that JSON cannot hold becomes null, which is read as NaN.
            metadata: serde_json::to_string(&document.metadata).unwrap_or_default(),
            tags: serde_json::to_string(&document.tags).unwrap_or_default(),
            vector: vector.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        let tokens = count_document_terms(key.entity_id.as_str(), &document.text);
        let content = Content { document, tokens, vector: normalised(vector), stored };
        Self { key, source: op.source, content: Some(content) }
    }
}

impl Batch {
    /// Folds ops, one for each entity, over the rows and the tombstones of their entities.
    pub fn fold(
        data: &Data,
        tombstones: &HashMap<EntityKey, Position>,
        next_number: u64,
        ops: Vec<Incoming>,
    ) -> Result<Self, IndexError> {
        let mut batch = Self { sequence: data.sequence + 1, next_number, ..Self::default() };
        for op in ops {
            let number = data.find(&op.key);
            let before = number.and_then(|number| data.row(number));
            let tombstone = tombstones.get(&op.key);
            let fence = before.map(|row| &row.document.source).or(tombstone);
            if fence.is_some_and(|fence| fenced(&op.source, fence)) {
                batch.applied.fenced += 1;
                continue;
            }
            let counts = batch.tenants.entry(op.key.tenant.clone()).or_insert_with(|| {
                data.tenants.get(&op.key.tenant).map_or((0, 0), |tenant| (tenant.documents(), tenant.tokens))
            });
            if let Some(row) = before {
                *counts = (counts.0.saturating_sub(1), counts.1.saturating_sub(u64::from(row.tokens)));
            }
            let Some(content) = op.content else {
                batch.applied.deletes += 1;
                batch.removals.push(Removal { key: op.key, source: op.source, number });
                continue;
            };
            batch.applied.upserts += 1;
            *counts = (counts.0 + 1, counts.1 + u64::from(content.tokens));
            if tombstone.is_some() {
                batch.revived.push(op.key);
            }
            let number = match number {
                Some(number) => number,
                None => {
                    batch.next_number += 1;
                    // The last number is tantivy's sign for "no row of ours".
                    u32::try_from(batch.next_number - 1).ok().filter(|n| *n < u32::MAX).ok_or(IndexError::Full)?
                }
            };
            // The fence of a row is the position of its op.
            let document = Document { source: op.source, ..content.document };
            let row = Row {
                document: Arc::new(document),
                vector: content.vector.into_boxed_slice(),
                sequence: batch.sequence,
                tokens: content.tokens,
            };
            batch.puts.push(Put { number, row: Arc::new(row), stored: content.stored });
        }
        Ok(batch)
    }

    /// Whether any row changes; a tombstone alone changes none.
    pub fn changes_rows(&self) -> bool {
        !self.puts.is_empty() || self.removals.iter().any(|removal| removal.number.is_some())
    }
}
