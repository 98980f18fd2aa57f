//! The documents of an index, and the operations that change it.

use carbon_core::{EntityKey, Metadata, Position, Timestamp};

/// An entity in the index: a snapshot of its record.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub key: EntityKey,
    pub text: String,
    pub metadata: Metadata,
    pub tags: Vec<String>,
    pub updated_at: Timestamp,
    /// Position of the entity's record. An op with an older position of the same partition does not overwrite the row.
    pub source: Position,
    /// Position of the embedding's record.
    pub embedding: Option<Position>,
}

/// An operation on an index: upsert, delete or erase one entity.
#[derive(Clone, Debug)]
pub struct IndexOp {
    /// Position of the entity's record that caused the op.
    pub source: Position,
    pub kind: OpKind,
}

/// The kind of an [`IndexOp`], with its content.
#[derive(Clone, Debug)]
pub enum OpKind {
    /// `vector` has the generation's dimension. Its length need not be 1.
    Upsert { document: Document, vector: Vec<f32> },
    /// Deletes the row. A tombstone keeps the source position and fences older ops.
    Delete { key: EntityKey },
    /// Erasure on request. The index treats it as a delete.
    Erase { key: EntityKey },
}

impl IndexOp {
    /// An upsert whose source position is `document.source`.
    pub fn upsert(document: Document, vector: Vec<f32>) -> Self {
        Self { source: document.source.clone(), kind: OpKind::Upsert { document, vector } }
    }

    pub fn delete(key: EntityKey, source: Position) -> Self {
        Self { source, kind: OpKind::Delete { key } }
    }

    pub fn erase(key: EntityKey, source: Position) -> Self {
        Self { source, kind: OpKind::Erase { key } }
    }

    pub fn key(&self) -> &EntityKey {
        match &self.kind {
            OpKind::Upsert { document, .. } => &document.key,
            OpKind::Delete { key } | OpKind::Erase { key } => key,
        }
    }
}

/// True if an op at `new` must not overwrite a row written by an op at `old`. Positions of different partitions have no
/// order: the op that arrives later wins.
pub(crate) fn is_fenced(new: &Position, old: &Position) -> bool {
    new.topic == old.topic && new.partition == old.partition && new.offset < old.offset
}

/// Keeps one op per entity, in order of arrival: the last op that is not older than the one before.
pub(crate) fn deduplicate(ops: Vec<IndexOp>) -> Vec<IndexOp> {
    let mut seen = std::collections::HashMap::<EntityKey, usize>::with_capacity(ops.len());
    let mut kept: Vec<IndexOp> = Vec::with_capacity(ops.len());
    for op in ops {
        match seen.entry(op.key().clone()) {
            std::collections::hash_map::Entry::Occupied(at) => {
                let before = &mut kept[*at.get()];
                if !is_fenced(&op.source, &before.source) {
                    *before = op;
                }
            }
            std::collections::hash_map::Entry::Vacant(at) => {
                at.insert(kept.len());
                kept.push(op);
            }
        }
    }
    kept
}
