//! One score from two.
//!
//! *Weighted* is a convex combination: each half's scores are divided by the best of that half
//! (the dense half's by at least [`DENSE_FLOOR`]), and a document's true score counts in both halves, whichever brought it. *Reciprocal rank
//! fusion* (Cormack, Clarke and Büttcher 2009, k = 60) uses ranks alone; it is scaled so that
//! rank 1 in every half that takes part is 1. A search of one half uses that half alone: dense
//! is the cosine itself, lexical is BM25 divided by the best.

use serde::{Deserialize, Serialize};

use crate::index::Hit;
use crate::plan::{Mode, Plan};

/// The constant of reciprocal rank fusion.
pub const RRF_K: u32 = 60;

/// How two halves become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fusion {
    #[default]
    Weighted,
    Rrf,
}

/// The cosine below which a list's best is no match, and is not stretched to 1: the nearest of
/// many texts to an identifier or to nonsense has a cosine of 0.2, and would drown the lexical half.
pub const DENSE_FLOOR: f32 = 0.5;

/// The fused score of each hit, in their order. Never NaN.
pub fn fuse(plan: &Plan, hits: &[Hit]) -> Vec<f32> {
    let best_dense = best(hits.iter().map(|hit| clamped(hit.dense))).max(DENSE_FLOOR);
    let best_lexical = best(hits.iter().map(|hit| clamped(hit.lexical)));
    let lexical = |hit: &Hit| share(clamped(hit.lexical), best_lexical);
    let fused = |hit: &Hit| match (plan.mode, plan.fusion) {
        (Mode::Dense, _) => hit.dense.filter(|cosine| cosine.is_finite()).unwrap_or(0.0),
        (Mode::Lexical, _) => lexical(hit),
        (Mode::Hybrid, Fusion::Weighted) => {
            let dense = share(clamped(hit.dense), best_dense);
            plan.dense_weight * dense + (1.0 - plan.dense_weight) * lexical(hit)
        }
        (Mode::Hybrid, Fusion::Rrf) => reciprocal_rank(&[hit.dense_rank, hit.lexical_rank]),
    };
    hits.iter().map(fused).collect()
}

/// The sum of `1 / (k + rank)` over the halves, divided by what rank 1 in all of them gives.
pub fn reciprocal_rank(ranks: &[Option<u32>]) -> f32 {
    let k = f64::from(RRF_K);
    let sum: f64 = ranks.iter().flatten().map(|rank| 1.0 / (k + f64::from(*rank))).sum();
    (sum * (k + 1.0) / ranks.len().max(1) as f64) as f32
}

fn clamped(score: Option<f32>) -> f32 {
    // `max` also turns NaN into 0.
    score.unwrap_or(0.0).max(0.0)
}

fn best(scores: impl Iterator<Item = f32>) -> f32 {
    scores.fold(0.0, f32::max)
}

fn share(score: f32, best: f32) -> f32 {
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
    fn weighted_divides_by_the_best_and_counts_true_scores() {
        let hits = [hit("a", Some(0.8), Some(2.0)), hit("b", Some(0.4), Some(8.0)), hit("c", Some(-0.3), None)];
        let fused = fuse(&plan(Fusion::Weighted, Mode::Hybrid), &hits);
        assert_eq!(fused, [0.75 + 0.25 * 0.25, 0.75 * 0.5 + 0.25, 0.0]);
        assert_eq!(fuse(&plan(Fusion::Weighted, Mode::Dense), &hits), [0.8, 0.4, -0.3]);
        assert_eq!(fuse(&plan(Fusion::Weighted, Mode::Lexical), &hits), [0.25, 1.0, 0.0]);
    }

    #[test]
    fn a_list_of_strangers_does_not_drown_an_exact_word() {
        let hits = [hit("stranger", Some(0.22), None), hit("balmo", Some(0.12), Some(9.0))];
        let request = SearchRequest { query: "balmo".into(), ..Default::default() };
        let fused = fuse(&request.plan().unwrap(), &hits);
        assert!(fused[1] > fused[0], "{fused:?}");
    }

    #[test]
    fn reciprocal_ranks_have_their_known_values() {
        assert_eq!(reciprocal_rank(&[Some(1), Some(1)]), 1.0);
        assert_eq!(reciprocal_rank(&[Some(1), None]), 0.5);
        assert!((reciprocal_rank(&[Some(3), Some(10)]) - (1.0 / 63.0 + 1.0 / 70.0) * 61.0 / 2.0).abs() < 1e-6);
        assert_eq!(reciprocal_rank(&[]), 0.0);
    }

    proptest::proptest! {
        #[test]
        fn weighted_is_never_nan_and_lies_within_0_and_1(
            scores in proptest::collection::vec((proptest::option::of(-1.0f32..1.0), proptest::option::of(0.0f32..30.0)), 0..20),
        ) {
            let hits: Vec<Hit> = scores.iter().map(|(d, l)| hit("x", *d, *l)).collect();
            for score in fuse(&plan(Fusion::Weighted, Mode::Hybrid), &hits) {
                proptest::prop_assert!((0.0..=1.0001).contains(&score));
            }
        }
    }

    #[test]
    fn nan_scores_count_as_nothing() {
        let hits = [hit("a", Some(f32::NAN), Some(f32::NAN))];
        assert_eq!(fuse(&plan(Fusion::Weighted, Mode::Hybrid), &hits), [0.0]);
    }
}
