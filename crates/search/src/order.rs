//! The order of results. It is total: the same candidates are always returned in the same order.

use std::cmp::Ordering;

use carbon_core::EntityKey;

/// Compares results: higher scores first, ties by (type, id).
pub(crate) fn compare_by_score(a: (f32, &EntityKey), b: (f32, &EntityKey)) -> Ordering {
    // Adding 0.0 turns -0.0 into 0.0: `total_cmp` distinguishes the two.
    let scores = (b.0 + 0.0).total_cmp(&(a.0 + 0.0));
    scores.then_with(|| (&a.1.entity_type, &a.1.entity_id).cmp(&(&b.1.entity_type, &b.1.entity_id)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
pub(crate) mod testing {
    use std::sync::Arc;

    use carbon_core::{EntityKey, Position, Timestamp, TopicName};

    use crate::index::Hit;
    use crate::types::Document;

    /// A hit of tenant `t` with the given id and scores.
    pub(crate) fn hit(id: &str, dense: Option<f32>, lexical: Option<f32>) -> Hit {
        let document = Document {
            key: EntityKey::parse("t", "instrument", id).unwrap(),
            text: String::new(),
            metadata: Default::default(),
            tags: Vec::new(),
            updated_at: Timestamp(0),
            source: Position::new(TopicName::parse("ml.entity.changed.v1").unwrap(), 0, 0),
            embedding: None,
        };
        Hit { document: Arc::new(document), dense, lexical, dense_rank: None, lexical_rank: None }
    }
}
