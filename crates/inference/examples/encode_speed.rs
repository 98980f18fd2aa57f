//! Measures an encoder: time to load, throughput of bulk texts, latency of a query while bulk texts do and do not run,
//! and memory.
//!
//! Usage: `CARBON_MODELS_DIR=… encode_speed [model] [file with one text per line]`. Missing files of the model are
//! downloaded. `THREADS` and `BATCH_TOKENS` override the encoder's options.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carbon_inference::{Catalogue, EncodeQueue, EncoderOptions, Lane, ModelStore, NoProgress, load_encoder};

const WORDS: [&str; 16] = [
    "natural",
    "gas",
    "futures",
    "delivered",
    "at",
    "the",
    "northern",
    "hub",
    "settle",
    "against",
    "daily",
    "index",
    "prices",
    "of",
    "crude",
    "oil",
];

/// A text of about `tokens` tokens; different for each seed.
fn text(tokens: usize, seed: usize) -> String {
    let word = |at: usize| WORDS[(at * 7 + seed * 13 + at * seed) % WORDS.len()];
    (0..tokens.saturating_sub(2)).map(word).collect::<Vec<_>>().join(" ")
}

/// A memory figure of this process from `/proc/self/status`, in MiB.
fn memory_mib(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// CPU time of this process in seconds, at 100 ticks per second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = |field: usize| stat.split_whitespace().nth(field).and_then(|text| text.parse::<f64>().ok());
    (ticks(13).unwrap_or(0.0) + ticks(14).unwrap_or(0.0)) / 100.0
}

/// Encodes `texts` as bulk texts and prints the throughput.
async fn throughput(queue: &Arc<EncodeQueue>, name: &str, texts: &[String]) -> Result<(), Box<dyn Error>> {
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let embeddings = queue.lane(Lane::Bulk).encode(texts).await?;
    let seconds = started.elapsed().as_secs_f64();
    let tokens: u64 = embeddings.iter().map(|embedding| u64::from(embedding.tokens)).sum();
    println!(
        "{name}: {} texts of {:.0} tokens: {:.0} texts/s, {:.0} tokens/s, {:.0} tokens per CPU second",
        texts.len(),
        tokens as f64 / texts.len() as f64,
        texts.len() as f64 / seconds,
        tokens as f64 / seconds,
        tokens as f64 / (cpu_seconds() - cpu).max(0.01)
    );
    Ok(())
}

/// Encodes 100 interactive texts, one after the other, and prints the percentiles of the latency.
async fn latency(queue: &Arc<EncodeQueue>, name: &str, tokens: usize) -> Result<(), Box<dyn Error>> {
    let encoder = queue.lane(Lane::Interactive);
    let mut took = Vec::with_capacity(100);
    for seed in 0..100 {
        let query = [text(tokens + seed % 5, seed)];
        let started = Instant::now();
        encoder.encode(&query).await?;
        took.push(started.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!("{name}: p50 {:.1} ms, p95 {:.1} ms, max {:.1} ms", at(0.5), at(0.95), at(1.0));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let entry = Catalogue::builtin().find(&arguments.next().unwrap_or_else(|| "minilm".to_owned()))?;
    let store = ModelStore::new(std::env::var("CARBON_MODELS_DIR").map_err(|_| "CARBON_MODELS_DIR is not set")?);
    println!("pull: {:?}", store.pull(entry, &NoProgress).await?);

    let mut options = EncoderOptions::default();
    let number =
        |name: &str, default: usize| std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default);
    options.threads = number("THREADS", options.threads);
    options.batch_tokens = number("BATCH_TOKENS", options.batch_tokens);
    println!("memory before loading: {:.0} MiB", memory_mib("VmRSS"));
    let started = Instant::now();
    let queue = load_encoder(entry, &store, options).await?;
    println!("load: {:.0} ms", started.elapsed().as_secs_f64() * 1e3);
    println!("memory after loading: {:.0} MiB, peak {:.0} MiB", memory_mib("VmRSS"), memory_mib("VmHWM"));

    latency(&queue, "query, no bulk texts", 4).await?;
    latency(&queue, "text of 100 tokens, alone", 100).await?;
    if let Some(file) = arguments.next() {
        let texts: Vec<String> =
            std::fs::read_to_string(file)?.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        throughput(&queue, "texts of the file", &texts).await?;
    }
    for tokens in [10, 60, 130, 256] {
        let texts: Vec<String> = (0..60_000 / tokens).map(|seed| text(tokens, seed)).collect();
        throughput(&queue, "generated texts", &texts[..texts.len().min(1000)]).await?;
    }
    let busy = queue.clone();
    let bulk = tokio::spawn(async move {
        let texts: Vec<String> = (0..4000).map(|seed| text(130, seed)).collect();
        let _ = busy.lane(Lane::Bulk).encode(&texts).await;
    });
    latency(&queue, "query, with bulk texts", 4).await?;
    bulk.abort();
    println!("memory at the end: {:.0} MiB, peak {:.0} MiB", memory_mib("VmRSS"), memory_mib("VmHWM"));
    Ok(())
}
