//! The keeper of a read model: it compares what the log says of the generations of this process's fold version with what is
//! open here, and closes the difference. Claim, open, fill, report as ready, activate, switch, retire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carbon_core::{GenerationId, ModelRef, derived_id};
use carbon_schemas::events::{GenerationState, Reached};
use carbon_topology::CutOver;

use super::fold::{Generation, Generations};
use super::follow::GenerationLog;
use super::kept::{FileCheck, Fill, Kept, Summary};
use super::records::{change_of, claim};
use crate::Shutdown;
use crate::consume::{ProcessorError, ProcessorView};
use crate::serving::Filling;
use crate::supervisor::{Policy, Supervisor};

/// How often a generation that is being filled is looked at.
const FILL_POLL: Duration = Duration::from_millis(10);
/// How often everything is compared, in case a change was missed or an attempt failed.
const POLL: Duration = Duration::from_secs(1);
/// How soon a switch is tried again, while the new generation is behind the old one.
const SWITCH_RETRY: Duration = Duration::from_millis(20);

/// What a keeper shows of itself.
#[derive(Clone, Default)]
pub struct KeeperStatus {
    /// The fold version of this process.
    pub version: u32,
    /// The model of a new generation, where it holds vectors.
    pub model: Option<ModelRef>,
    pub served: Option<GenerationId>,
    /// Whether the served generation has reached the ends that its topics had when the process started.
    pub caught_up: bool,
    /// How far the generation that is waited for is filled.
    pub filling: Option<Filling>,
    /// The fold of the served generation.
    pub view: Option<ProcessorView>,
    /// Whether the files of the served generation are still there.
    pub check: Option<FileCheck>,
    /// Why the last attempt to open, fill or switch failed.
    pub error: Option<String>,
}

impl KeeperStatus {
    /// Nothing is served any more.
    fn withdrawn(&mut self) {
        (self.served, self.view, self.check, self.caught_up) = (None, None, None, false);
    }
}

/// The status of a keeper, as others read it.
#[derive(Clone, Default)]
pub struct SharedStatus(Arc<Mutex<KeeperStatus>>);

impl SharedStatus {
    pub fn now(&self) -> KeeperStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut KeeperStatus)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The status of every keeper of a process, by read model.
pub type Keepers = Arc<BTreeMap<String, SharedStatus>>;

struct Held<O> {
    open: O,
    /// Whether the rows may be served.
    filled: bool,
    caught_up: bool,
    /// Whether the ends that it is filled to were read.
    begun: bool,
}

/// Keeps the generations of one read model.
pub struct Keeper<R: Kept> {
    read_model: R,
    log: GenerationLog,
    shutdown: Shutdown,
    held: BTreeMap<GenerationId, Held<R::Open>>,
    served: Option<GenerationId>,
    /// Retired generations whose namespaces are dropped.
    dropped: BTreeSet<GenerationId>,
    status: SharedStatus,
    warned_of_model: bool,
}

impl<R: Kept> Keeper<R> {
    /// Starts to keep a read model, as a supervised task. Answers its status, and the keeper itself for the shutdown.
    pub fn start(
        read_model: R,
        log: GenerationLog,
        supervisor: &Supervisor,
    ) -> (SharedStatus, Arc<tokio::sync::Mutex<Self>>) {
        let status = SharedStatus::default();
        let (version, model) = (read_model.version(), read_model.model());
        status.change(|status| (status.version, status.model) = (version, model));
        let name = format!("keeper of {}", read_model.name());
        let keeper = Self {
            read_model,
            log,
            shutdown: supervisor.shutdown().clone(),
            held: BTreeMap::new(),
            served: None,
            dropped: BTreeSet::new(),
            status: status.clone(),
            warned_of_model: false,
        };
        let keeper = Arc::new(tokio::sync::Mutex::new(keeper));
        let kept = keeper.clone();
        supervisor.spawn(name, Policy::Restart, move || {
            let kept = kept.clone();
            async move { kept.lock().await.run().await }
        });
        (status, keeper)
    }

    async fn run(&mut self) -> Result<(), ProcessorError> {
        let shutdown = self.shutdown.clone();
        let mut changes = self.log.changes();
        tokio::select! {
            () = self.log.caught_up() => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        loop {
            let wait = match self.step().await {
                Ok(wait) => {
                    self.say(|status| status.error = None);
                    wait
                }
                Err(error) => {
                    tracing::warn!(read_model = self.read_model.name(), %error, "generations not as the log says; retrying");
                    self.say(|status| status.error = Some(error.to_string()));
                    self.show_waiting(&error.to_string());
                    POLL
                }
            };
            tokio::select! {
                () = changes.next() => {}
                () = tokio::time::sleep(wait) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }

    /// Closes all generations, at the shutdown.
    pub async fn close(&mut self) {
        while let Some((_, held)) = self.held.pop_first() {
            self.read_model.close(held.open).await;
        }
    }

    fn say(&self, change: impl FnOnce(&mut KeeperStatus)) {
        self.status.change(change);
    }

    fn show_waiting(&self, why: &str) {
        if self.served.is_none() {
            self.read_model.show(Filling::Waiting(why.to_owned()));
            self.say(|status| status.filling = Some(Filling::Waiting(why.to_owned())));
        }
    }

    /// Does what can be done now; answers when to look again. What fails holds up nothing else: the first error is answered
    /// when the rest is done.
    async fn step(&mut self) -> Result<Duration, ProcessorError> {
        let claimed = self.claim_first().await;
        let opened = self.open_wanted(&self.log.now()).await;
        let filled = self.fill().await;
        let reported = self.report(&self.log.now()).await;
        let switched = self.switch(&self.log.now()).await;
        let closed = self.close_unwanted(&self.log.now()).await;
        self.set_siblings();
        claimed.and(opened).and(reported).and(closed)?;
        Ok(filled?.min(switched?))
    }

    /// Claims a generation where the log has none of this fold version.
    async fn claim_first(&self) -> Result<(), ProcessorError> {
        let generations = self.log.now();
        if !generations.live(self.read_model.name(), self.read_model.version()).is_empty() {
            return Ok(());
        }
        if self.read_model.fills() {
            return self.claim(&generations).await;
        }
        self.show_waiting("no process has claimed a generation yet");
        Ok(())
    }

    async fn claim(&self, generations: &Generations) -> Result<(), ProcessorError> {
        let (name, version, model) = (self.read_model.name(), self.read_model.version(), self.read_model.model());
        let event = claim(generations, name, version, model.as_ref())?;
        self.log.append(&event).await?;
        tracing::info!(read_model = name, generation = %event.generation, "generation claimed");
        Ok(())
    }

    /// Opens the generations that are active, on standby, or on their way to be.
    async fn open_wanted(&mut self, generations: &Generations) -> Result<(), ProcessorError> {
        let mut failed = None;
        for generation in self.wanted(generations) {
            if self.held.contains_key(&generation.id) {
                continue;
            }
            self.warn_of_model(&generation);
            let opened = async {
                let open = self.read_model.open(&generation).await?;
                let filled = self.read_model.is_filled(&open).await?;
                Ok::<_, ProcessorError>(Held { open, filled, caught_up: false, begun: false })
            };
            match opened.await {
                Ok(held) => {
                    tracing::info!(generation = %generation.id, filled = held.filled, "generation opened");
                    self.held.insert(generation.id.clone(), held);
                }
                // The others are opened all the same.
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn wanted(&self, generations: &Generations) -> Vec<Generation> {
        let (name, version) = (self.read_model.name(), self.read_model.version());
        let live = generations.live(name, version);
        let active = live.iter().filter(|g| g.activated.is_some()).take(2);
        active.chain(live.iter().filter(|g| g.activated.is_none())).map(|g| (*g).clone()).collect()
    }

    fn warn_of_model(&mut self, generation: &Generation) {
        let configured = self.read_model.model();
        if !self.warned_of_model && generation.activated.is_some() && generation.model != configured {
            let name = |model: &Option<ModelRef>| model.as_ref().map(ToString::to_string).unwrap_or_default();
            let (active, configured) = (name(&generation.model), name(&configured));
            tracing::warn!(
                generation = %generation.id, active, configured,
                "the active generation decides the model; to change it run `carbon-ml reindex --model {configured}`"
            );
            self.warned_of_model = true;
        }
    }

    /// Looks how far each generation is; what has reached its ends is filled, for good.
    async fn fill(&mut self) -> Result<Duration, ProcessorError> {
        let ids: Vec<_> = self.held.keys().cloned().collect();
        let mut wait = Ok(POLL);
        for id in ids {
            let filled = self.fill_one(&id).await;
            wait = wait.and_then(|wait: Duration| Ok(wait.min(filled?)));
        }
        wait
    }

    async fn fill_one(&mut self, id: &GenerationId) -> Result<Duration, ProcessorError> {
        let Some(held) = self.held.get_mut(id) else { return Ok(POLL) };
        // A reset while running empties the rows again.
        if held.filled && !self.read_model.is_filled(&held.open).await? {
            tracing::warn!(generation = %id, "the rows were thrown away; the generation is filled again");
            (held.filled, held.caught_up, held.begun) = (false, false, false);
            if self.served.as_ref() == Some(id) {
                self.read_model.withdraw("it is rebuilt");
                self.served = None;
                self.status.change(KeeperStatus::withdrawn);
            }
        }
        if held.caught_up {
            return Ok(POLL);
        }
        let fill = self.read_model.fill(&held.open, !held.begun).await?;
        held.begun = true;
        match fill {
            Fill::Done => {
                if !held.filled {
                    self.read_model.set_filled(&held.open).await?;
                    tracing::info!(generation = %id, "generation filled");
                }
                (held.filled, held.caught_up) = (true, true);
                Ok(POLL)
            }
            Fill::Filling(progress) => {
                if self.served.is_none() && !held.filled {
                    self.read_model.show(progress.clone());
                }
                self.status.change(|status| status.filling = Some(progress));
                Ok(FILL_POLL)
            }
        }
    }

    /// Says in the log that a generation is ready, and activates the first one of a fold version, or any where the
    /// topology says `cut_over: auto`.
    async fn report(&self, generations: &Generations) -> Result<(), ProcessorError> {
        let mut reported = Ok(());
        if self.read_model.fills() {
            for (id, held) in self.held.iter().filter(|(_, held)| held.filled && held.caught_up) {
                if let Some(generation) = generations.get(id) {
                    reported = reported.and(self.report_one(generation, held).await);
                }
            }
        }
        reported
    }

    async fn report_one(&self, generation: &Generation, held: &Held<R::Open>) -> Result<(), ProcessorError> {
        let (name, version, id) = (self.read_model.name(), self.read_model.version(), &generation.id);
        if generation.state == GenerationState::Building {
            let Summary { positions, rows, digest } = self.read_model.summary(&held.open).await?;
            let mut event = change_of(generation, GenerationState::Ready);
            event.event_id = derived_id(&["generation", id.as_str(), "ready"]);
            (event.positions, event.rows, event.digest) = (Reached::list(&positions), rows, digest);
            self.log.append(&event).await?;
        }
        let now = self.log.now();
        let is_ready = now.get(id).is_some_and(|own| own.state == GenerationState::Ready);
        let first = now.active(name, version).is_none();
        if is_ready && (first || self.read_model.cut_over() == CutOver::Auto) {
            let mut event = change_of(generation, GenerationState::Active);
            event.event_id = derived_id(&["generation", id.as_str(), "active", &generation.claimed.to_string()]);
            self.log.append(&event).await?;
            tracing::info!(generation = %id, "generation activated");
        }
        Ok(())
    }

    /// Serves the generation that the last activation names, as soon as it is filled here.
    async fn switch(&mut self, generations: &Generations) -> Result<Duration, ProcessorError> {
        let active = generations.active(self.read_model.name(), self.read_model.version());
        let Some(active) = active.map(|g| g.id.clone()) else { return Ok(POLL) };
        let Some(to) = self.held.get(&active).filter(|held| held.filled) else { return Ok(POLL) };
        if self.served.as_ref() == Some(&active) {
            let caught_up = to.caught_up;
            self.say(|status| {
                status.caught_up = caught_up;
                status.filling = if caught_up { None } else { status.filling.clone() };
            });
            return Ok(POLL);
        }
        let from = self.served.as_ref().and_then(|served| self.held.get(served));
        if !self.read_model.switch(&to.open, from.map(|held| &held.open)).await? {
            return Ok(SWITCH_RETRY);
        }
        let from = self.served.replace(active.clone()).map(|id| id.to_string());
        tracing::info!(read_model = self.read_model.name(), generation = %active, from, "generation served");
        let (caught_up, view, check) = (to.caught_up, self.read_model.view(&to.open), self.read_model.check(&to.open));
        self.say(|status| {
            status.served = Some(active);
            (status.caught_up, status.view, status.check) = (caught_up, Some(view), Some(check));
        });
        Ok(if caught_up { POLL } else { FILL_POLL })
    }

    /// Closes generations that nobody needs any more, and drops the namespaces of those that are retired.
    async fn close_unwanted(&mut self, generations: &Generations) -> Result<(), ProcessorError> {
        let wanted: BTreeSet<_> = self.wanted(generations).into_iter().map(|g| g.id).collect();
        let unwanted: Vec<_> = self.held.keys().filter(|id| !wanted.contains(*id)).cloned().collect();
        for id in unwanted {
            if self.served.as_ref() == Some(&id) {
                self.read_model.withdraw("the generation that was served is retired");
                self.served = None;
                self.say(KeeperStatus::withdrawn);
            }
            if let Some(held) = self.held.remove(&id) {
                self.read_model.close(held.open).await;
                tracing::info!(generation = %id, "generation closed");
            }
        }
        let own = |g: &&Generation| g.read_model == self.read_model.name() && g.state == GenerationState::Retired;
        let retired: Vec<_> = generations.iter().filter(own).map(|g| g.id.clone()).collect();
        for id in retired {
            if !self.dropped.contains(&id) {
                self.read_model.drop_namespace(&id).await?;
                self.dropped.insert(id);
            }
        }
        Ok(())
    }

    fn set_siblings(&self) {
        let others = self.held.iter().filter(|(id, held)| held.filled && self.served.as_ref() != Some(*id));
        self.read_model.set_siblings(others.map(|(_, held)| self.read_model.view(&held.open)).collect());
    }
}
