//! The explanation of a result's score: ranks, scores, boosts and source positions.

use carbon_core::Position;
use serde::{Serialize, Serializer};

use crate::boost::Boosted;
use crate::fuse::{Fusion, RRF_K};
use crate::index::Hit;

/// How the score of a result came about; part of a search's answer when `debug` is set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explain {
    /// Rank in the dense candidates, from 1; null if the dense retriever did not return the document.
    pub semantic_rank: Option<u32>,
    /// Rank in the lexical candidates, from 1; null if the lexical retriever did not return the document.
    pub lexical_rank: Option<u32>,
    /// Cosine similarity to the query's vector, -1 to 1.
    pub semantic_score: Option<f32>,
    /// BM25 with the tenant's own statistics; not bounded above.
    pub lexical_score: Option<f32>,
    /// The fused score before boosts.
    pub fused_score: f32,
    pub fusion: Fusion,
    /// The constant `k` of reciprocal rank fusion; null under another fusion.
    pub k: Option<u32>,
    pub boosts: Boosted,
    pub positions: ExplainPositions,
}

/// The source positions of a result: the records that it was derived from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainPositions {
    #[serde(serialize_with = "serialize_position")]
    pub entity: Option<Position>,
    #[serde(serialize_with = "serialize_position")]
    pub embedding: Option<Position>,
}

fn serialize_position<S: Serializer>(position: &Option<Position>, serializer: S) -> Result<S::Ok, S::Error> {
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
