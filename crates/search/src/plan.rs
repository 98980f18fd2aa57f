//! The plan of a search: the validated request, with defaults filled in and the number of candidates per retriever.

use carbon_core::{Classify, Fault, Retry};
use serde::{Deserialize, Serialize};

use crate::filter::Filter;
use crate::fuse::Fusion;

/// Weight of the dense score in weighted fusion, from 0 to 1. It has the best quality of 0.5 to 0.8 on the Cranfield
/// collection and on the samples (`carbon-ml eval --dense-weights`).
pub const DEFAULT_DENSE_WEIGHT: f32 = 0.7;
/// Maximum number of results of a page.
pub const MAX_LIMIT: usize = 1000;
/// Maximum of `offset + limit`, in results.
pub const MAX_WINDOW: usize = 10_000;
/// Maximum length of a query: 8 KiB.
pub const MAX_QUERY_BYTES: usize = 8 * 1024;
/// Minimum number of candidates of each retriever.
const MIN_DEPTH: usize = 128;

/// The retrievers that a search runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Both retrievers.
    #[default]
    Hybrid,
    /// Nearest neighbours by vector.
    Dense,
    /// BM25 over terms.
    Lexical,
}

impl Mode {
    /// True if the dense retriever runs.
    pub fn dense(self) -> bool {
        self != Mode::Lexical
    }

    /// True if the lexical retriever runs.
    pub fn lexical(self) -> bool {
        self != Mode::Dense
    }
}

/// A search request, not validated yet. [`plan`](SearchRequest::plan) validates it.
#[derive(Clone, Debug)]
pub struct SearchRequest {
    pub query: String,
    /// False selects the lexical mode and overrides `mode`.
    pub semantic: bool,
    pub mode: Option<Mode>,
    pub filter: Filter,
    pub limit: usize,
    pub offset: usize,
    /// Minimum score of a result, after boosts.
    pub similarity_threshold: f32,
    pub fusion: Option<Fusion>,
    /// Weight of the dense score in weighted fusion, from 0 to 1.
    pub dense_weight: Option<f32>,
    /// Adds an [`Explain`](crate::Explain) to each result.
    pub debug: bool,
}

impl Default for SearchRequest {
    fn default() -> Self {
        Self {
            query: String::new(),
            semantic: true,
            mode: None,
            filter: Filter::default(),
            limit: 10,
            offset: 0,
            similarity_threshold: 0.0,
            fusion: None,
            dense_weight: None,
            debug: false,
        }
    }
}

/// A validated search.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub query: String,
    pub mode: Mode,
    pub filter: Filter,
    pub limit: usize,
    pub offset: usize,
    /// Minimum score of a result, after boosts.
    pub threshold: f32,
    pub fusion: Fusion,
    pub dense_weight: f32,
    /// Number of candidates of each retriever.
    pub depth: usize,
    pub explain: bool,
}

/// Why a search request was rejected.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    #[error("query must not be blank")]
    BlankQuery,
    #[error("query has {0} bytes; at most {MAX_QUERY_BYTES} are allowed")]
    LongQuery(usize),
    #[error("limit is {0}; it must be from 1 to {MAX_LIMIT}")]
    Limit(usize),
    #[error("offset + limit is {0}; it must be at most {MAX_WINDOW}")]
    Window(usize),
    #[error("similarity_threshold must be a finite number")]
    Threshold,
    #[error("dense_weight is {0}; it must be from 0 to 1")]
    DenseWeight(f32),
}

impl Classify for PlanError {
    fn fault(&self) -> Fault {
        Fault::User
    }
    fn retry(&self) -> Retry {
        Retry::Never
    }
}

impl SearchRequest {
    /// Validates the request and fills in the defaults.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        if self.query.trim().is_empty() {
            return Err(PlanError::BlankQuery);
        }
        if self.query.len() > MAX_QUERY_BYTES {
            return Err(PlanError::LongQuery(self.query.len()));
        }
        let depth = retrieval_depth(self.limit, self.offset)?;
        if !self.similarity_threshold.is_finite() {
            return Err(PlanError::Threshold);
        }
        let dense_weight = self.dense_weight.unwrap_or(DEFAULT_DENSE_WEIGHT);
        if !(0.0..=1.0).contains(&dense_weight) {
            return Err(PlanError::DenseWeight(dense_weight));
        }
        Ok(Plan {
            query: self.query.clone(),
            mode: if self.semantic { self.mode.unwrap_or_default() } else { Mode::Lexical },
            filter: self.filter.clone(),
            limit: self.limit,
            offset: self.offset,
            threshold: self.similarity_threshold,
            fusion: self.fusion.unwrap_or_default(),
            dense_weight,
            depth,
            explain: self.debug,
        })
    }
}

/// Validates a page and returns the number of candidates that it needs from each retriever.
pub(crate) fn retrieval_depth(limit: usize, offset: usize) -> Result<usize, PlanError> {
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(PlanError::Limit(limit));
    }
    let end = offset.saturating_add(limit);
    if end > MAX_WINDOW {
        return Err(PlanError::Window(end));
    }
    // A power of 2, so that neighbouring pages of a query come from the same candidates.
    Ok(end.max(MIN_DEPTH).next_power_of_two().min(MAX_WINDOW))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn request(query: &str) -> SearchRequest {
        SearchRequest { query: query.into(), ..Default::default() }
    }

    #[test]
    fn defaults_are_hybrid_and_weighted() {
        let plan = request("gas").plan().unwrap();
        assert_eq!((plan.mode, plan.fusion, plan.depth), (Mode::Hybrid, Fusion::Weighted, 128));
        assert_eq!(plan.dense_weight, DEFAULT_DENSE_WEIGHT);
        let lexical = SearchRequest { semantic: false, mode: Some(Mode::Dense), ..request("gas") };
        assert_eq!(lexical.plan().unwrap().mode, Mode::Lexical);
        assert_eq!(SearchRequest { offset: 500, ..request("gas") }.plan().unwrap().depth, 512);
    }

    #[test]
    fn a_value_out_of_bounds_is_rejected() {
        assert_eq!(request(" \n").plan(), Err(PlanError::BlankQuery));
        assert_eq!(request(&"x".repeat(8193)).plan(), Err(PlanError::LongQuery(8193)));
        for limit in [0, 1001] {
            assert_eq!(SearchRequest { limit, ..request("x") }.plan(), Err(PlanError::Limit(limit)));
        }
        assert_eq!(SearchRequest { offset: 9_991, ..request("x") }.plan(), Err(PlanError::Window(10_001)));
        assert!(SearchRequest { offset: usize::MAX, ..request("x") }.plan().is_err());
        for weight in [-0.1, 1.1, f32::NAN] {
            assert!(SearchRequest { dense_weight: Some(weight), ..request("x") }.plan().is_err());
        }
        assert!(SearchRequest { similarity_threshold: f32::INFINITY, ..request("x") }.plan().is_err());
    }
}
