//! Runs a search: queries the index, fuses and boosts the scores, applies the threshold, sorts, and cuts the page.

use std::time::Instant;

use carbon_core::{EntityKey, GenerationId, Metadata, TenantScope};
use serde::Serialize;

use crate::boost::{Boosted, Boosts};
use crate::error::SearchError;
use crate::explain::Explain;
use crate::filter::Filter;
use crate::fuse::{Fusion, fuse};
use crate::index::{Hit, HybridIndex, Retrieval};
use crate::order::compare_by_score;
use crate::plan::{Plan, retrieval_depth};

/// A result of a search, as the API returns it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SearchResult {
    pub entity_type: String,
    pub entity_id: String,
    /// The fused score plus boosts; of a search for similar entities, the cosine.
    pub score: f32,
    pub text: String,
    pub metadata: Metadata,
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explain: Option<Explain>,
}

/// One page of results.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SearchResults {
    pub results: Vec<SearchResult>,
    /// Number of candidates that reach the threshold, on all pages. At most twice the plan's depth.
    pub total: usize,
}

/// Runs a plan on a generation. `vector` is the query's vector, encoded by the generation's model (law 8). A plan
/// without a dense retriever ignores it; otherwise it is required.
pub async fn search(
    index: &dyn HybridIndex,
    generation: &GenerationId,
    scope: &TenantScope,
    plan: &Plan,
    vector: Option<Vec<f32>>,
) -> Result<SearchResults, SearchError> {
    let vector = if plan.mode.dense() { Some(vector.ok_or(SearchError::NoVector)?) } else { None };
    let retrieval = Retrieval {
        text: plan.query.clone(),
        lexical: plan.mode.lexical(),
        vector,
        filter: plan.filter.clone(),
        depth: plan.depth,
    };
    let retrieved = index.query(generation, scope, &retrieval).await?;
    let merging = Instant::now();
    let dense_hits = retrieved.hits.iter().filter(|hit| hit.dense_rank.is_some()).count();
    metrics::histogram!("vector_hits_per_query").record(dense_hits as f64);
    let boosts = Boosts::of(&plan.query);
    let fused = fuse(plan, &retrieved.hits);
    let ranked = retrieved.hits.into_iter().zip(fused).map(|(hit, fused)| {
        let boosted = boosts.for_document(&hit.document);
        Ranked { score: fused + boosted.values().sum::<f32>(), fused, boosted, hit }
    });
    let explain = plan.explain.then_some(plan.fusion);
    let results = page(ranked.collect(), plan.threshold, plan.offset, plan.limit, explain);
    metrics::histogram!("hybrid_merge_time_ms").record(merging.elapsed().as_secs_f64() * 1e3);
    Ok(results)
}

/// Returns the nearest neighbours of a stored entity by its vector, without the entity itself.
pub async fn similar(
    index: &dyn HybridIndex,
    generation: &GenerationId,
    scope: &TenantScope,
    key: &EntityKey,
    filter: Filter,
    limit: usize,
) -> Result<SearchResults, SearchError> {
    // One candidate more than `limit`: the entity itself is among them.
    let depth = retrieval_depth(limit, 1)?;
    let vector = index.vector(generation, scope, key).await?.ok_or_else(|| SearchError::NotFound(key.clone()))?;
    let retrieval = Retrieval { vector: Some(vector), filter, depth, ..Default::default() };
    let mut hits = index.query(generation, scope, &retrieval).await?.hits;
    hits.retain(|hit| hit.document.key != *key);
    let ranked = hits.into_iter().map(|hit| {
        let score = hit.dense.unwrap_or(0.0);
        Ranked { score, fused: score, boosted: Boosted::new(), hit }
    });
    Ok(page(ranked.collect(), f32::NEG_INFINITY, 0, limit, None))
}

/// A hit with its final and its fused score.
struct Ranked {
    score: f32,
    fused: f32,
    boosted: Boosted,
    hit: Hit,
}

/// Drops hits below the threshold, sorts the others, and returns the page `offset..offset + limit`. `explain` names the
/// fusion if each result is to be explained.
fn page(
    mut ranked: Vec<Ranked>,
    threshold: f32,
    offset: usize,
    limit: usize,
    explain: Option<Fusion>,
) -> SearchResults {
    ranked.retain(|ranked| ranked.score >= threshold);
    ranked.sort_unstable_by(|a, b| compare_by_score((a.score, &a.hit.document.key), (b.score, &b.hit.document.key)));
    let total = ranked.len();
    let results = ranked.into_iter().skip(offset).take(limit).map(|ranked| {
        let document = &ranked.hit.document;
        SearchResult {
            entity_type: document.key.entity_type.as_str().to_owned(),
            entity_id: document.key.entity_id.as_str().to_owned(),
            score: ranked.score,
            text: document.text.clone(),
            metadata: document.metadata.clone(),
            tags: document.tags.clone(),
            explain: explain.map(|fusion| Explain::of(&ranked.hit, ranked.fused, fusion, ranked.boosted)),
        }
    });
    SearchResults { results: results.collect(), total }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::order::testing::hit;

    fn ranked(rows: &[(u8, f32)]) -> Vec<Ranked> {
        let row = |(id, score): &(u8, f32)| Ranked {
            score: *score,
            fused: *score,
            boosted: Boosted::new(),
            hit: hit(&format!("e{id}"), None, None),
        };
        rows.iter().map(row).collect()
    }

    fn ids(results: &SearchResults) -> Vec<&str> {
        results.results.iter().map(|result| result.entity_id.as_str()).collect()
    }

    #[test]
    fn ties_are_ordered_by_id_and_total_counts_all_pages() {
        let rows = ranked(&[(3, 0.5), (1, 0.5), (2, 0.9), (4, 0.1)]);
        let results = page(rows, 0.2, 1, 1, None);
        assert_eq!((ids(&results), results.total), (vec!["e1"], 3));
    }

    proptest::proptest! {
        #[test]
        fn the_order_of_results_does_not_depend_on_the_order_of_hits(
            scores in proptest::collection::vec(proptest::sample::select(vec![0.0f32, -0.0, 0.25, 0.5]), 1..30),
            seed in 0usize..1000,
        ) {
            let rows: Vec<(u8, f32)> = scores.iter().enumerate().map(|(n, s)| (n as u8, *s)).collect();
            let mut shuffled = rows.clone();
            shuffled.sort_by_key(|(id, _)| (usize::from(*id) * 7919 + seed * 104_729) % 1009);
            let (a, b) = (page(ranked(&rows), -1.0, 0, 100, None), page(ranked(&shuffled), -1.0, 0, 100, None));
            proptest::prop_assert_eq!(ids(&a), ids(&b));
        }
    }
}
