//! Readiness: the parts of a process, each named, with its state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

/// The state of one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Whether it runs as it should.
    pub ready: bool,
    /// Whether the process can answer its routes without it.
    pub optional: bool,
    /// What it waits for, why it does not run, or what it is.
    pub detail: String,
}

impl Check {
    pub fn ready(detail: impl Into<String>) -> Self {
        Self { ready: true, optional: false, detail: detail.into() }
    }

    pub fn failing(detail: impl Into<String>) -> Self {
        Self { ready: false, optional: false, detail: detail.into() }
    }

    /// The same of a part that the routes can be answered without.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { optional: true, ..self }
    }
}

type Probe = Arc<dyn Fn() -> BTreeMap<String, Check> + Send + Sync>;

/// The parts of a process. Some say how they are when it changes, others are asked.
#[derive(Default)]
pub struct Health {
    parts: Mutex<Parts>,
}

#[derive(Default)]
struct Parts {
    said: BTreeMap<String, Check>,
    probes: Vec<Probe>,
}

/// How often a wait for readiness looks.
const POLL: Duration = Duration::from_millis(10);

impl Health {
    /// Starts with these parts not ready.
    pub fn new(parts: &[&str]) -> Self {
        let said = parts.iter().map(|part| ((*part).to_owned(), Check::failing("starting"))).collect();
        Self { parts: Mutex::new(Parts { said, probes: Vec::new() }) }
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, part: &str, check: Check) {
        self.parts().said.insert(part.to_owned(), check);
    }

    /// Adds parts that are asked for their state each time somebody wants to know. A probe must not block.
    pub fn probe(&self, probe: impl Fn() -> BTreeMap<String, Check> + Send + Sync + 'static) {
        self.parts().probes.push(Arc::new(probe));
    }

    pub fn checks(&self) -> BTreeMap<String, Check> {
        let (mut checks, probes) = {
            let parts = self.parts();
            (parts.said.clone(), parts.probes.clone())
        };
        checks.extend(probes.iter().flat_map(|probe| probe()));
        checks
    }

    /// Whether the process can answer its routes.
    pub fn ready(&self) -> bool {
        is_ready(&self.checks())
    }

    /// Waits until the process can answer its routes.
    pub async fn wait_ready(&self) {
        while !self.ready() {
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Whether the routes can be answered: every part that they need is ready.
pub fn is_ready(checks: &BTreeMap<String, Check>) -> bool {
    checks.values().all(|check| check.ready || check.optional)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_optional_part_is_named_and_does_not_count() {
        let health = Health::new(&["log"]);
        assert!(!health.ready());
        health.set("log", Check::ready("open"));
        health.probe(|| BTreeMap::from([("embedder".to_owned(), Check::failing("halted").optional())]));
        assert!(health.ready());
        assert!(!health.checks()["embedder"].ready);
        health.probe(|| BTreeMap::from([("registry".to_owned(), Check::failing("filling"))]));
        assert!(!health.ready());
    }
}
