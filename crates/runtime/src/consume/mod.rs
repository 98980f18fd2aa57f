//! The one consume loop. A [`Stage`] turns events into events, a [`Sink`] folds events into a read
//! model; what they share (batches, checkpoints, retries, dead letters, drain, observable state) is here.

mod batch;
mod error;
mod landing;
mod progress;
mod run;
mod shared_rows;
mod sink;
mod stage;

pub use error::ProcessorError;
pub use progress::{Lag, Phase, ProcessorHandle, ProcessorView, Progress};
pub use run::{Options, spawn_shared_sink, spawn_sink, spawn_stage};
pub use shared_rows::SharedRows;
pub use sink::{Sink, SinkError};
pub use stage::{Output, SOURCE_HEADER, Stage};
