//! Helpers of the index tests: documents, vectors, ops, and a writer that tracks the checkpoint.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use carbon_core::{
    EntityKey, GenerationId, MetadataValue, ModelRef, Position, Positions, Precision, TenantId, TenantScope, Timestamp,
    TopicName, TopicPartition,
};
use carbon_search::plan::Mode;
use carbon_search::{
    Applied, Document, Filter, Fusion, GenerationSpec, HybridIndex, IndexError, IndexOp, SearchRequest, SearchResults,
    search,
};
use tokio::time::Instant;

pub const DIMENSION: usize = 16;

pub fn spec() -> GenerationSpec {
    let model = ModelRef::new("mini", "1", Precision::F32).unwrap();
    GenerationSpec { id: GenerationId::derive("search", 1, Some(&model), 1).unwrap(), model, dimension: DIMENSION }
}

pub fn scope(tenant: &str) -> TenantScope {
    TenantScope::authorised(TenantId::parse(tenant).unwrap())
}

pub fn key(tenant: &str, id: &str) -> EntityKey {
    EntityKey::parse(tenant, "instrument", id).unwrap()
}

/// The position at `offset` of the source topic, partition 0.
pub fn source(offset: u64) -> Position {
    Position::new(TopicName::parse("ml.entity.changed.v1").unwrap(), 0, offset)
}

/// The checkpoint over the input topic, with `next` as the next offset of partition 0.
pub fn input(next: u64) -> Positions {
    let topic = TopicName::parse("ml.embedding.generated.v1").unwrap();
    [(TopicPartition::new(topic, 0), next)].into_iter().collect()
}

/// The source positions after the op at `offset`.
pub fn done(offset: u64) -> Positions {
    let mut positions = Positions::new();
    positions.advance_past(&source(offset));
    positions
}

pub fn document(tenant: &str, id: &str, text: &str, offset: u64) -> Document {
    Document {
        key: key(tenant, id),
        text: text.to_owned(),
        metadata: [("hub".to_owned(), MetadataValue::String("HH".into()))].into_iter().collect(),
        tags: vec!["energy".into()],
        updated_at: Timestamp(1_700_000_000_000 + offset as i64),
        source: source(offset),
        embedding: Some(Position::new(TopicName::parse("ml.embedding.generated.v1").unwrap(), 0, offset)),
    }
}

/// A pseudo-random unit vector; equal seeds give equal vectors.
pub fn vector(seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xdead_beef;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    };
    let raw: Vec<f32> = (0..DIMENSION).map(|_| next()).collect();
    let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
    raw.into_iter().map(|x| x / length).collect()
}

pub fn upsert(tenant: &str, id: &str, text: &str, offset: u64) -> IndexOp {
    IndexOp::upsert(document(tenant, id, text, offset), vector(seed_of(id, text)))
}

pub fn delete(tenant: &str, id: &str, offset: u64) -> IndexOp {
    IndexOp::delete(key(tenant, id), source(offset))
}

/// Upserts of 3 documents of tenant `acme`.
pub fn three_upserts() -> Vec<IndexOp> {
    vec![
        upsert("acme", "a", "natural gas price at the hub", 0),
        upsert("acme", "b", "crude oil forward curve", 1),
        upsert("acme", "c", "gas storage in winter, gas price spread", 2),
    ]
}

fn seed_of(id: &str, text: &str) -> u64 {
    id.bytes().chain(text.bytes()).fold(7, |seed, b| seed.wrapping_mul(31).wrapping_add(u64::from(b)))
}

/// Applies batches to an index and tracks its checkpoint.
pub struct Feed<'i> {
    pub index: &'i dyn HybridIndex,
    /// The next input offset: the checkpoint.
    pub next: u64,
}

impl<'i> Feed<'i> {
    /// Creates the generation of [`spec`].
    pub async fn new(index: &'i dyn HybridIndex) -> Feed<'i> {
        index.create(&spec()).await.unwrap();
        Feed { index, next: 0 }
    }

    /// Applies a batch, with one input offset per op.
    pub async fn apply(&mut self, ops: Vec<IndexOp>) -> Result<Applied, IndexError> {
        let upto = self.next + ops.len() as u64;
        let applied = self.index.apply(&spec().id, "log", ops, &input(self.next), &input(upto)).await?;
        self.next = upto;
        Ok(applied)
    }

    /// Applies a batch and waits until the view has reached the positions of its ops.
    pub async fn apply_and_see(&mut self, ops: Vec<IndexOp>) -> Applied {
        let mut sources = Positions::new();
        ops.iter().for_each(|op| sources.advance_past(&op.source));
        let applied = self.apply(ops).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        assert!(self.index.reached(&spec().id, &sources, deadline).await.unwrap());
        applied
    }
}

/// A request for all documents, up to 100.
pub fn request(query: &str, mode: Mode) -> SearchRequest {
    SearchRequest {
        query: query.into(),
        mode: Some(mode),
        limit: 100,
        similarity_threshold: -1.0,
        ..Default::default()
    }
}

/// Runs a search with a query vector derived from the query's text.
pub async fn find(index: &dyn HybridIndex, tenant: &str, request: &SearchRequest) -> SearchResults {
    let plan = request.plan().unwrap();
    let query = Some(vector(seed_of("", &request.query)));
    search(index, &spec().id, &scope(tenant), &plan, query).await.unwrap()
}

/// The ids of the results, best first.
pub async fn found_ids(index: &dyn HybridIndex, tenant: &str, request: &SearchRequest) -> Vec<String> {
    find(index, tenant, request).await.results.into_iter().map(|result| result.entity_id).collect()
}

/// A hybrid request with a filter.
pub fn with_filter(filter: Filter) -> SearchRequest {
    SearchRequest { filter, ..request("gas price", Mode::Hybrid) }
}

/// The (id, score) lists of each query in every mode and fusion.
pub async fn rankings(index: &dyn HybridIndex, tenant: &str, queries: &[&str]) -> Vec<Vec<(String, f32)>> {
    let mut all = Vec::new();
    for query in queries {
        for (mode, fusion) in [
            (Mode::Hybrid, Fusion::Weighted),
            (Mode::Hybrid, Fusion::Rrf),
            (Mode::Dense, Fusion::Weighted),
            (Mode::Lexical, Fusion::Weighted),
        ] {
            let request = SearchRequest { fusion: Some(fusion), ..request(query, mode) };
            let results = find(index, tenant, &request).await.results;
            all.push(results.into_iter().map(|result| (result.entity_id, result.score)).collect());
        }
    }
    all
}

/// Asserts that the rankings have the same ids in the same order, and scores that differ by at most 1e-5.
pub fn assert_same(a: &[Vec<(String, f32)>], b: &[Vec<(String, f32)>]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        let ids = |list: &[(String, f32)]| list.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(a), ids(b));
        for ((id, x), (_, y)) in a.iter().zip(b) {
            assert!((x - y).abs() <= 1e-5, "{id}: {x} and {y}");
        }
    }
}

pub const QUERIES: [&str; 4] = ["natural gas price", "power curve of the hub", "NG_HH", "scenario gas gas storage"];

const WORDS: [&str; 24] = [
    "natural", "gas", "price", "power", "curve", "hub", "storage", "forward", "crude", "oil", "freight", "scenario",
    "stress", "the", "of", "winter", "summer", "spread", "option", "hedge", "NG_HH", "coal", "carbon", "backtest",
];

/// A pseudo-random text of 3 to 40 words; equal seeds give equal texts.
pub fn text(seed: u64) -> String {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let count = 3 + next(38);
    (0..count).map(|_| WORDS[next(WORDS.len() as u64) as usize]).collect::<Vec<_>>().join(" ")
}
