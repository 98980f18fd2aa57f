//! What an index holds and what changes it.

use carbon_core::{EntityKey, Metadata, Position, Timestamp};

/// An entity as the index knows it: a snapshot of its record.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub key: EntityKey,
    pub text: String,
    pub metadata: Metadata,
    pub tags: Vec<String>,
    pub updated_at: Timestamp,
    /// Where the entity's record lies: what fences this row.
    pub source: Position,
    /// Where the record of its embedding lies.
    pub embedding: Option<Position>,
}

/// One change of an index.
#[derive(Clone, Debug)]
pub struct IndexOp {
    /// The position of the entity's record that made it.
    pub source: Position,
    pub kind: OpKind,
}

#[derive(Clone, Debug)]
pub enum OpKind {
    Upsert {
        document: Document,
        vector: Vec<f32>,
    },
    /// The entity is gone; a tombstone fences what is older.
    Delete {
        key: EntityKey,
    },
    /// The entity was erased; to the index the same as a delete.
    Erase {
        key: EntityKey,
    },
}

impl IndexOp {
    /// The position of the document fences the row.
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

/// Whether what was made by `new` may not replace what was made by `old`. Positions of
/// different partitions have no order, and then the later to arrive stands.
pub(crate) fn fenced(new: &Position, old: &Position) -> bool {
    new.topic == old.topic && new.partition == old.partition && new.offset < old.offset
}

/// One op for each entity, in order of arrival: the last, unless it is older than the one before.
pub(crate) fn deduplicate(ops: Vec<IndexOp>) -> Vec<IndexOp> {
    let mut seen = std::collections::HashMap::<EntityKey, usize>::with_capacity(ops.len());
    let mut kept: Vec<IndexOp> = Vec::with_capacity(ops.len());
    for op in ops {
        match seen.entry(op.key().clone()) {
            std::collections::hash_map::Entry::Occupied(at) => {
                let before = &mut kept[*at.get()];
                if !fenced(&op.source, &before.source) {
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
