//! The factory of the embedded log.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use carbon_core::{Clock, Timestamp, TopicName};
use carbon_log::{DataFolder, EmbeddedLog, EventLog, Group};
use tempfile::TempDir;

use super::support::{Cleanable, Cluster, TimedCluster};

/// A clock that the test sets.
struct ManualClock(AtomicI64);

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// A cluster in a temporary data folder.
pub struct Embedded {
    folder: DataFolder,
    clock: Arc<ManualClock>,
    _root: TempDir,
}

impl Embedded {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(root.path()).unwrap();
        Self { folder, clock: Arc::new(ManualClock(AtomicI64::new(1_700_000_000_000))), _root: root }
    }

    async fn open_log(&self) -> EmbeddedLog {
        EmbeddedLog::open_with_clock(&self.folder, self.clock.clone()).await.unwrap()
    }
}

#[async_trait]
impl Cluster for Embedded {
    async fn open(&self) -> Box<dyn EventLog> {
        Box::new(self.open_log().await)
    }

    fn topic(&self, name: &str) -> TopicName {
        TopicName::parse(name).unwrap()
    }

    fn group(&self, name: &str) -> Group {
        Group::new("test", name)
    }
}

#[async_trait]
impl TimedCluster for Embedded {
    fn now(&self) -> i64 {
        self.clock.0.load(Ordering::SeqCst)
    }

    fn set_now(&self, ms: i64) {
        self.clock.0.store(ms, Ordering::SeqCst);
    }

    async fn open_cleanable(&self) -> Box<dyn Cleanable> {
        Box::new(self.open_log().await)
    }
}

#[async_trait]
impl Cleanable for EmbeddedLog {
    fn log(&self) -> &dyn EventLog {
        self
    }

    async fn clean(&self) {
        self.compact().await.unwrap();
    }
}
