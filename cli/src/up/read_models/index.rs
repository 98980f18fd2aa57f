//! The search index, as its keeper sees it.

use std::sync::Arc;

use async_trait::async_trait;
use carbon_core::{GenerationId, ModelRef, Positions};
use carbon_inference::Lane;
use carbon_processors::Indexer;
use carbon_query_api::SearchIndex;
use carbon_runtime::consume::{ProcessorError, ProcessorHandle, ProcessorView, end_offsets, spawn_sink};
use carbon_runtime::generations::{FileCheck, Fill, Kept, Summary};
use carbon_runtime::{Filling, Generation, Serving};
use carbon_search::{EmbeddedIndex, GenerationSpec, HybridIndex};
use carbon_topology::CutOver;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::guard::{Guarded, Withdraw};
use super::relational::{fill_of, remove_folder, unshared};
use super::{INDEX_VERSION, SEARCH, SWITCH_WITHIN};
use crate::up::assembly::Assembly;
use crate::up::embedders;
use crate::up::models::Models;

pub struct IndexParts {
    pub root: std::path::PathBuf,
    pub models: Models,
    pub assembly: Assembly,
    pub handle: Arc<Serving<SearchIndex>>,
    pub cut_over: CutOver,
    /// The model of a first generation.
    pub configured: ModelRef,
    /// Whether the embedder runs in this process.
    pub embeds: bool,
}

pub struct Index {
    parts: IndexParts,
    engine: Arc<EmbeddedIndex>,
}

pub struct OpenIndex {
    search: Arc<SearchIndex>,
    fold: ProcessorHandle,
    target: Mutex<Target>,
}

/// What a generation is filled to.
#[derive(Default)]
struct Target {
    /// The ends of the entities when the fill began.
    entities: Positions,
    /// The ends of the embeddings, when those entities were embedded.
    embeddings: Option<Positions>,
}

impl Index {
    pub fn new(parts: IndexParts) -> Self {
        let engine = Arc::new(EmbeddedIndex::new(&parts.root));
        Self { parts, engine }
    }

    fn withdraw_of(&self, id: &GenerationId) -> Withdraw {
        let (handle, id) = (self.parts.handle.clone(), id.clone());
        Arc::new(move || {
            handle.withdraw_if(|search| search.generation == id, "its rows are of another log; it is rebuilt")
        })
    }

    /// The progress of the embedder of the generation's model, in any process; `None` when it has reached the ends.
    async fn embedded(&self, open: &OpenIndex, ends: &Positions) -> Result<Option<Filling>, ProcessorError> {
        let positions = self.parts.assembly.log.committed(&open.search.embedder).await?;
        let folded: u64 = ends.iter().map(|(at, end)| positions.next(at).min(end)).sum();
        let of = ends.iter().map(|(_, end)| end).sum();
        Ok((folded < of).then_some(Filling::Records { folded, of }))
    }
}

#[async_trait]
impl Kept for Index {
    type Open = OpenIndex;

    fn name(&self) -> &str {
        SEARCH
    }

    fn version(&self) -> u32 {
        INDEX_VERSION
    }

    fn cut_over(&self) -> CutOver {
        self.parts.cut_over
    }

    fn fills(&self) -> bool {
        true
    }

    fn model(&self) -> Option<ModelRef> {
        Some(self.parts.configured.clone())
    }

    async fn open(&self, generation: &Generation) -> Result<OpenIndex, ProcessorError> {
        let id = generation.id.clone();
        let model = generation.model.clone();
        let model = model.ok_or_else(|| ProcessorError::internal(format!("generation {id} names no model")))?;
        let spec = GenerationSpec { id: id.clone(), model: model.clone(), dimension: Models::entry(&model)?.dimension };
        // Reading the weights and opening the index each keep one core busy.
        let (encoder, opened) = tokio::join!(self.parts.models.encoder(&model), self.engine.create(&spec));
        let encoder = encoder?;
        opened.map_err(|error| ProcessorError::of(&error))?;
        let assembly = &self.parts.assembly;
        let owner = assembly.owner(SEARCH)?;
        let options = assembly.options(&owner, assembly.group(&owner, &id), Some(&id))?;
        let index: Arc<dyn HybridIndex> = self.engine.clone();
        let sink = Guarded { sink: Indexer::new(index.clone(), spec), withdraw: self.withdraw_of(&id) };
        let fold = spawn_sink(sink, options);
        assembly.processors.add(fold.view());
        let (encoder, group) = (encoder.lane(Lane::Interactive), embedders::group(&model));
        let search = Arc::new(SearchIndex::new(index, (id, model), encoder, fold.view(), group));
        Ok(OpenIndex { search, fold, target: Mutex::default() })
    }

    fn view(&self, open: &OpenIndex) -> ProcessorView {
        open.fold.view()
    }

    fn check(&self, open: &OpenIndex) -> FileCheck {
        let (engine, id) = (self.engine.clone(), open.search.generation.clone());
        Arc::new(move || engine.check(&id).map_err(|error| error.to_string()))
    }

    async fn is_filled(&self, open: &OpenIndex) -> Result<bool, ProcessorError> {
        let id = &open.search.generation;
        let filled = self.engine.is_filled(id).await.map_err(|error| ProcessorError::of(&error))?;
        let checkpoint = self.engine.checkpoint(id).await.map_err(|error| ProcessorError::of(&error))?;
        Ok(filled && !self.parts.assembly.is_foreign(&checkpoint).await?)
    }

    async fn set_filled(&self, open: &OpenIndex) -> Result<(), ProcessorError> {
        self.engine.set_filled(&open.search.generation).await.map_err(|error| ProcessorError::of(&error))
    }

    async fn fill(&self, open: &OpenIndex, begin: bool) -> Result<Fill, ProcessorError> {
        let (log, view, mut target) = (&*self.parts.assembly.log, open.fold.view(), open.target.lock().await);
        if begin {
            let embedder = self.parts.assembly.topology.processors.get("embedder");
            let entities = embedder.map(|embedder| embedder.consumes.as_slice()).unwrap_or_default();
            *target = Target { entities: end_offsets(log, entities).await?, embeddings: None };
        }
        let ends = match &target.embeddings {
            Some(ends) => ends,
            None => {
                let waits = self.parts.embeds || !self.is_filled(open).await?;
                if waits && let Some(progress) = self.embedded(open, &target.entities).await? {
                    return Ok(Fill::Filling(progress));
                }
                target.embeddings.insert(view.ends(log).await?)
            }
        };
        if let Fill::Filling(progress) = fill_of(&view, ends) {
            return Ok(Fill::Filling(progress));
        }
        // What is committed is seen a moment later, with the next view.
        let id = &open.search.generation;
        let seen = async {
            let sources = self.engine.source_positions(id).await?;
            self.engine.reached(id, &sources, Instant::now()).await
        };
        match seen.await.map_err(|error| ProcessorError::of(&error))? {
            true => Ok(Fill::Done),
            false => Ok(Fill::Filling(Filling::Waiting("its last records become searchable".into()))),
        }
    }

    async fn summary(&self, open: &OpenIndex) -> Result<Summary, ProcessorError> {
        // Nothing is committed between the count and the positions.
        let _held = open.fold.hold().await;
        let id = &open.search.generation;
        let counted = async {
            let stats = self.engine.stats(id, None).await?;
            Ok::<_, carbon_search::IndexError>((stats.total, self.engine.checkpoint(id).await?.positions))
        };
        let (rows, positions) = counted.await.map_err(|error| ProcessorError::of(&error))?;
        Ok(Summary { positions, rows: i64::try_from(rows).ok(), digest: None })
    }

    async fn switch(&self, to: &OpenIndex, from: Option<&OpenIndex>) -> Result<bool, ProcessorError> {
        let Some(from) = from else {
            self.parts.handle.set(to.search.clone());
            return Ok(true);
        };
        // Nothing is committed to the old one while the new one's view catches up with it.
        let _held = from.fold.hold().await;
        let caught_up = async {
            let sources = self.engine.source_positions(&from.search.generation).await?;
            self.engine.reached(&to.search.generation, &sources, Instant::now() + SWITCH_WITHIN).await
        };
        if !caught_up.await.map_err(|error| ProcessorError::of(&error))? {
            return Ok(false);
        }
        self.parts.handle.set(to.search.clone());
        Ok(true)
    }

    fn withdraw(&self, why: &str) {
        self.parts.handle.withdraw(why);
    }

    fn show(&self, progress: Filling) {
        self.parts.handle.set_filling(progress);
    }

    fn set_siblings(&self, siblings: Vec<ProcessorView>) {
        self.parts.handle.set_siblings(siblings);
    }

    async fn close(&self, open: OpenIndex) {
        self.parts.assembly.stop(open.fold).await;
        self.parts.handle.withdraw_if(|served| std::ptr::eq(served, &*open.search), "the process stops");
        unshared(&open.search).await;
        if let Err(error) = self.engine.close_generation(&open.search.generation).await {
            tracing::error!(%error, generation = %open.search.generation, "index was not closed cleanly");
        }
    }

    async fn drop_namespace(&self, id: &GenerationId) -> Result<(), ProcessorError> {
        self.engine.drop_generation(id).await.map_err(|error| ProcessorError::of(&error))?;
        remove_folder(&self.parts.root.join(id.as_str()))
    }
}
