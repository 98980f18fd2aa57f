//! Measures the embedded index: indexing throughput, query latency, time to visibility, memory, and time to open.
//!
//! Usage: `search_speed [number of documents]…`, by default 50,000. The documents have about 70 words drawn by Zipf's
//! law and random unit vectors of 384 dimensions. One fixed seed makes runs comparable.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use carbon_core::{
    EntityKey, GenerationId, MetadataValue, ModelRef, Position, Positions, Precision, TenantId, TenantScope, Timestamp,
    TopicName, TopicPartition,
};
use carbon_search::plan::Mode;
use carbon_search::{
    Condition, Document, EmbeddedIndex, Filter, GenerationSpec, HybridIndex, IndexOp, SearchRequest, search,
};

const DIMENSION: usize = 384;
/// Documents of a batch.
const BATCH: usize = 500;
/// Queries of a measurement.
const QUERIES: usize = 1000;

/// The SplitMix64 generator (Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// A number from 0 (inclusive) to 1 (exclusive).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A unit vector of random direction.
    fn vector(&mut self) -> Vec<f32> {
        // The sum of 4 uniform numbers approximates a normal distribution.
        let raw: Vec<f32> = (0..DIMENSION).map(|_| (0..4).map(|_| self.unit() as f32 - 0.5).sum()).collect();
        let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
        raw.into_iter().map(|x| x / length).collect()
    }
}

const STEMS: &str = "gas power crude oil coal carbon freight metal wheat corn price curve hub storage forward spread option \
    hedge winter summer month quarter calendar balance settlement delivery volume contract margin risk scenario stress \
    model forecast demand supply weather temperature pipeline terminal cargo refinery plant wind solar hydro nuclear \
    outage capacity basin export import north south east west index basis swap future volatility correlation history \
    backtest return drawdown position exposure limit desk trader book portfolio market liquidity auction tariff grid";
const ENDINGS: [&str; 12] = ["", "s", "ing", "ed", "er", "less", "ly", "able", "ist", "ment", "ness", "ful"];

/// The vocabulary by rank: frequent words first.
fn vocabulary() -> Vec<String> {
    let stems: Vec<&str> = STEMS.split_whitespace().collect();
    let mut words: Vec<String> = "the of and in to for with by on at from as".split(' ').map(str::to_owned).collect();
    words.extend(stems.iter().map(|stem| (*stem).to_owned()));
    for ending in &ENDINGS[1..] {
        words.extend(stems.iter().map(|stem| format!("{stem}{ending}")));
    }
    for (n, a) in stems.iter().enumerate() {
        words.extend(stems.iter().skip(n + 1).map(|b| format!("{a}{b}")));
    }
    words
}

/// A generator of documents and queries.
struct Corpus {
    words: Vec<String>,
    random: Random,
}

impl Corpus {
    fn word(&mut self) -> &str {
        // Zipf's law: the logarithm of the rank is uniform.
        let rank = (self.words.len() as f64).powf(self.random.unit()) as usize - 1;
        &self.words[rank]
    }

    fn text(&mut self, words: usize) -> String {
        let mut text = String::new();
        for n in 0..words {
            if n > 0 {
                text.push_str(if n % 12 == 0 { ". " } else { " " });
            }
            text.push_str(self.word());
        }
        text
    }

    fn op(&mut self, n: usize, offset: u64) -> IndexOp {
        let kinds = ["instrument", "curve", "scenario", "backtest"];
        let length = 50 + self.random.below(40);
        let document = Document {
            key: EntityKey::parse("acme", kinds[n % 4], &format!("NG_{}_{n}", n % 97)).unwrap(),
            text: self.text(length),
            metadata: [
                ("hub".to_owned(), MetadataValue::String(format!("H{}", n % 50))),
                ("strike".to_owned(), MetadataValue::Double(n as f64)),
            ]
            .into_iter()
            .collect(),
            tags: vec![format!("t{}", n % 10)],
            updated_at: Timestamp(offset as i64),
            source: source(offset),
            embedding: None,
        };
        let vector = self.random.vector();
        IndexOp::upsert(document, vector)
    }
}

fn source(offset: u64) -> Position {
    Position::new(TopicName::parse("ml.entity.changed.v1").unwrap(), 0, offset)
}

fn input(next: u64) -> Positions {
    [(TopicPartition::new(TopicName::parse("ml.embedding.generated.v1").unwrap(), 0), next)].into_iter().collect()
}

/// Prints the percentiles of `times`.
fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("  {what:<44} p50 {:>7.2} ms   p95 {:>7.2} ms   max {:>7.2} ms", at(0.5), at(0.95), at(1.0));
}

/// The resident memory of this process, as the kernel prints it.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or("?".to_owned(), |line| line.trim().to_owned())
}

/// An index under measurement.
struct Run {
    index: EmbeddedIndex,
    spec: GenerationSpec,
    scope: TenantScope,
    /// The next input offset: the checkpoint.
    next: u64,
}

impl Run {
    async fn apply(&mut self, ops: Vec<IndexOp>) {
        let upto = self.next + ops.len() as u64;
        self.index.apply(&self.spec.id, "log", ops, &input(self.next), &input(upto)).await.unwrap();
        self.next = upto;
    }

    /// Waits until the view has reached the last applied op.
    async fn wait_for_view(&self) {
        let mut sources = Positions::new();
        sources.advance_past(&source(self.next - 1));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(600);
        assert!(self.index.reached(&self.spec.id, &sources, deadline).await.unwrap());
    }

    /// Runs [`QUERIES`] random queries and prints their latencies.
    async fn queries(&self, what: &str, corpus: &mut Corpus, mode: Mode, filter: Filter) {
        let mut times = Vec::with_capacity(QUERIES);
        for n in 0..QUERIES {
            let request = SearchRequest {
                query: corpus.text(2 + n % 6),
                mode: Some(mode),
                filter: filter.clone(),
                ..Default::default()
            };
            let (plan, vector) = (request.plan().unwrap(), corpus.random.vector());
            let started = Instant::now();
            search(&self.index, &self.spec.id, &self.scope, &plan, Some(vector)).await.unwrap();
            times.push(started.elapsed());
        }
        show(what, times);
    }
}

#[tokio::main]
async fn main() {
    let sizes: Vec<usize> = std::env::args().skip(1).map(|size| size.parse().expect("a number of documents")).collect();
    for documents in if sizes.is_empty() { vec![50_000] } else { sizes } {
        run(documents).await;
    }
}

/// Measures an index with `documents` documents.
async fn run(documents: usize) {
    println!("{documents} documents of {DIMENSION} dimensions; memory before: {}", memory());
    let folder = tempfile::tempdir().unwrap();
    let model = ModelRef::new("random", "1", Precision::F32).unwrap();
    let id = GenerationId::derive("search", 1, Some(&model), 1).unwrap();
    let mut run = Run {
        index: EmbeddedIndex::new(folder.path()),
        spec: GenerationSpec { id, model, dimension: DIMENSION },
        scope: TenantScope::authorised(TenantId::parse("acme").unwrap()),
        next: 0,
    };
    run.index.create(&run.spec).await.unwrap();
    let mut corpus = Corpus { words: vocabulary(), random: Random(1) };

    let (mut applying, mut last) = (Duration::ZERO, Instant::now());
    for from in (0..documents).step_by(BATCH) {
        let ops = (from..(from + BATCH).min(documents)).map(|n| corpus.op(n, n as u64)).collect();
        last = Instant::now();
        run.apply(ops).await;
        applying += last.elapsed();
    }
    println!("  applied {:.0} documents/s in batches of {BATCH}", documents as f64 / applying.as_secs_f64());
    run.wait_for_view().await;
    println!("  the view was complete {:.0} ms after the start of the last batch", last.elapsed().as_secs_f64() * 1e3);
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("  memory: {}", memory());

    run.queries("hybrid", &mut corpus, Mode::Hybrid, Filter::default()).await;
    run.queries("lexical", &mut corpus, Mode::Lexical, Filter::default()).await;
    run.queries("dense", &mut corpus, Mode::Dense, Filter::default()).await;
    let curves = Filter { types: vec!["curve".into()], ..Default::default() };
    run.queries("hybrid, one type of 4", &mut corpus, Mode::Hybrid, curves).await;
    let hub = ("hub".to_owned(), Condition::OneOf(vec![MetadataValue::String("H7".into())]));
    let hub = Filter { metadata: vec![hub], ..Default::default() };
    run.queries("hybrid, one metadata value of 50", &mut corpus, Mode::Hybrid, hub).await;

    let (mut applied, mut seen) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let n = corpus.random.below(documents);
        let op = corpus.op(n, run.next);
        let started = Instant::now();
        run.apply(vec![op]).await;
        applied.push(started.elapsed());
        run.wait_for_view().await;
        seen.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    show("one update: applied", applied);
    show("one update: in the view, when idle", seen);
    run.queries("hybrid after the updates", &mut corpus, Mode::Hybrid, Filter::default()).await;

    run.index.close().await.unwrap();
    let started = Instant::now();
    run.index.create(&run.spec).await.unwrap();
    println!("  reopened in {:.0} ms", started.elapsed().as_secs_f64() * 1e3);
    assert!(run.index.repairs(&run.spec.id).unwrap().is_empty());
    std::fs::remove_dir_all(folder.path().join(run.spec.id.as_str()).join("tantivy")).unwrap();
    run.index.close().await.unwrap();
    let started = Instant::now();
    run.index.create(&run.spec).await.unwrap();
    println!("  reopened without its tantivy directory in {:.0} ms", started.elapsed().as_secs_f64() * 1e3);
    run.index.close().await.unwrap();
}
