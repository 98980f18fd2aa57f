//! The processors of a process: they come and go with generations.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::progress::ProcessorView;

/// The views of the processors that run here.
#[derive(Clone, Default)]
pub struct Processors(Arc<Mutex<Vec<ProcessorView>>>);

impl Processors {
    fn locked(&self) -> MutexGuard<'_, Vec<ProcessorView>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a view; one of the same group is replaced.
    pub fn add(&self, view: ProcessorView) {
        let mut views = self.locked();
        views.retain(|known| known.group != view.group);
        views.push(view);
    }

    pub fn remove(&self, view: &ProcessorView) {
        self.locked().retain(|known| known.group != view.group);
    }

    pub fn all(&self) -> Vec<ProcessorView> {
        self.locked().clone()
    }
}
