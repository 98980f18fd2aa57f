//! The embedded log's factory.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use carbon_core::{Clock, Timestamp, TopicName};
use carbon_log::{DataFolder, EmbeddedLog, EventLog, Group};
use tempfile::TempDir;

use super::support::{Cleanable, Cluster, Timed};

/// A clock that the test moves.
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// A data folder of its own.
pub struct Embedded {
    folder: DataFolder,
    clock: Arc<Hand>,
    _root: TempDir,
}

impl Embedded {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(root.path()).unwrap();
        Self { folder, clock: Arc::new(Hand(AtomicI64::new(1_700_000_000_000))), _root: root }
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
impl Timed for Embedded {
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
