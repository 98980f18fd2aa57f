//! A cache of active runs and experiments, so that repeated writes to the same run do not query the read model. The fold
//! decides about every write; the check before the append only keeps records without effect out of the log.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carbon_core::TenantId;

/// Maximum number of entries. A full cache is cleared.
const MAX_ENTRIES: usize = 20_000;

/// The cache of one generation. An entry is valid for one epoch of the namespace (`deletion_count`), which ends with the
/// next deletion. Where the namespace has no epoch, because other processes commit to it too, nothing is cached.
///
/// Callers pass the epoch that they read *before* they queried the read model.
#[derive(Debug, Default)]
pub(crate) struct ActiveCache(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    epoch: u64,
    count: usize,
    runs: HashMap<TenantId, HashSet<String>>,
    /// The artifact locations of active experiments, by experiment id.
    experiments: HashMap<TenantId, HashMap<i64, Arc<str>>>,
}

impl ActiveCache {
    /// Returns the entries if they are valid in `epoch`. Clears them first if `epoch` is newer or the cache is full.
    fn entries(&self, epoch: Option<u64>) -> Option<MutexGuard<'_, Entries>> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if epoch? > entries.epoch || entries.count >= MAX_ENTRIES {
            *entries = Entries { epoch: epoch?, ..Entries::default() };
        }
        // A request that began before a deletion must not add entries after it.
        (Some(entries.epoch) == epoch).then_some(entries)
    }

    pub fn has_run(&self, epoch: Option<u64>, tenant: &TenantId, run_id: &str) -> bool {
        self.entries(epoch).is_some_and(|entries| entries.runs.get(tenant).is_some_and(|runs| runs.contains(run_id)))
    }

    pub fn add_run(&self, epoch: Option<u64>, tenant: &TenantId, run_id: &str) {
        if let Some(mut entries) = self.entries(epoch) {
            entries.count += 1;
            entries.runs.entry(tenant.clone()).or_default().insert(run_id.to_owned());
        }
    }

    pub fn artifact_location(&self, epoch: Option<u64>, tenant: &TenantId, experiment: i64) -> Option<Arc<str>> {
        self.entries(epoch)?.experiments.get(tenant)?.get(&experiment).cloned()
    }

    pub fn add_experiment(&self, epoch: Option<u64>, tenant: &TenantId, experiment: i64, artifact_location: &Arc<str>) {
        if let Some(mut entries) = self.entries(epoch) {
            entries.count += 1;
            entries.experiments.entry(tenant.clone()).or_default().insert(experiment, artifact_location.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    #[test]
    fn a_deletion_invalidates_entries_and_lookups_that_began_before_it() {
        let (cache, own, other) = (ActiveCache::default(), tenant("own"), tenant("other"));
        cache.add_run(Some(3), &own, "r");
        cache.add_experiment(Some(3), &own, 7, &"mlflow-artifacts:/7".into());
        assert!(cache.has_run(Some(3), &own, "r"));
        assert!(!cache.has_run(Some(3), &other, "r"));
        assert_eq!(cache.artifact_location(Some(3), &own, 7).as_deref(), Some("mlflow-artifacts:/7"));
        assert_eq!(cache.artifact_location(Some(3), &other, 7), None);
        assert!(!cache.has_run(Some(4), &own, "r"));
        assert_eq!(cache.artifact_location(Some(4), &own, 7), None);
        // A lookup that began before the deletion adds its result after it.
        cache.add_run(Some(3), &own, "r");
        assert!(!cache.has_run(Some(4), &own, "r"));
        assert!(!cache.has_run(Some(3), &own, "r"));
    }

    #[test]
    fn nothing_is_cached_without_an_epoch() {
        let (cache, own) = (ActiveCache::default(), tenant("own"));
        cache.add_run(None, &own, "r");
        assert!(!cache.has_run(None, &own, "r"));
    }

    #[test]
    fn a_full_cache_is_cleared() {
        let (cache, own) = (ActiveCache::default(), tenant("own"));
        (0..MAX_ENTRIES).for_each(|n| cache.add_run(Some(0), &own, &n.to_string()));
        cache.add_run(Some(0), &own, "last");
        assert!(cache.has_run(Some(0), &own, "last"));
        assert!(!cache.has_run(Some(0), &own, "0"));
    }
}
