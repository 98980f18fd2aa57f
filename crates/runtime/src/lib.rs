//! What runs the platform's parts: configuration, telemetry, supervision, generations and their serving handles, and the
//! one consume loop.

mod config;
pub mod consume;
mod dead_letters;
mod failpoints;
pub mod generations;
mod health;
mod panics;
mod serving;
mod supervisor;
mod telemetry;

pub use config::{Config, ConfigError, LogFormat, Setting, settings};
pub use consume::Processors;
pub use dead_letters::dead_letter;
pub use failpoints::{Injected, failpoint, follow_failpoints};
pub use generations::{Generation, GenerationLog, Generations};
pub use health::{Check, Health, is_ready};
pub use panics::{Panicked, caught};
pub use serving::{Filling, NotServing, ReadModels, Rows, Serving};
pub use supervisor::{Policy, Supervisor, TaskState, TaskStatus};
pub use telemetry::{Metrics, init_logs};
pub use tokio_util::sync::CancellationToken as Shutdown;
