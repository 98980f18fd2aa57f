//! A relational read model, as its keeper sees it: files of this process, or schemas of a Postgres that processes share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use carbon_core::{GenerationId, ModelRef, Positions};
use carbon_processors::ProjectionSink;
use carbon_read_models::{Projection, digest_of};
use carbon_runtime::consume::{
    ProcessorError, ProcessorHandle, ProcessorView, SharedRows, spawn_shared_sink, spawn_sink,
};
use carbon_runtime::generations::{FileCheck, Fill, Kept, Summary};
use carbon_runtime::{Filling, Generation, Rows, Serving, Shutdown};
use carbon_store::{Namespace, Postgres, Site};
use carbon_topology::CutOver;
use tokio::sync::Mutex;

use super::SWITCH_WITHIN;
use super::guard::{Guarded, Withdraw};
use crate::up::assembly::Assembly;

/// Where the relational read models lie.
#[derive(Clone)]
pub enum Place {
    /// In this folder, of this process alone.
    Files(PathBuf),
    /// In schemas that the processes of a platform share.
    Postgres {
        database: Postgres,
        /// Whether this process folds, too.
        folds: bool,
        /// Whether others may: the embedded log has one process.
        shared: bool,
    },
}

/// How long the namespace of a closed generation stays open for requests under way.
const REQUESTS_WITHIN: Duration = Duration::from_secs(10);

pub struct Relational<P> {
    pub projection: P,
    pub place: Place,
    pub assembly: Assembly,
    pub handle: Arc<Serving<Rows>>,
    pub cut_over: CutOver,
}

pub struct OpenRows {
    rows: Arc<Rows>,
    /// This process's own fold, where it has one.
    fold: Option<ProcessorHandle>,
    /// The end offsets when the fill began.
    ends: Mutex<Positions>,
    /// Stops what follows the checkpoint of shared rows.
    stop: Shutdown,
}

impl<P: Projection> Relational<P> {
    fn withdraw_of(&self, id: &GenerationId) -> Withdraw {
        let (handle, id) = (self.handle.clone(), id.clone());
        Arc::new(move || handle.withdraw_if(|rows| rows.generation == id, "its rows are of another log; it is rebuilt"))
    }

    async fn sink(&self, id: &GenerationId) -> Result<ProjectionSink<P>, ProcessorError> {
        let projection = self.projection.clone();
        Ok(match &self.place {
            Place::Files(root) => ProjectionSink::open(projection, root.join(id.as_str())).await?,
            Place::Postgres { database, .. } => {
                ProjectionSink::at(projection, &Site::Schema(database.clone(), id.as_str().to_owned())).await?
            }
        })
    }

    /// Starts the fold of a generation, or follows the process that folds it.
    fn fold(
        &self,
        id: &GenerationId,
        sink: ProjectionSink<P>,
        stop: &Shutdown,
    ) -> Result<(Option<ProcessorHandle>, ProcessorView), ProcessorError> {
        let owner = self.assembly.owner(P::NAME)?;
        let namespace = sink.namespace().clone();
        let guarded = Guarded { sink, withdraw: self.withdraw_of(id) };
        let (folds, shared) = match &self.place {
            Place::Files(_) => (true, false),
            Place::Postgres { folds, shared, .. } => (*folds || !shared, *shared),
        };
        if !shared {
            let options = self.assembly.options(&owner, self.assembly.group(&owner, id), Some(id))?;
            let handle = spawn_sink(guarded, options);
            let view = handle.view();
            self.assembly.processors.add(view.clone());
            return Ok((Some(handle), view));
        }
        let options = self.assembly.options(&owner, carbon_log::Group::new(&owner, id), Some(id))?;
        let (group, topics) = (options.group.clone(), options.topics.clone());
        let own = folds.then(|| spawn_shared_sink(guarded, options));
        if let Some(own) = &own {
            self.assembly.processors.add(own.view());
        }
        let rows = SharedRows {
            name: owner,
            generation: id.clone(),
            group,
            topics,
            namespace,
            log: self.assembly.log.clone(),
            own: own.as_ref().map(ProcessorHandle::view),
            shutdown: stop.clone(),
        };
        Ok((own, rows.follow(&self.assembly.supervisor)))
    }
}

#[async_trait]
impl<P: Projection> Kept for Relational<P> {
    type Open = OpenRows;

    fn name(&self) -> &str {
        P::NAME
    }

    fn version(&self) -> u32 {
        P::VERSION
    }

    fn cut_over(&self) -> CutOver {
        self.cut_over
    }

    fn fills(&self) -> bool {
        match &self.place {
            Place::Files(_) => true,
            Place::Postgres { folds, shared, .. } => *folds || !shared,
        }
    }

    fn model(&self) -> Option<ModelRef> {
        None
    }

    async fn open(&self, generation: &Generation) -> Result<OpenRows, ProcessorError> {
        let sink = self.sink(&generation.id).await?;
        let namespace = sink.namespace().clone();
        let stop = self.assembly.shutdown().child_token();
        let (fold, view) = self.fold(&generation.id, sink, &stop)?;
        let rows = Arc::new(Rows::new(generation.id.clone(), namespace, view));
        Ok(OpenRows { rows, fold, ends: Mutex::default(), stop })
    }

    fn view(&self, open: &OpenRows) -> ProcessorView {
        open.rows.view.clone()
    }

    fn check(&self, open: &OpenRows) -> FileCheck {
        let namespace = open.rows.namespace.clone();
        Arc::new(move || namespace.check().map_err(|error| error.to_string()))
    }

    async fn is_filled(&self, open: &OpenRows) -> Result<bool, ProcessorError> {
        let namespace = &open.rows.namespace;
        Ok(namespace.is_filled().await? && !self.assembly.is_foreign(&namespace.checkpoint().await?).await?)
    }

    async fn set_filled(&self, open: &OpenRows) -> Result<(), ProcessorError> {
        Ok(open.rows.namespace.set_filled().await?)
    }

    async fn fill(&self, open: &OpenRows, begin: bool) -> Result<Fill, ProcessorError> {
        let (log, view, mut ends) = (&self.assembly.log, &open.rows.view, open.ends.lock().await);
        if begin {
            *ends = view.ends(&**log).await?;
        }
        Ok(fill_of(view, &ends))
    }

    async fn summary(&self, open: &OpenRows) -> Result<Summary, ProcessorError> {
        let mut snapshot = open.rows.namespace.snapshot().await?;
        let positions = snapshot.checkpoint().await?.positions;
        let digest = digest_of::<P>(&mut snapshot).await?;
        snapshot.end().await?;
        Ok(Summary { positions, rows: i64::try_from(digest.rows).ok(), digest: Some(digest.sha256) })
    }

    async fn switch(&self, to: &OpenRows, from: Option<&OpenRows>) -> Result<bool, ProcessorError> {
        if let Place::Postgres { database, shared: true, .. } = &self.place {
            let (version, id) = (P::VERSION, to.rows.generation.as_str());
            let served = database.serving(P::NAME, version).await?;
            if served.as_deref() != Some(id) {
                let from = from.map(|from| &from.rows.namespace);
                if !database.switch(P::NAME, version, &to.rows.namespace, from).await? {
                    return Ok(false);
                }
            }
            self.handle.set(to.rows.clone());
            return Ok(true);
        }
        if let Some(from) = from {
            // Nothing is committed to either while the positions are compared.
            let _old = match &from.fold {
                Some(fold) => Some(fold.hold().await),
                None => None,
            };
            let reached = from.rows.view.progress.borrow().positions.clone();
            if !to.rows.view.reached(&reached, SWITCH_WITHIN).await {
                return Ok(false);
            }
            let _new = match &to.fold {
                Some(fold) => Some(fold.hold().await),
                None => None,
            };
            if !to.rows.view.progress.borrow().has_reached(&reached) {
                return Ok(false);
            }
            self.handle.set(to.rows.clone());
            return Ok(true);
        }
        self.handle.set(to.rows.clone());
        Ok(true)
    }

    fn withdraw(&self, why: &str) {
        self.handle.withdraw(why);
    }

    fn show(&self, progress: Filling) {
        self.handle.set_filling(progress);
    }

    fn set_siblings(&self, siblings: Vec<ProcessorView>) {
        self.handle.set_siblings(siblings);
    }

    async fn close(&self, open: OpenRows) {
        open.stop.cancel();
        if let Some(fold) = open.fold {
            self.assembly.stop(fold).await;
        }
        self.handle.withdraw_if(|served| std::ptr::eq(served, &*open.rows), "the process stops");
        unshared(&open.rows).await;
        open.rows.namespace.close().await;
    }

    async fn drop_namespace(&self, id: &GenerationId) -> Result<(), ProcessorError> {
        match &self.place {
            Place::Files(root) => remove_folder(&root.join(id.as_str())),
            Place::Postgres { database, .. } => {
                Ok(Namespace::drop_site(&Site::Schema(database.clone(), id.as_str().to_owned())).await?)
            }
        }
    }
}

/// Waits until no request holds the snapshot any more, for at most 10 s.
pub(super) async fn unshared<T>(snapshot: &Arc<T>) {
    let deadline = tokio::time::Instant::now() + REQUESTS_WITHIN;
    while Arc::strong_count(snapshot) > 1 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Compares the positions of a fold with the ends that its generation is filled to. The processor's view names those ends
/// until they are reached.
pub(super) fn fill_of(view: &ProcessorView, ends: &Positions) -> Fill {
    let progress = view.progress.borrow();
    if progress.has_reached(ends) {
        drop(progress);
        view.fill.set(None);
        return Fill::Done;
    }
    let assigned = ends.iter().all(|(at, _)| progress.positions.get(at).is_some());
    let folded = ends.iter().map(|(at, end)| progress.positions.next(at).min(end)).sum();
    drop(progress);
    view.fill.set(Some(ends.clone()));
    let state = view.state();
    Fill::Filling(match state.moves() {
        false => Filling::Waiting(format!("the fold is {state}")),
        true if !assigned => Filling::Waiting("the fold waits for its partitions".into()),
        true => Filling::Records { folded, of: ends.iter().map(|(_, end)| end).sum() },
    })
}

/// Removes the folder of a generation; absent is as good.
pub(super) fn remove_folder(folder: &std::path::Path) -> Result<(), ProcessorError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ProcessorError::unavailable(format!("{}: {error}", folder.display())))
        }
        _ => Ok(()),
    }
}
