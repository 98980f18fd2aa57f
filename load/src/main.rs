//! Load for a running platform, and a filler for a stopped one. Every command is bounded in count and time.

mod fill;
mod fold;
mod latency;
mod prose;
mod random;
mod report;
mod search;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

// As in the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why a command failed.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(version, about = "Measures a carbon-ml platform on this machine")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Appends entities and their embeddings (random unit vectors) to the log of a stopped data folder.
    Fill {
        #[arg(long, env = "ML_DATA_DIR")]
        data_dir: PathBuf,
        #[arg(long, default_value_t = 50_000)]
        entities: usize,
        #[arg(long, default_value = "all-MiniLM-L6-v2@1@f32")]
        model: String,
        #[arg(long, default_value_t = 384)]
        dimension: usize,
        #[arg(long, default_value_t = 7)]
        seed: u64,
    },
    /// How fast the catalog folds a topic of a Kafka cluster, after appending what it lacks of so many events.
    Fold {
        #[arg(long, env = "ML_KAFKA_BROKERS")]
        brokers: String,
        #[arg(long, env = "ML_SCHEMA_REGISTRY_URL")]
        registry: String,
        #[arg(long, default_value_t = 300_000)]
        events: u64,
        #[arg(long, default_value_t = 7)]
        seed: u64,
    },
    /// From the POST of an entity to the answer of a search that sees it, at a constant rate.
    Latency {
        #[arg(long, env = "ML_URL", default_value = "http://127.0.0.1:9005")]
        url: String,
        #[arg(long, env = "ML_TRACKING_URL", default_value = "http://127.0.0.1:5000")]
        tracking_url: String,
        #[arg(long, default_value_t = 20.0)]
        rate: f64,
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        #[arg(long, default_value = "default")]
        tenant: String,
        #[arg(long, default_value_t = 7)]
        seed: u64,
    },
    /// Search latency, one request after another (or several at once): queries asked once each, and asked again.
    Search {
        #[arg(long, env = "ML_URL", default_value = "http://127.0.0.1:9005")]
        url: String,
        #[arg(long, default_value_t = 300)]
        queries: usize,
        #[arg(long, default_value_t = 1)]
        concurrency: usize,
        #[arg(long, default_value = "hybrid")]
        mode: String,
        #[arg(long, default_value = "default")]
        tenant: String,
        #[arg(long, default_value_t = 11)]
        seed: u64,
    },
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    // The HTTP client brings no TLS provider of its own.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Arguments::parse().command {
        Command::Fill { data_dir, entities, model, dimension, seed } => {
            fill::run(&data_dir, entities, &model.parse()?, dimension, seed).await
        }
        Command::Fold { brokers, registry, events, seed } => {
            fold::run(&fold::Plan { brokers, registry, events, seed }).await
        }
        Command::Latency { url, tracking_url, rate, seconds, tenant, seed } => {
            latency::run(&latency::Plan { url, tracking_url, rate, seconds, tenant, seed }).await
        }
        Command::Search { url, queries, concurrency, mode, tenant, seed } => {
            search::run(&search::Plan { url, queries, concurrency: concurrency.max(1), mode, tenant, seed }).await
        }
    }
}
