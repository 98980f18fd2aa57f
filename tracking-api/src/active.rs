//! Runs and experiments that were found active: who writes to one again need not ask the read model, until something is
//! deleted. The fold decides in any case; asking first keeps out of the log what would change nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carbon_core::TenantId;

/// So many are known; then all are forgotten.
const LIMIT: usize = 20_000;

/// What is known in an era of the namespace (`deletion_count`); nothing, where that has none.
#[derive(Debug, Default)]
pub(crate) struct Active(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    era: u64,
    count: usize,
    runs: HashMap<TenantId, HashSet<String>>,
    /// And where their artifacts lie.
    experiments: HashMap<TenantId, HashMap<i64, Arc<str>>>,
}

impl Active {
    /// What is known in this era.
    fn known(&self, era: Option<u64>) -> Option<MutexGuard<'_, Known>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if era? > known.era || known.count >= LIMIT {
            *known = Known { era: era?, ..Known::default() };
        }
        // One that began before a deletion may not add to what is known after it.
        (Some(known.era) == era).then_some(known)
    }

    pub fn has_run(&self, era: Option<u64>, tenant: &TenantId, run_id: &str) -> bool {
        self.known(era).is_some_and(|known| known.runs.get(tenant).is_some_and(|runs| runs.contains(run_id)))
    }

    /// The era is that before the look.
    pub fn add_run(&self, era: Option<u64>, tenant: &TenantId, run_id: &str) {
        if let Some(mut known) = self.known(era) {
            known.count += 1;
            known.runs.entry(tenant.clone()).or_default().insert(run_id.to_owned());
        }
    }

    pub fn artifact_location(&self, era: Option<u64>, tenant: &TenantId, experiment: i64) -> Option<Arc<str>> {
        self.known(era)?.experiments.get(tenant)?.get(&experiment).cloned()
    }

    /// The era is that before the look.
    pub fn add_experiment(&self, era: Option<u64>, tenant: &TenantId, experiment: i64, artifact_location: &Arc<str>) {
        if let Some(mut known) = self.known(era) {
            known.count += 1;
            known.experiments.entry(tenant.clone()).or_default().insert(experiment, artifact_location.clone());
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
    fn a_deletion_ends_what_is_known_and_what_was_looked_up_before_it() {
        let (active, own, other) = (Active::default(), tenant("own"), tenant("other"));
        active.add_run(Some(3), &own, "r");
        active.add_experiment(Some(3), &own, 7, &"mlflow-artifacts:/7".into());
        assert!(active.has_run(Some(3), &own, "r"));
        assert!(!active.has_run(Some(3), &other, "r"));
        assert_eq!(active.artifact_location(Some(3), &own, 7).as_deref(), Some("mlflow-artifacts:/7"));
        assert_eq!(active.artifact_location(Some(3), &other, 7), None);
        assert!(!active.has_run(Some(4), &own, "r"));
        assert_eq!(active.artifact_location(Some(4), &own, 7), None);
        // A look that began before the deletion comes late.
        active.add_run(Some(3), &own, "r");
        assert!(!active.has_run(Some(4), &own, "r"));
        assert!(!active.has_run(Some(3), &own, "r"));
    }

    #[test]
    fn nothing_is_known_where_others_commit_too() {
        let (active, own) = (Active::default(), tenant("own"));
        active.add_run(None, &own, "r");
        assert!(!active.has_run(None, &own, "r"));
    }

    #[test]
    fn it_forgets_rather_than_grows() {
        let (active, own) = (Active::default(), tenant("own"));
        (0..LIMIT).for_each(|n| active.add_run(Some(0), &own, &n.to_string()));
        active.add_run(Some(0), &own, "last");
        assert!(active.has_run(Some(0), &own, "last"));
        assert!(!active.has_run(Some(0), &own, "0"));
    }
}
