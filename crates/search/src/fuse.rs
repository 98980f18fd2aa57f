//! Fusion: one score from the dense and the lexical score of a candidate.
//!
//! - *Weighted* is a convex combination `w * dense + (1 - w) * lexical` of normalised scores. Each retriever's scores
//!   are divided by the highest score among the candidates (for the dense retriever by at least [`DENSE_FLOOR`]). The
//!   exact score of a document counts in both, whichever retriever returned it.
//! - *Reciprocal rank fusion* (Cormack, Clarke and Büttcher 2009) uses ranks only: the sum of `1 / (k + rank)` with
//!   k = 60, scaled so that rank 1 in both retrievers gives 1.
//!
//! A search with one retriever needs no fusion: the dense score is the cosine itself, the lexical score is BM25 divided
//! by the highest.

use serde::{Deserialize, Serialize};

use crate::index::Hit;
use crate::plan::{Mode, Plan};

/// The constant `k` of reciprocal rank fusion, as in Cormack et al. 2009.
pub const RRF_K: u32 = 60;

/// The method that combines the dense and the lexical score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fusion {
    /// Convex combination of normalised scores.
    #[default]
    Weighted,
    /// Reciprocal rank fusion.
    Rrf,
}

/// The smallest divisor of dense scores. If the best cosine is lower, no candidate is a match and the best one is not
/// scaled up to 1: the nearest text to an identifier or to nonsense has a cosine of about 0.2, and would outweigh an
/// exact lexical match.
pub const DENSE_FLOOR: f32 = 0.5;

/// Returns the fused score of each hit, in the order of the hits. Never NaN.
pub fn fuse(plan: &Plan, hits: &[Hit]) -> Vec<f32> {
    let best_dense = best(hits.iter().map(|hit| clamped(hit.dense))).max(DENSE_FLOOR);
    let best_lexical = best(hits.iter().map(|hit| clamped(hit.lexical)));
    let lexical = |hit: &Hit| relative(clamped(hit.lexical), best_lexical);
    let fused = |hit: &Hit| match (plan.mode, plan.fusion) {
        (Mode::Dense, _) => hit.dense.filter(|cosine| cosine.is_finite()).unwrap_or(0.0),
        (Mode::Lexical, _) => lexical(hit),
        (Mode::Hybrid, Fusion::Weighted) => {
            let dense = relative(clamped(hit.dense), best_dense);
            plan.dense_weight * dense + (1.0 - plan.dense_weight) * lexical(hit)
        }
        (Mode::Hybrid, Fusion::Rrf) => reciprocal_rank(&[hit.dense_rank, hit.lexical_rank]),
    };
    hits.iter().map(fused).collect()
}

/// Reciprocal rank fusion (Cormack et al. 2009): the sum of `1 / (k + rank)` over the retrievers, divided by the sum
/// for rank 1 in all of them. `None` is a retriever that did not return the document. From 0 to 1.
pub fn reciprocal_rank(ranks: &[Option<u32>]) -> f32 {
    let k = f64::from(RRF_K);
    let sum: f64 = ranks.iter().flatten().map(|rank| 1.0 / (k + f64::from(*rank))).sum();
    (sum * (k + 1.0) / ranks.len().max(1) as f64) as f32
}

/// The score, with 0 for `None`, negative numbers and NaN.
fn clamped(score: Option<f32>) -> f32 {
    // `f32::max` returns the other operand for NaN.
    score.unwrap_or(0.0).max(0.0)
}

fn best(scores: impl Iterator<Item = f32>) -> f32 {
    scores.fold(0.0, f32::max)
}

/// The score relative to the best score; 0 if there is no finite positive best.
fn relative(score: f32, best: f32) -> f32 {
    if best > 0.0 && best.is_finite() { score / best } else { 0.0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::order::testing::hit;
    use crate::plan::SearchRequest;

    fn plan(fusion: Fusion, mode: Mode) -> Plan {
        let request = SearchRequest {
            query: "q".into(),
            fusion: Some(fusion),
            mode: Some(mode),
            dense_weight: Some(0.75),
            ..Default::default()
        };
        request.plan().unwrap()
    }

    #[test]
    fn weighted_fusion_divides_by_the_best_score_and_uses_the_exact_scores_of_both_retrievers() {
        let hits = [hit("a", Some(0.8), Some(2.0)), hit("b", Some(0.4), Some(8.0)), hit("c", Some(-0.3), None)];
        let fused = fuse(&plan(Fusion::Weighted, Mode::Hybrid), &hits);
        assert_eq!(fused, [0.75 + 0.25 * 0.25, 0.75 * 0.5 + 0.25, 0.0]);
        assert_eq!(fuse(&plan(Fusion::Weighted, Mode::Dense), &hits), [0.8, 0.4, -0.3]);
        assert_eq!(fuse(&plan(Fusion::Weighted, Mode::Lexical), &hits), [0.25, 1.0, 0.0]);
    }

    #[test]
    fn dense_candidates_with_low_cosines_do_not_outrank_an_exact_word() {
        let hits = [hit("unrelated", Some(0.22), None), hit("balmo", Some(0.12), Some(9.0))];
        let request = SearchRequest { query: "balmo".into(), ..Default::default() };
        let fused = fuse(&request.plan().unwrap(), &hits);
        assert!(fused[1] > fused[0], "{fused:?}");
    }

    #[test]
    fn reciprocal_rank_fusion_returns_known_values() {
        assert_eq!(reciprocal_rank(&[Some(1), Some(1)]), 1.0);
        assert_eq!(reciprocal_rank(&[Some(1), None]), 0.5);
        assert!((reciprocal_rank(&[Some(3), Some(10)]) - (1.0 / 63.0 + 1.0 / 70.0) * 61.0 / 2.0).abs() < 1e-6);
        assert_eq!(reciprocal_rank(&[]), 0.0);
    }

    proptest::proptest! {
        #[test]
        fn weighted_fusion_is_from_0_to_1_and_never_nan(
            scores in proptest::collection::vec((proptest::option::of(-1.0f32..1.0), proptest::option::of(0.0f32..30.0)), 0..20),
        ) {
            let hits: Vec<Hit> = scores.iter().map(|(d, l)| hit("x", *d, *l)).collect();
            for score in fuse(&plan(Fusion::Weighted, Mode::Hybrid), &hits) {
                proptest::prop_assert!((0.0..=1.0001).contains(&score));
            }
        }
    }

    #[test]
    fn nan_scores_count_as_0() {
        let hits = [hit("a", Some(f32::NAN), Some(f32::NAN))];
        assert_eq!(fuse(&plan(Fusion::Weighted, Mode::Hybrid), &hits), [0.0]);
    }
}
