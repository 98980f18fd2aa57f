//! `topology.yaml` as a typed graph. It is what runs, not a picture of it: processes make their topics,
//! processors and read models from it, after every mistake in it was found at once.

mod check;
mod file;
mod graph;
mod typed;

pub use check::Mistake;
pub use file::{CutOver, GroupPer, ProcessorKind, ReadModelKind};
pub use typed::{Batch, Processor, ReadModel, Topic, Topology, TopologyError};
