//! Why a result stands where it stands.

use carbon_core::Position;
use serde::{Serialize, Serializer};

use crate::boost::Boosted;
use crate::fuse::{Fusion, RRF_K};
use crate::index::Hit;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explain {
    pub semantic_rank: Option<u32>,
    pub lexical_rank: Option<u32>,
    /// The cosine.
    pub semantic_score: Option<f32>,
    /// BM25 by the tenant's own statistics.
    pub lexical_score: Option<f32>,
    /// Before boosts.
    pub fused_score: f32,
    pub fusion: Fusion,
    /// Of reciprocal rank fusion; null under another fusion.
    pub k: Option<u32>,
    pub boosts: Boosted,
    pub positions: ExplainPositions,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainPositions {
    #[serde(serialize_with = "shown")]
    pub entity: Option<Position>,
    #[serde(serialize_with = "shown")]
    pub embedding: Option<Position>,
}

fn shown<S: Serializer>(position: &Option<Position>, serializer: S) -> Result<S::Ok, S::Error> {
    match position {
        Some(position) => serializer.collect_str(position),
        None => serializer.serialize_none(),
    }
}

impl Explain {
    pub(crate) fn of(hit: &Hit, fused_score: f32, fusion: Fusion, boosts: Boosted) -> Self {
        Self {
            semantic_rank: hit.dense_rank,
            lexical_rank: hit.lexical_rank,
            semantic_score: hit.dense,
            lexical_score: hit.lexical,
            fused_score,
            fusion,
            k: (fusion == Fusion::Rrf).then_some(RRF_K),
            boosts,
            positions: ExplainPositions {
                entity: Some(hit.document.source.clone()),
                embedding: hit.document.embedding.clone(),
            },
        }
    }
}
