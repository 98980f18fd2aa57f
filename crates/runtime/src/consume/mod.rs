//! The one consume loop. A [`Stage`] turns events into events, a [`Sink`] folds events into a read
//! model; what they share (batches, checkpoints, retries, dead letters, drain, observable state) is here.

mod batch;
mod board;
mod error;
mod faults;
mod flight;
mod landing;
mod progress;
mod run;
mod session;
mod shared_rows;
mod sink;
mod stage;
mod state;

pub use board::Processors;
pub use error::ProcessorError;
pub use progress::{FillTarget, Lag, Phase, ProcessorHandle, ProcessorView, Progress, end_offsets};
pub use run::{Gate, Options, spawn_shared_sink, spawn_sink, spawn_stage};
pub use shared_rows::SharedRows;
pub use sink::{Sink, SinkError};
pub use stage::{Output, SOURCE_HEADER, Stage};
pub use state::{STALLED_AFTER, State};
