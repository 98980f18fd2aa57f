//! Serving handles: what the active generation of a read model consists of, as one value that is swapped atomically. A
//! request takes one snapshot at its start and uses it to its end.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use carbon_core::{Classify, Fault, GenerationId, Retry};
use carbon_store::Namespace;

use crate::consume::ProcessorView;

/// How far a read model that is not served yet has been filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filling {
    /// Nothing is known yet: it waits for the log, for its partitions, or for weights.
    Waiting(String),
    /// Records that are folded, of those that the log held when the fill began.
    Records { folded: u64, of: u64 },
}

impl fmt::Display for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Filling::Waiting(why) => f.write_str(why),
            Filling::Records { folded, of } => write!(f, "{} of {} records", grouped(*folded), grouped(*of)),
        }
    }
}

/// `41200` as `41,200`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or_default()).collect();
    groups.join(",")
}

/// A read model has no generation that can answer yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filling {read_model}: {progress}")]
pub struct NotServing {
    pub read_model: String,
    pub progress: Filling,
}

impl NotServing {
    /// When to ask again.
    pub const RETRY_AFTER: Duration = Duration::from_secs(1);
}

impl Classify for NotServing {
    fn fault(&self) -> Fault {
        Fault::External
    }

    fn retry(&self) -> Retry {
        Retry::Later
    }
}

/// The serving handle of one read model.
pub struct Serving<T> {
    read_model: String,
    current: ArcSwapOption<T>,
    filling: Mutex<Filling>,
    /// The folds of the other generations that follow the log here.
    siblings: ArcSwap<Vec<ProcessorView>>,
}

impl<T> Serving<T> {
    /// Serves nothing yet.
    pub fn new(read_model: impl Into<String>) -> Self {
        Self {
            read_model: read_model.into(),
            current: ArcSwapOption::empty(),
            filling: Mutex::new(Filling::Waiting("starting".into())),
            siblings: ArcSwap::default(),
        }
    }

    pub fn read_model(&self) -> &str {
        &self.read_model
    }

    /// The snapshot for a request.
    pub fn get(&self) -> Result<Arc<T>, NotServing> {
        self.current.load_full().ok_or_else(|| NotServing {
            read_model: self.read_model.clone(),
            progress: self.filling.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        })
    }

    /// Whether a snapshot is the one that requests get now.
    pub fn is_current(&self, snapshot: &Arc<T>) -> bool {
        self.current.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, snapshot))
    }

    /// Switches all requests that start from now on.
    pub fn set(&self, value: Arc<T>) {
        self.current.store(Some(value));
    }

    /// Serves nothing from now on.
    pub fn withdraw(&self, why: impl Into<String>) {
        self.set_filling(Filling::Waiting(why.into()));
        self.current.store(None);
    }

    /// Serves nothing from now on, if what is served is this.
    pub fn withdraw_if(&self, which: impl Fn(&T) -> bool, why: &str) {
        let current = self.current.load_full();
        if current.as_ref().is_some_and(|value| which(value)) {
            self.set_filling(Filling::Waiting(why.to_owned()));
            // A switch that came meanwhile stays.
            self.current.compare_and_swap(&current, None);
        }
    }

    /// What callers are told while nothing is served.
    pub fn set_filling(&self, progress: Filling) {
        *self.filling.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    pub fn siblings(&self) -> Arc<Vec<ProcessorView>> {
        self.siblings.load_full()
    }

    pub fn set_siblings(&self, views: Vec<ProcessorView>) {
        self.siblings.store(Arc::new(views));
    }
}

/// What the active generation of a relational read model consists of.
pub struct Rows {
    pub generation: GenerationId,
    pub namespace: Namespace,
    /// Its fold.
    pub view: ProcessorView,
    caches: Caches,
}

impl Rows {
    pub fn new(generation: GenerationId, namespace: Namespace, view: ProcessorView) -> Self {
        Self { generation, namespace, view, caches: Caches::default() }
    }

    /// A cache of this generation's rows, made when it is first asked for. It goes with the generation.
    pub fn cache<C: Default + Send + Sync + 'static>(&self) -> Arc<C> {
        self.caches.get()
    }
}

/// One value of each type.
#[derive(Default)]
struct Caches(Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

impl Caches {
    fn get<C: Default + Send + Sync + 'static>(&self) -> Arc<C> {
        let mut caches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = caches.entry(TypeId::of::<C>()).or_insert_with(|| Arc::new(C::default()));
        // The key is the type.
        cache.clone().downcast().unwrap_or_default()
    }
}

/// The serving handles of the relational read models that this process holds, by name.
#[derive(Clone, Default)]
pub struct ReadModels(BTreeMap<String, Arc<Serving<Rows>>>);

impl ReadModels {
    /// Adds the handle of a read model that serves nothing yet.
    pub fn add(&mut self, read_model: &str) -> Arc<Serving<Rows>> {
        let handle = Arc::new(Serving::new(read_model));
        self.0.insert(read_model.to_owned(), handle.clone());
        handle
    }

    /// The handle of a read model; `None` where this process does not hold it.
    pub fn get(&self, read_model: &str) -> Option<&Arc<Serving<Rows>>> {
        self.0.get(read_model)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_its_snapshot_and_the_next_one_gets_the_new() {
        let serving = Serving::new("registry");
        serving.set_filling(Filling::Records { folded: 41_200, of: 1_090_000 });
        let error = serving.get().unwrap_err().to_string();
        assert_eq!(error, "filling registry: 41,200 of 1,090,000 records");
        serving.set(Arc::new(1));
        let before = serving.get().unwrap();
        serving.set(Arc::new(2));
        assert_eq!((*before, *serving.get().unwrap()), (1, 2));
        assert!(!serving.is_current(&before));
        serving.withdraw("it is rebuilt");
        assert!(serving.get().unwrap_err().to_string().contains("it is rebuilt"));
    }

    #[test]
    fn a_cache_is_made_once() {
        let caches = Caches::default();
        let (a, b) = (caches.get::<Mutex<u8>>(), caches.get::<Mutex<u8>>());
        *a.lock().unwrap() = 3;
        assert_eq!(*b.lock().unwrap(), 3);
        assert_eq!(*caches.get::<Mutex<u16>>().lock().unwrap(), 0);
    }
}
