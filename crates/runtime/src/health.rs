//! Readiness: the parts that must be there, each named, with its state.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::sync::watch;

/// The state of one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub ready: bool,
    /// What it waits for, or what it is.
    pub detail: String,
}

/// What a process needs before it may be asked anything.
#[derive(Debug)]
pub struct Health {
    checks: watch::Sender<BTreeMap<String, Check>>,
}

impl Health {
    /// Starts with every part not ready.
    pub fn new(parts: &[&str]) -> Self {
        let waiting = |part: &&str| ((*part).to_owned(), Check { ready: false, detail: "starting".into() });
        Self { checks: watch::Sender::new(parts.iter().map(waiting).collect()) }
    }

    pub fn set(&self, part: &str, ready: bool, detail: impl Into<String>) {
        let check = Check { ready, detail: detail.into() };
        self.checks.send_if_modified(|checks| checks.insert(part.to_owned(), check.clone()).as_ref() != Some(&check));
    }

    pub fn checks(&self) -> BTreeMap<String, Check> {
        self.checks.borrow().clone()
    }

    pub fn ready(&self) -> bool {
        self.checks.borrow().values().all(|check| check.ready)
    }

    /// Waits until every part is ready.
    pub async fn wait_ready(&self) {
        let mut checks = self.checks.subscribe();
        let _ = checks.wait_for(|checks| checks.values().all(|check| check.ready)).await;
    }
}
