//! A read model whose generations are numbers in memory, and a process that keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use carbon_core::{GenerationId, ModelRef, Positions, TopicName, TopicPartition};
use carbon_log::{Group, NewRecord};
use carbon_runtime::consume::{ProcessorError, ProcessorView, Progress};
use carbon_runtime::generations::{FileCheck, Fill, Keeper, KeeperStatus, Kept, SharedStatus, Summary, changed};
use carbon_runtime::{Filling, Generation, GenerationLog, Generations, Shutdown, Supervisor};
use carbon_schemas::Event as _;
use carbon_schemas::events::{GenerationChanged, GenerationState};
use carbon_topology::{CutOver, Topology};
use tokio::sync::{Mutex, watch};

use super::PATIENCE;
use super::script::ScriptedLog;

pub const REGISTRY: &str = "registry";

/// The rows of a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// The next offset of the fold.
    pub next: u64,
    pub filled: bool,
}

/// What lies on a process's disk, and what its read model was told.
#[derive(Default)]
pub struct Disk {
    pub namespaces: BTreeMap<GenerationId, Namespace>,
    /// The end of the folded topic.
    pub end: u64,
    /// Whether folds are at the end at once.
    pub folds: bool,
    pub open: BTreeSet<GenerationId>,
    pub served: Option<GenerationId>,
    pub siblings: Vec<GenerationId>,
    pub shown: Vec<Filling>,
    /// Generations that cannot be opened.
    pub unopenable: BTreeSet<GenerationId>,
    /// Calls of `fill` that panic.
    pub panics: usize,
    /// What was done, in order.
    pub done: Vec<String>,
    /// What must never happen.
    pub wrong: Vec<String>,
    pub refused_switches: usize,
}

impl Disk {
    fn note(&mut self, what: &str, id: &GenerationId) {
        self.done.push(format!("{what} {id}"));
    }

    /// How often something was done.
    pub fn times(&self, what: &str) -> usize {
        self.done.iter().filter(|done| *done == what).count()
    }
}

/// The disk, which a restart of its process keeps.
#[derive(Clone)]
pub struct SharedDisk(pub Arc<watch::Sender<Disk>>);

impl SharedDisk {
    /// An empty disk, of a process that folds as the test says.
    pub fn new(end: u64) -> Self {
        Self(Arc::new(watch::Sender::new(Disk { end, ..Disk::default() })))
    }

    /// The same of a process whose folds are at the end at once.
    pub fn folding(end: u64) -> Self {
        Self(Arc::new(watch::Sender::new(Disk { end, folds: true, ..Disk::default() })))
    }

    pub fn change(&self, change: impl FnOnce(&mut Disk)) {
        self.0.send_modify(change);
    }

    /// Moves the fold of a generation.
    pub fn fold(&self, id: &GenerationId, next: u64) {
        self.change(|disk| disk.namespaces.get_mut(id).unwrap().next = next);
    }

    pub fn now(&self) -> watch::Ref<'_, Disk> {
        self.0.borrow()
    }

    pub fn served(&self) -> Option<String> {
        self.now().served.as_ref().map(ToString::to_string)
    }

    /// Waits until the disk is as it should be.
    pub async fn until(&self, what: &str, is: impl FnMut(&Disk) -> bool) {
        let mut disk = self.0.subscribe();
        let waited = tokio::time::timeout(PATIENCE, disk.wait_for(is)).await.is_ok_and(|waited| waited.is_ok());
        let now = self.now();
        assert!(waited, "never came to: {what}; served {:?}, done {:?}", now.served, now.done);
        assert!(now.wrong.is_empty(), "{:?}", now.wrong);
    }

    pub async fn serves(&self, id: &GenerationId) {
        self.until(&format!("{id} is served"), |disk| disk.served.as_ref() == Some(id)).await;
    }

    pub async fn opens(&self, id: &GenerationId) {
        self.until(&format!("{id} is open"), |disk| disk.open.contains(id)).await;
    }
}

pub fn generation(version: u32, n: u32) -> GenerationId {
    GenerationId::derive(REGISTRY, version, None, n).unwrap()
}

/// The read model of a process.
pub struct Fake {
    pub disk: SharedDisk,
    pub version: u32,
    pub cut_over: CutOver,
    pub fills: bool,
}

pub struct Open {
    id: GenerationId,
    /// The end when the fill was first looked at.
    target: AtomicU64,
}

impl Fake {
    fn namespace(&self, id: &GenerationId) -> Namespace {
        self.disk.now().namespaces.get(id).cloned().unwrap_or_default()
    }
}

fn folded() -> TopicPartition {
    TopicPartition::new(TopicName::parse("ml.run.logged.v1").unwrap(), 0)
}

#[async_trait]
impl Kept for Fake {
    type Open = Open;

    fn name(&self) -> &str {
        REGISTRY
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn cut_over(&self) -> CutOver {
        self.cut_over
    }

    fn fills(&self) -> bool {
        self.fills
    }

    fn model(&self) -> Option<ModelRef> {
        None
    }

    async fn open(&self, generation: &Generation) -> Result<Open, ProcessorError> {
        let id = &generation.id;
        if self.disk.now().unopenable.contains(id) {
            return Err(ProcessorError::unavailable(format!("{id} cannot be opened")));
        }
        self.disk.change(|disk| {
            if generation.version != self.version {
                disk.wrong.push(format!("version {} opens {id}", self.version));
            }
            disk.namespaces.entry(id.clone()).or_default();
            if !disk.open.insert(id.clone()) {
                disk.wrong.push(format!("{id} is open twice"));
            }
            disk.note("open", id);
        });
        Ok(Open { id: id.clone(), target: AtomicU64::new(0) })
    }

    fn view(&self, open: &Open) -> ProcessorView {
        let (_, progress) = watch::channel(Progress::default());
        let mut view = ProcessorView::new("fold".into(), Group::new("fold", &open.id), Vec::new(), progress);
        view.generation = Some(open.id.clone());
        view
    }

    fn check(&self, _: &Open) -> FileCheck {
        Arc::new(|| Ok(()))
    }

    async fn is_filled(&self, open: &Open) -> Result<bool, ProcessorError> {
        Ok(self.namespace(&open.id).filled)
    }

    async fn set_filled(&self, open: &Open) -> Result<(), ProcessorError> {
        self.disk.change(|disk| {
            disk.namespaces.entry(open.id.clone()).or_default().filled = true;
            disk.note("filled", &open.id);
        });
        Ok(())
    }

    async fn fill(&self, open: &Open, begin: bool) -> Result<Fill, ProcessorError> {
        let panics = self.disk.now().panics;
        if panics > 0 {
            self.disk.change(|disk| disk.panics -= 1);
            panic!("scripted");
        }
        if self.disk.now().folds {
            let end = self.disk.now().end;
            self.disk.fold(&open.id, end);
        }
        let (next, end) = (self.namespace(&open.id).next, self.disk.now().end);
        if begin {
            open.target.store(end, Ordering::SeqCst);
        }
        let of = open.target.load(Ordering::SeqCst);
        let progress = Filling::Records { folded: next, of };
        Ok(if next >= of { Fill::Done } else { Fill::Filling(progress) })
    }

    async fn summary(&self, open: &Open) -> Result<Summary, ProcessorError> {
        let next = self.namespace(&open.id).next;
        let positions = Positions::from_iter([(folded(), next)]);
        Ok(Summary { positions, rows: Some(next as i64), digest: Some("digest".into()) })
    }

    async fn switch(&self, to: &Open, from: Option<&Open>) -> Result<bool, ProcessorError> {
        let reached = self.namespace(&to.id);
        let wanted = from.map_or(0, |from| self.namespace(&from.id).next);
        if reached.next < wanted {
            self.disk.change(|disk| disk.refused_switches += 1);
            return Ok(false);
        }
        self.disk.change(|disk| {
            if !reached.filled {
                disk.wrong.push(format!("{} is served before it was filled", to.id));
            }
            disk.served = Some(to.id.clone());
            disk.note("serve", &to.id);
        });
        Ok(true)
    }

    fn withdraw(&self, why: &str) {
        self.disk.change(|disk| {
            disk.served = None;
            disk.done.push(format!("withdraw: {why}"));
        });
    }

    fn show(&self, progress: Filling) {
        self.disk.change(|disk| disk.shown.push(progress));
    }

    fn set_siblings(&self, siblings: Vec<ProcessorView>) {
        let siblings: Vec<_> = siblings.into_iter().filter_map(|view| view.generation).collect();
        let changed = |disk: &mut Disk| {
            let changed = disk.siblings != siblings;
            disk.siblings = siblings;
            changed
        };
        self.disk.0.send_if_modified(changed);
    }

    async fn close(&self, open: Open) {
        self.disk.change(|disk| {
            if disk.served.as_ref() == Some(&open.id) {
                disk.served = None;
            }
            disk.open.remove(&open.id);
            disk.note("close", &open.id);
        });
    }

    async fn drop_namespace(&self, id: &GenerationId) -> Result<(), ProcessorError> {
        self.disk.change(|disk| {
            if disk.open.contains(id) {
                disk.wrong.push(format!("{id} is dropped while it is open"));
            }
            if disk.namespaces.remove(id).is_some() {
                disk.note("drop", id);
            }
        });
        Ok(())
    }
}

/// A running process.
pub struct Process {
    pub generations: GenerationLog,
    pub status: SharedStatus,
    pub disk: SharedDisk,
    keeper: Arc<Mutex<Keeper<Fake>>>,
    supervisor: Supervisor,
}

impl Process {
    pub fn start(log: &Arc<ScriptedLog>, disk: &SharedDisk, version: u32) -> Self {
        Self::start_with(log, Fake { disk: disk.clone(), version, cut_over: CutOver::Manual, fills: true })
    }

    pub fn start_with(log: &Arc<ScriptedLog>, fake: Fake) -> Self {
        let (supervisor, disk) = (Supervisor::new(Shutdown::new()), fake.disk.clone());
        let topology = Topology::builtin().unwrap();
        let generations = GenerationLog::start(log.clone(), &topology, &supervisor).unwrap();
        let (status, keeper) = Keeper::start(fake, generations.clone(), &supervisor);
        Self { generations, status, disk, keeper, supervisor }
    }

    pub fn status(&self) -> KeeperStatus {
        self.status.now()
    }

    /// Waits until the status is as it should be.
    pub async fn shows(&self, what: &str, is: impl Fn(&KeeperStatus) -> bool) {
        let shown = tokio::time::timeout(PATIENCE, async {
            while !is(&self.status()) {
                pass(Duration::from_millis(10)).await;
            }
        });
        assert!(shown.await.is_ok(), "the keeper never showed: {what}");
    }

    pub fn now(&self) -> Generations {
        self.generations.now()
    }

    pub fn state(&self, id: &GenerationId) -> Option<GenerationState> {
        self.now().get(id).map(|generation| generation.state)
    }

    /// Waits until the log says this of a generation.
    pub async fn is(&self, id: &GenerationId, state: GenerationState) {
        let mut changes = self.generations.changes();
        let waited = tokio::time::timeout(PATIENCE, async {
            while self.state(id) != Some(state) {
                changes.next().await;
            }
        });
        assert!(waited.await.is_ok(), "{id} is {:?}, not {state:?}", self.state(id));
    }

    pub async fn stop(self) {
        self.supervisor.shutdown().cancel();
        self.supervisor.join(std::time::Duration::from_secs(10)).await;
        self.keeper.lock().await.close().await;
        let disk = self.disk.now();
        assert!(disk.open.is_empty() && disk.wrong.is_empty(), "{:?} {:?}", disk.open, disk.wrong);
    }
}

/// A record of a generation.
pub fn record(id: &GenerationId, version: u32, state: GenerationState) -> GenerationChanged {
    changed(REGISTRY, id, version, state)
}

pub fn put(log: &ScriptedLog, event: &GenerationChanged) {
    log.put(NewRecord::event(event).unwrap());
}

/// The states that a generation's records say, in order.
pub fn said(log: &ScriptedLog, id: &GenerationId) -> Vec<GenerationState> {
    events(log).into_iter().filter(|event| event.generation == *id).map(|event| event.state).collect()
}

pub fn events(log: &ScriptedLog) -> Vec<GenerationChanged> {
    let spec = Topology::builtin().unwrap().topics[GenerationChanged::NAME].spec.clone();
    let mut decoder = carbon_schemas::Decoder::<GenerationChanged>::new(spec.partitions, spec.partitioner);
    let held = log.held();
    let mut decode = |record: &&carbon_log::Record| match decoder.decode(&record.raw()) {
        Ok(carbon_schemas::Decoded::Event { event, .. }) => event,
        other => panic!("{other:?}"),
    };
    held.records(GenerationChanged::NAME).iter().map(&mut decode).collect()
}

/// Lets everything that is due within this time happen.
pub async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}
