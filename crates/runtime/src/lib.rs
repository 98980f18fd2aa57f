//! What runs the platform's parts: configuration, telemetry, shutdown, and the one consume loop.

mod config;
pub mod consume;
mod dead_letters;
mod generations;
mod health;
mod telemetry;

pub use config::{Config, ConfigError, LogFormat, Setting, settings};
pub use dead_letters::dead_letter;
pub use generations::{Generation, GenerationLog, Generations};
pub use health::{Check, Health};
pub use telemetry::{Metrics, init_logs};
pub use tokio_util::sync::CancellationToken as Shutdown;
