//! `topology.yaml` as a checked, typed graph. Processes create their topics, processors and read models from it.

mod check;
mod file;
mod graph;
mod typed;

pub use check::Mistake;
pub use file::{CutOver, GroupPer, ProcessorKind, ReadModelKind};
pub use typed::{Batch, Processor, ReadModel, Topic, Topology, TopologyError};
