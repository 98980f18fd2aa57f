//! What a keeper needs of a read model.

use std::sync::Arc;

use async_trait::async_trait;
use carbon_core::{GenerationId, ModelRef, Positions};
use carbon_topology::CutOver;

use super::fold::Generation;
use crate::consume::{ProcessorError, ProcessorView};
use crate::serving::Filling;

/// What a filled generation holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub positions: Positions,
    pub rows: Option<i64>,
    /// SHA-256 over the canonical rows in key order, in hex.
    pub digest: Option<String>,
}

/// Says what is wrong with the files of a generation.
pub type FileCheck = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// How far a generation is from the ends that its topics had when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fill {
    Done,
    Filling(Filling),
}

/// A read model whose generations a keeper opens, fills, serves and drops.
#[async_trait]
pub trait Kept: Send + Sync + 'static {
    /// An open generation, with the processor that fills it.
    type Open: Send + Sync + 'static;

    fn name(&self) -> &str;

    /// The version of the fold.
    fn version(&self) -> u32;

    /// Whether a filled generation is activated without an operator, from the second one of a fold version on.
    fn cut_over(&self) -> CutOver;

    /// Whether this process fills generations; if not, it serves what others fill.
    fn fills(&self) -> bool;

    /// The model that a first generation is made for; `None` where it holds no vectors.
    fn model(&self) -> Option<ModelRef>;

    /// Opens a generation or makes it, and starts its processor.
    async fn open(&self, generation: &Generation) -> Result<Self::Open, ProcessorError>;

    /// The fold of an open generation.
    fn view(&self, open: &Self::Open) -> ProcessorView;

    /// What `/ready` asks of an open generation: whether its files are still there. It must not block.
    fn check(&self, open: &Self::Open) -> FileCheck;

    /// Whether the rows were filled once, since they were empty.
    async fn is_filled(&self, open: &Self::Open) -> Result<bool, ProcessorError>;

    async fn set_filled(&self, open: &Self::Open) -> Result<(), ProcessorError>;

    /// Compares a generation with the ends that its topics had when it was last asked to `begin`.
    async fn fill(&self, open: &Self::Open, begin: bool) -> Result<Fill, ProcessorError>;

    /// Counts a filled generation.
    async fn summary(&self, open: &Self::Open) -> Result<Summary, ProcessorError>;

    /// Serves `to` from now on, under a lock on both checkpoints: `to` has folded everything that `from` has, so nobody
    /// reads backwards. False if it has not, within a moment.
    async fn switch(&self, to: &Self::Open, from: Option<&Self::Open>) -> Result<bool, ProcessorError>;

    /// Serves nothing from now on.
    fn withdraw(&self, why: &str);

    /// Shows the progress of the fill to callers, while nothing is served.
    fn show(&self, progress: Filling);

    /// The folds of the open generations that are filled and not served.
    fn set_siblings(&self, siblings: Vec<ProcessorView>);

    /// Stops the processor, and closes the namespace when the requests under way are answered.
    async fn close(&self, open: Self::Open);

    /// Drops the namespace of a generation that is not open; of one that is not there it does nothing.
    async fn drop_namespace(&self, id: &GenerationId) -> Result<(), ProcessorError>;
}
